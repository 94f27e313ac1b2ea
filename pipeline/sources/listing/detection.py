"""Which kind of source `--data` names: said by a prefix, or seen from what lies there. Where two kinds fit, neither is guessed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import pyarrow.parquet as pq

from ....errors import DataError, did_you_mean
from .image_tables import image_columns
from .manifest import MANIFEST_SUFFIXES
from .options import SourceOptions
from .place import Place, find_place
from .python_factory import FORM
from .registry import SOURCES, Source
from .tar_index import COMPRESSED

_PREFIX = re.compile(r"([A-Za-z_][A-Za-z0-9_.-]+):(?!//|:)(.*)", re.DOTALL)


@dataclass(frozen=True)
class DetectedSource:
    """A source and what it is to list."""

    source: Source
    data: str
    """Without the prefix."""

    @property
    def full(self) -> str:
        """With the prefix."""
        return f"{self.source.name}:{self.data}"


def source_by_prefix(data: str) -> DetectedSource | None:
    """The source that a prefix names; None without one. Looks at no file system but for a local file of that very name.

    Raises:
        DataError: For a prefix that is none, where it is no name of a local file either.
    """
    match = _PREFIX.fullmatch(data)
    if match is None or os.path.exists(data):
        return None
    prefix, rest = match.groups()
    if prefix in SOURCES:
        if not rest:
            raise DataError(f"{data} names nothing; write {prefix}:PATH")
        return DetectedSource(SOURCES[prefix], SOURCES[prefix].canonical(rest))
    if FORM.fullmatch(data):
        return DetectedSource(SOURCES["python"], data)
    known = ", ".join(f"{name}:" for name in SOURCES)
    raise DataError(
        f"there is no file {data}, and no source {prefix!r}{did_you_mean(prefix, SOURCES)}; sources are {known}"
    )


def place_named(data: str) -> str | None:
    """The path or URI in `data`, without a prefix; None where it names no place, but code.

    Raises:
        DataError: For a prefix that is none.
    """
    source = source_by_prefix(data)
    if source is None:
        return data
    if source.source.is_place:
        return source.data
    _, _, root = source.data.partition("@")
    return root.partition("?")[0] or None if source.source.name == "torchvision" else None


def item_source(data: str) -> str | None:
    """The source of `item://` URIs that `data` names, with its prefix; None where its images are files."""
    source = source_by_prefix(data)
    return source.full if source is not None and not source.source.is_place else None


def detect_source(data: str, options: SourceOptions) -> DetectedSource:
    """The source that `data` is.

    Raises:
        DataError: If nothing lies there, it is of no known kind, or of two.
    """
    if (source := source_by_prefix(data)) is not None:
        return source
    place = find_place(data)
    kinds = _folder_kinds(place) if place.is_folder else _file_kinds(place, options)
    if len(kinds) > 1:
        both = " or ".join(f"{name}:{_example(name, place)} ({SOURCES[name].what})" for name in kinds)
        raise DataError(f"{data} can be read in more than one way; say which: --data {both}")
    return DetectedSource(SOURCES[kinds[0]], data)


def _example(kind: str, place: Place) -> str:
    return f"{place.origin.rstrip('/')}/FILE.json" if kind == "coco" and place.is_folder else place.origin


def _folder_kinds(place: Place) -> list[str]:
    names = place.names()
    if names.get("data"):  # as Hugging Face's hub has it
        tables = {f"data/{name}": False for name in place.inner("data").names() if name.endswith(".parquet")}
        names = {name: kind for name, kind in names.items() if name != "data" or not tables} | tables
    kinds = [name for name, source in SOURCES.items() if source.in_folder(names)]
    if kinds == ["coco"]:
        raise DataError(
            f"{place.origin} holds annotations; name the file: --data coco:{place.origin.rstrip('/')}/FILE.json"
        )
    return kinds or ["folder"]


def _file_kinds(place: Place, options: SourceOptions) -> list[str]:
    if len(place.suffixes) > 1 and not all(SOURCES["folder"].suffixes >= {suffix} for suffix in place.suffixes):
        raise DataError(
            f"{place.origin} names files of several kinds, {', '.join(sorted(place.suffixes))}; make the pattern narrower"
        )
    [suffix, *_] = sorted(place.suffixes)
    if place.path.lower().endswith(COMPRESSED):
        raise DataError(
            f"{place.origin} is a compressed tar, in which images cannot be read one by one; unpack it to a plain .tar"
        )
    if suffix == ".parquet":
        return _parquet_kinds(place, options)
    kinds = [name for name, source in SOURCES.items() if suffix in source.suffixes]
    if kinds:
        return kinds
    manifests = ", ".join(MANIFEST_SUFFIXES)
    raise DataError(
        f"{place.origin} is neither a folder nor a manifest: a manifest ends in {manifests}; for images give the folder that "
        "contains them, or say what it is with a prefix: " + ", ".join(f"{name}:" for name in SOURCES)
    )


def _parquet_kinds(place: Place, options: SourceOptions) -> list[str]:
    """A manifest has a column with paths, a table of images one with bytes."""
    try:
        with place.fs.open(place.path, "rb") as file:
            schema = pq.ParquetFile(file).schema_arrow
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot read {place.origin} as Parquet: {type(error).__name__}: {error}") from error
    kinds = ["manifest"] if options.columns.get("uri", "uri") in schema.names else []
    if image_columns(schema):
        kinds.append("parquet")
    return kinds or ["manifest"]  # which says what it lacks
