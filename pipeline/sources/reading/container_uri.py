"""URIs of bytes that lie inside a file. The file comes last and is everything that follows, so no character in its name,
and no `::` of fsspec, can be taken for anything else:

    range://OFFSET+LENGTH/FILE                  bytes of any file, such as a member of a tar
    parquet://COLUMN/GROUP+ROW/FILE             a cell of a Parquet file; ROW counts in its row group
    arrow://COLUMN/OFFSET+LENGTH+ROW/FILE       a cell of an Arrow stream; ROW counts in the record batch at OFFSET
    coco-mask://WIDTHxHEIGHT/O+L,O+L,.../FILE   a mask, drawn from annotations that lie at these bytes of a COCO file
    item://INDEX/SOURCE                         an image that a data set written in Python gives: `torchvision:...`, `python:...`

FILE is an absolute path or a URI, so `range://0+9//data/a.tar` has two slashes. COLUMN is percent-encoded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from ....errors import SampleError
from ....statuses import READ_ERROR

SCHEMES = ("range", "parquet", "arrow", "coco-mask", "item")
_FORMS = {
    "range": re.compile(r"range://(\d+)\+(\d+)/(.+)", re.DOTALL),
    "parquet": re.compile(r"parquet://([^/]+)/(\d+)\+(\d+)/(.+)", re.DOTALL),
    "arrow": re.compile(r"arrow://([^/]+)/(\d+)\+(\d+)\+(\d+)/(.+)", re.DOTALL),
    "coco-mask": re.compile(r"coco-mask://(\d+)x(\d+)/(\d+\+\d+(?:,\d+\+\d+)*)/(.+)", re.DOTALL),
    "item": re.compile(r"item://(\d+)/(.+)", re.DOTALL),
}
_SCHEME = re.compile(rf"({'|'.join(SCHEMES)})://")

Range = tuple[int, int]
"""Offset and length in bytes."""


@dataclass(frozen=True, slots=True)
class ContainerUri:
    """What a URI of one of `SCHEMES` says."""

    kind: str
    file: str
    """Path or URI of the file; of an item its source."""
    column: str = ""
    ranges: tuple[Range, ...] = ()
    group: int = 0
    row: int = 0
    """Of an item its index."""
    width: int = 0
    height: int = 0


def is_container_uri(uri: str) -> bool:
    """Whether the URI names bytes inside a file."""
    return _SCHEME.match(uri) is not None


def parse_uri(uri: str) -> ContainerUri:
    """What the URI says.

    Raises:
        SampleError: If it does not have the form of its scheme.
    """
    kind = uri.partition("://")[0]
    match = _FORMS[kind].fullmatch(uri)
    if match is None:
        raise SampleError(READ_ERROR, f"not a well-formed {kind}:// URI")
    *texts, file = match.groups()
    if kind == "coco-mask":
        width, height, ranges = texts
        pairs = (piece.split("+") for piece in ranges.split(","))
        return ContainerUri(kind, file, ranges=tuple((int(offset), int(length)) for offset, length in pairs),
                      width=int(width), height=int(height))  # fmt: skip
    if kind == "item":
        return ContainerUri(kind, file, row=int(texts[0]))
    column = "" if kind == "range" else unquote(texts.pop(0))
    numbers = [int(text) for text in texts]
    if kind == "parquet":
        return ContainerUri(kind, file, column, group=numbers[0], row=numbers[1])
    return ContainerUri(
        kind, file, column, ranges=((numbers[0], numbers[1]),), row=numbers[2] if kind == "arrow" else 0
    )


def range_uri(offset: int, length: int, file: str) -> str:
    return f"range://{offset}+{length}/{file}"


def column_part(column: str) -> str:
    """A column's name as it stands in a URI."""
    return quote(column, safe="")


def mask_uri(width: int, height: int, ranges: tuple[Range, ...], file: str) -> str:
    return f"coco-mask://{width}x{height}/{','.join(f'{offset}+{length}' for offset, length in ranges)}/{file}"


def item_uri(index: int, source: str) -> str:
    return f"item://{index}/{source}"


CONTAINER = r"^(range://[0-9]+[+][0-9]+|parquet://[^/]+/[0-9]+[+][0-9]+|arrow://[^/]+/[0-9+]+)/"
"""What to take off a URI to see in which file it lies, as a regular expression that Arrow knows."""
