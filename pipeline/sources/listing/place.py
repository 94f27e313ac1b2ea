"""What `--data` names: one file, one folder, or the files of a pattern. Local paths and fsspec URIs alike."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass

from fsspec import AbstractFileSystem
from fsspec.utils import glob_translate

from ....errors import DataError, UsageError
from ...storage.location import is_local, locate

LARGEST_EXPANSION = 1_000_000
"""Names that braces may stand for."""
_MAGIC = re.compile(r"[*?\[{]")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_BRACES = re.compile(r"\{([^{}]*)\}")


@dataclass(frozen=True)
class Place:
    """Something that exists; paths are those of `fs`."""

    origin: str
    """As the user wrote it, for messages; a prefix such as `coco:` taken off."""
    fs: AbstractFileSystem
    paths: tuple[str, ...]
    """One folder, or files in sorted order."""
    base: str
    """The folder relative to which ids are written."""
    is_folder: bool

    @property
    def path(self) -> str:
        """The only path, or the first of a pattern's."""
        return self.paths[0]

    @property
    def suffixes(self) -> set[str]:
        """Of the files, in small letters; nothing for a folder."""
        return set() if self.is_folder else {os.path.splitext(path)[1].lower() for path in self.paths}

    def uri(self, path: str) -> str:
        """As workers read it: an absolute local path, or a URI."""
        return uri_of(self.fs, path)

    def relative(self, path: str) -> str:
        """As ids say it."""
        return path[len(self.base) :].lstrip("/") if path.startswith(self.base) else path

    def names(self) -> dict[str, bool]:
        """What lies directly in the folder: base name, and whether it is a folder; nothing hidden."""
        self.fs.invalidate_cache(self.path)
        names = {}
        for entry in self.fs.ls(self.path, detail=True):
            name = entry["name"].rstrip("/").rsplit("/", 1)[-1]
            if not name.startswith(".") and entry["name"].rstrip("/") != self.path.rstrip("/"):
                names[name] = self.fs.isdir(entry["name"]) if entry.get("islink") else entry["type"] == "directory"
        return names

    def inner(self, name: str) -> Place:
        """A file or folder in this folder.

        Raises:
            DataError: If it is not there.
        """
        return find_place(f"{self.uri(self.path).rstrip('/')}/{name}")


def uri_of(fs: AbstractFileSystem, path: str) -> str:
    """The path as workers read it: local ones as they are, others with their scheme."""
    return path if is_local(fs) else fs.unstrip_protocol(path)


def find_place(data: str) -> Place:
    """Look what lies at `data`: a path or URI; `*`, `?`, `[...]` and `{a,b}`, `{000..012}` in it make it a pattern, unless
    there is a file of exactly that name.

    Links and `..` on the way to a local folder are resolved, so that one folder has one name. A file keeps its own name, links in
    the folders before it resolved: what a manifest says relative to itself stays so.

    Raises:
        DataError: If there is nothing, naming what is missing of a brace's names.
    """
    try:
        fs, path = locate(os.path.expanduser(data))
        if is_local(fs):
            path = _real_path(path)
        if fs.isdir(path):
            return Place(data, fs, (path,), path.rstrip("/"), is_folder=True)
        if fs.isfile(path):
            return Place(data, fs, (path,), path.rpartition("/")[0], is_folder=False)
        if _MAGIC.search(path):
            return _of_pattern(data, fs, path)
    except UsageError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot reach {data}: {type(error).__name__}: {error}") from error
    raise DataError(
        f"there is no file or folder {data}; give an image folder, a manifest, or another source of docs/data.md"
    )


def _real_path(path: str) -> str:
    """A local path, or pattern, with the links in its folders resolved."""
    if os.path.isdir(path):
        return os.path.realpath(path)
    if os.path.isfile(path) or not (magic := _MAGIC.search(path)):
        folder, _, name = path.rpartition("/")
        return f"{os.path.realpath(folder or '/').rstrip('/')}/{name}"
    folder, _, rest = path[: magic.start()].rpartition("/")
    return f"{os.path.realpath(folder or '/').rstrip('/')}/{rest}{path[magic.start() :]}"


def _of_pattern(data: str, fs: AbstractFileSystem, pattern: str) -> Place:
    fs.invalidate_cache()
    paths: list[str] = []
    for name in expand_braces(pattern, data):
        matched = sorted(map(str, fs.glob(name))) if re.search(r"[*?\[]", name) else [name] if fs.isfile(name) else []
        files = [path for path in matched if path == name or fs.isfile(path)]
        if not files:
            raise DataError(f"there is no file {name}, which {data} names; correct the pattern or add the file")
        paths += files
    base = pattern[: _MAGIC.search(pattern).start()].rpartition("/")[0]  # pyright: ignore[reportOptionalMemberAccess]
    return Place(data, fs, tuple(sorted(dict.fromkeys(paths))), base, is_folder=False)


def could_match(pattern: str, path: str) -> bool:
    """Whether a pattern could name this path."""
    wildcards = re.sub(r"\{[^{}]*\}", "*", pattern)
    return wildcards != path and re.fullmatch(glob_translate(wildcards), path) is not None


def expand_braces(pattern: str, data: str) -> Iterator[str]:
    """The names that braces stand for, as a shell has them: `{000..012}` counts, `{a,b}` chooses.

    Raises:
        DataError: For more than `LARGEST_EXPANSION` names, or a range that counts down.
    """
    pieces = _BRACES.split(pattern)
    choices = [_choices(piece, data) if place % 2 else [piece] for place, piece in enumerate(pieces)]
    total = 1
    for part in choices:
        total *= len(part)
    if total > LARGEST_EXPANSION:
        raise DataError(f"{data} stands for {total} names, more than the limit of {LARGEST_EXPANSION}; use * instead")
    return ("".join(part) for part in itertools.product(*choices))


def _choices(inner: str, data: str) -> list[str] | _Numbers:
    if not (match := _RANGE.fullmatch(inner)):
        return inner.split(",")
    first, last = match.groups()
    if int(first) > int(last):
        raise DataError(f"{{{inner}}} in {data} counts down; write the smaller number first")
    return _Numbers(int(first), int(last), len(first) if first.startswith("0") or len(first) == len(last) else 0)


class _Numbers:
    """`000` to `012`, made one by one."""

    def __init__(self, first: int, last: int, width: int):
        self._range, self._width = range(first, last + 1), width

    def __len__(self) -> int:
        return len(self._range)

    def __iter__(self) -> Iterator[str]:
        return (f"{number:0{self._width}d}" for number in self._range)
