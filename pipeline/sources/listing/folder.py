"""An image folder: the first folder on an image's way is its label, as in torchvision's `ImageFolder`, or the last where the user says so.

Ids are paths relative to the root with `/` between the parts. Images directly in the root have no label; hidden files and
folders (name begins with a dot) are skipped. Symbolic links are followed, except back into a folder that contains them.
A name that is not UTF-8 is listed with its odd bytes written as `\\xNN`; such a file cannot be read and becomes an error
row, instead of going missing silently. A pattern such as `photos/*/front/*.jpg` lists what it matches, by the same rules; its root
is the folder before the first wildcard.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
from fsspec import AbstractFileSystem

from ....errors import DataError
from ...storage.location import is_local
from .nested_folders import folder_label, is_split
from .options import Listed, SourceOptions
from .place import Place, find_place
from .table import make_listing

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"}
    | {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".j2k", ".avif", ".dcm"}
)
"""Files that count as images, upper or lower case."""


def list_folder(data: str, options: SourceOptions) -> Listed:
    """The listing of all images below a folder, or of those that a pattern names.

    Raises:
        DataError: When there is no image, or a folder cannot be listed.
    """
    place = find_place(data)
    root, fs = place.base, place.fs
    try:
        ids = [name for name in _names(place) if is_image(name)]
    except OSError as error:
        raise DataError(f"cannot list {error.filename or data}: {error.strerror or error}; make it readable") from error
    if not ids:
        raise DataError(f"{data} contains no images; files count as images with {' '.join(sorted(IMAGE_SUFFIXES))}")
    prefix = root if is_local(fs) else fs.unstrip_protocol(root).rstrip("/")
    columns = {
        "id": pa.array(ids, pa.string()),
        "uri": pa.array([f"{prefix}/{name}" for name in ids], pa.string()),
        "label": pa.array([folder_label(name, options.folder_label) for name in ids], pa.string()),
    }
    if options.folder_label is None:
        refuse_splits(columns["label"].to_pylist(), ids, data)
    return Listed(make_listing(columns, data), folders=True)


def refuse_splits(labels: Sequence[str | None], ids: Sequence[str], data: str) -> None:
    """Refuse folders that are parts of a data set (`train`, `val`), which would be taken for its classes.

    Raises:
        DataError: Naming the folders to choose from.
    """
    splits = sorted({label for label in labels if label is not None})
    if not splits or not all(map(is_split, splits)):
        return
    deeper = any(name.count("/") > 1 for name in ids)
    what = "the class folders lie below them" if deeper else "they are parts of a data set, not classes"
    choices = " or ".join(f"--data {data.rstrip('/')}/{split}" for split in splits)
    every = (
        ", or take all of them with --labels.folder last" if deeper else ", or say --labels.folder first if they are"
    )
    raise DataError(f"the folders of {data} are called {', '.join(splits)}: {what}; name one: {choices}{every}")


def _names(place: Place) -> Iterator[str]:
    """Paths relative to the base."""
    if place.is_folder:
        return _relative_paths(place.fs, place.base)
    return (_printable(place.relative(path)) for path in place.paths)


def _relative_paths(fs: AbstractFileSystem, root: str) -> Iterator[str]:
    if is_local(fs):
        return (_printable(name) for name in _walk(root or "/", "", ()))
    fs.invalidate_cache(root)
    return (path[len(root) :].lstrip("/") for path in fs.find(root))


def _walk(folder: str, prefix: str, above: tuple[tuple[int, int], ...]) -> Iterator[str]:
    """Names of all files below, following links; `above` identifies the folders on the way, to see a loop."""
    status = os.stat(folder)
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        return
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                yield from _walk(entry.path, f"{prefix}{entry.name}/", (*above, identity))
            else:
                yield prefix + entry.name


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself: listed, and an error row when it is read
        return False


def is_image(name: str) -> bool:
    """Whether a file counts as an image, by its path alone."""
    hidden = name.startswith(".") or "/." in name
    return not hidden and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _printable(name: str) -> str:
    return os.fsencode(name).decode("utf-8", "backslashreplace")
