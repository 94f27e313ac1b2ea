"""Encoding and delimiter of a CSV file as programs write it: UTF-8, UTF-16 with its mark, Windows-1252; commas, semicolons, tabs."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Mapping

from ....errors import DataError

_SEPARATOR_LINE = re.compile(rb'"?sep=.?"?\r?\n', re.IGNORECASE)
_MARKS = {
    b"\xff\xfe\0\0": "utf-32",
    b"\0\0\xfe\xff": "utf-32",
    b"\xff\xfe": "utf-16",
    b"\xfe\xff": "utf-16",
    b"\xef\xbb\xbf": "utf-8-sig",
}


def as_utf8(data: bytes, origin: str) -> tuple[bytes, list[str]]:
    """The text in UTF-8, whichever of the usual encodings it has, and what the user should know of it.

    Raises:
        DataError: If it is not text, or UTF-16 without a mark.
    """
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    if encoding is None and b"\0" in data[:1024]:
        raise DataError(f"{origin} has zero bytes at its beginning, so it is not UTF-8 text (perhaps UTF-16 without a mark); save it as UTF-8")  # fmt: skip
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding is not None:
            raise DataError(f"{origin} begins like {encoding} text but is not: {error}; save it as UTF-8") from error
        text = data.decode("cp1252", "replace")
        return text.encode(), [f"{origin} is not UTF-8, so it is read as Windows-1252 (which Latin-1 is a part of)"]
    return text.encode(), [f"{origin} is read as {encoding.upper()}"] if encoding in ("utf-16", "utf-32") else []


def without_separator_line(data: bytes, origin: str) -> tuple[bytes, list[str]]:
    """The text without the line `sep=;` that Excel wants before the header, and what the user should know of it."""
    match = _SEPARATOR_LINE.match(data)
    return (
        (data, [])
        if match is None
        else (data[match.end() :], [f"the first line {match[0].decode().strip()!r} of {origin} is left out"])
    )


def delimiter_of(data: bytes, mapping: Mapping[str, str], origin: str) -> tuple[str, list[str]]:
    """The delimiter of the header, and what the user should know: a comma, or a tab in a `.tsv`; another one where only that gives `uri`."""
    own = "\t" if origin.lower().endswith(".tsv") else ","
    wanted = mapping.get("uri", "uri").strip().casefold()
    for delimiter in dict.fromkeys((own, ",", ";", "\t", "|")):
        if wanted in [name.strip().casefold() for name in header_of(data, delimiter)]:
            return delimiter, [] if delimiter == own else [f"{origin} has {delimiter!r} between its columns"]
    return own, []


def header_of(data: bytes, delimiter: str) -> list[str]:
    """The column names in the first line of UTF-8 text."""
    return next(csv.reader(io.StringIO(data.decode("utf-8", "replace"), newline=""), delimiter=delimiter), [])
