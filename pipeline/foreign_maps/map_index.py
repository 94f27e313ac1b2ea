"""Where the maps of every image are: found once, from names, keys or rows; read when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...errors import DataError
from ..storage.location import locate
from ..text import counted
from .array_files import READERS, Arrays, plain_array, read_arrays, suffix_of
from .choices import MapChoices
from .matching import NameTable, without_suffix

ID_KEYS = ("ids", "id", "names", "paths")
MAP_KEYS = ("maps", "map")
TARGET_KEYS = ("targets", "target")
IN_MEMORY = ""
"""Stands for the file of maps that the caller holds."""
NAMES_SHOWN = 3


@dataclass(frozen=True)
class MapPlace:
    """One map: an array of a file, or a row of it."""

    file: str
    array: str
    row: int | None = None
    target: int | None = None
    """The class that it explains; None where the file does not say."""


@dataclass
class MapIndex:
    """The maps of a data set; picklable, so that it travels into actors."""

    choices: MapChoices
    places: dict[str, tuple[MapPlace, ...]] = field(default_factory=dict)
    """By id."""
    unknown: list[str] = field(default_factory=list)
    """Names of maps that no image has."""
    given: Arrays | None = None
    """Maps that the caller holds."""

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[str, Arrays] | None = None
        self._last: tuple[str, str, Any] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self.__post_init__()

    def raw(self, place: MapPlace) -> np.ndarray:
        """The map as the other tool wrote it. Called from several threads.

        Raises:
            DataError: If it cannot be read.
        """
        with self._lock:
            if self._last is None or self._last[:2] != (place.file, place.array):
                self._last = place.file, place.array, self._arrays(place.file)[place.array]
            array = self._last[2]
            row = array if place.row is None else array[place.row]
        return np.asarray(self._of_method(row, place))

    def _of_method(self, row: Any, place: MapPlace) -> Any:
        """Of an image's maps by several methods the chosen one's."""
        wanted = self.choices.method_index
        if wanted is None:
            if np.ndim(row) == 4 and len(row) > 1:
                raise DataError(
                    f"{place.file or 'the array'} has {np.shape(row)} numbers for an image, which looks like {len(row)} methods; "
                    f"say which by --method-index 0 to {len(row) - 1}"
                )
            return row
        if np.ndim(row) < 3 or wanted >= len(row):
            raise DataError(
                f"--method-index {wanted}: an image's maps have the shape {np.shape(row)}, which has no such method"
            )
        return row[wanted]

    def _arrays(self, file: str) -> Arrays:
        if file == IN_MEMORY:
            return self.given or {}
        if self._open is None or self._open[0] != file:
            self._open = file, read_arrays(file)
        return self._open[1]

    def add(self, table: NameTable, name: str, place: MapPlace) -> None:
        """Note whose map it is."""
        identity = table.id_of(name)
        if identity is None:
            self.unknown.append(name)
            return
        for other in self.places.get(identity, ()):
            if other.target == place.target:
                which = "" if place.target is None else f" for class {place.target}"
                raise DataError(
                    f"{identity!r} has two maps{which}: {described(other)} and {described(place)}; leave one out, or say their targets"
                )
        self.places[identity] = (*self.places.get(identity, ()), place)


def described(place: MapPlace) -> str:
    row = "" if place.row is None else f" row {place.row}"
    return f"{place.file} {place.array}{row}".strip()


def index_maps(maps: Any, ids: Sequence[str], choices: MapChoices) -> MapIndex:
    """Find the maps of a data set.

    Args:
        maps: Folder, file or URI; or the maps themselves: an array by position, or a mapping of ids to arrays.
        ids: Of the data set, in the listing's order.
        choices: How they are read.

    Raises:
        DataError: If it cannot be told which map is whose.
    """
    index, table = MapIndex(choices), NameTable.of(ids)
    if not isinstance(maps, str):
        named = maps if isinstance(maps, Mapping) else {MAP_KEYS[0]: maps}
        index.given = {str(name): plain_array("maps", value) for name, value in named.items()}
        add_file(index, table, ids, IN_MEMORY, index.given)
    elif suffix_of(maps) in READERS and locate(maps)[0].isfile(locate(maps)[1]):
        add_file(index, table, ids, maps, read_arrays(maps))
    else:
        for uri, name in files_below(maps):
            add_one_of_many(index, table, ids, uri, name)
    if not index.places:
        named = ", ".join(map(repr, index.unknown[:NAMES_SHOWN]))
        raise DataError(
            f"none of the {counted(len(index.unknown), 'map')} is of an image of the data set: maps are called {named}, "
            f"images {', '.join(map(repr, ids[:NAMES_SHOWN]))}; name the maps by the images' ids"
        )
    return index


def files_below(folder: str) -> Iterator[tuple[str, str]]:
    """Every file of maps below a folder: its URI, and its path from there without the suffix."""
    fs, root = locate(folder)
    if not fs.isdir(root):
        raise DataError(f"--maps {folder} is neither a folder nor a file with one of the suffixes {', '.join(READERS)}")
    root = root.rstrip("/")
    paths = sorted(path for path in fs.find(root) if suffix_of(path) in READERS)
    if not paths:
        raise DataError(f"--maps {folder} has no file with one of the suffixes {', '.join(READERS)}")
    for path in paths:
        below = path.removeprefix(root).lstrip("/")
        yield f"{folder.rstrip('/')}/{below}", without_suffix(below)


def add_one_of_many(index: MapIndex, table: NameTable, ids: Sequence[str], uri: str, name: str) -> None:
    """A file of a folder: of one image, which its name says, or with ids of its own."""
    arrays = read_arrays(uri)
    if first_of(ID_KEYS, arrays) is not None:
        return add_file(index, table, ids, uri, arrays)
    key, targets = map_key(uri, arrays, index.choices), targets_in(uri, arrays)
    if targets is None or np.ndim(targets) == 0:
        return index.add(table, name, MapPlace(uri, key, target=None if targets is None else int(targets)))
    for row, target in enumerate(checked_count(uri, targets, len(arrays[key]))):
        index.add(table, name, MapPlace(uri, key, row, int(target)))
    return None


def add_file(index: MapIndex, table: NameTable, ids: Sequence[str], uri: str, arrays: Arrays) -> None:
    """A file with the maps of several images: rows with ids, an array for each id, or rows by position."""
    names_key = first_of(ID_KEYS, arrays)
    if names_key is None and index.choices.by == "id" and index.choices.array is None:
        named = [name for name in arrays if name not in (*MAP_KEYS, *TARGET_KEYS)]
        if named and any(table.id_of(name) is not None for name in named):
            for name in named:
                index.add(table, name, MapPlace(uri, name))
            return
    key, targets = map_key(uri, arrays, index.choices), targets_in(uri, arrays)
    rows = arrays[key]
    if names_key is not None:
        names: Sequence[str] = [str(name) for name in arrays[names_key]]
        checked_count(uri, names, len(rows))
    elif index.choices.by != "position":
        raise DataError(
            f"nothing in {uri or 'the maps'} says which of its {counted(len(rows), 'map')} is of which image: add an array ids, or say "
            f"--by position if they stand in the order of the data set's listing ({', '.join(map(repr, ids[:NAMES_SHOWN]))} ...)"
        )
    else:
        names = ids
        if len(rows) != len(ids):
            raise DataError(
                f"{uri or 'the array'} has {counted(len(rows), 'map')}, the data set {counted(len(ids), 'image')}; by position they must be as many"
            )
    every = (
        None
        if targets is None
        else checked_count(uri, np.broadcast_to(targets, len(rows)) if np.ndim(targets) == 0 else targets, len(rows))
    )
    for row, name in enumerate(names):
        index.add(table, name, MapPlace(uri, key, row, None if every is None else int(every[row])))


def first_of(keys: Sequence[str], arrays: Arrays) -> str | None:
    return next((key for key in keys if key in arrays), None)


def targets_in(uri: str, arrays: Arrays) -> Any:
    """Class indices that a file states; None for none."""
    key = first_of(TARGET_KEYS, arrays)
    if key is None:
        return None
    values = np.asarray(arrays[key])
    if values.dtype.kind not in "iu":
        raise DataError(f"the {key} of {uri or 'the maps'} must be class indices (whole numbers), got {values.dtype}")
    return values


def map_key(uri: str, arrays: Arrays, choices: MapChoices) -> str:
    """Name of the array that holds the maps.

    Raises:
        DataError: If there are several, or none of that name.
    """
    others = [name for name in arrays if name not in (*ID_KEYS, *TARGET_KEYS)]
    if choices.array is not None:
        if choices.array not in others:
            raise DataError(f"{uri or 'the maps'} has no array {choices.array!r}; there are {', '.join(others)}")
        return choices.array
    if (key := first_of(MAP_KEYS, arrays)) is not None:
        return key
    if len(others) != 1:
        raise DataError(
            f"{uri or 'the maps'} has {counted(len(others), 'array')} ({', '.join(others[:8])}); say by --array which holds the maps"
        )
    return others[0]


def checked_count(uri: str, values: Any, count: int) -> Any:
    if len(values) != count:
        raise DataError(f"{uri or 'the maps'} has {count} maps, but ids or targets for {len(values)}")
    return values
