"""Arrays in files of other tools by name, none of which can run code: no pickle is read, and sizes are known before arrays are.

An array is a NumPy array, or for Parquet a sequence of them, one per row.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ...errors import DataError
from ..storage.location import bytes_of, is_local, locate
from ..store.schema import read_metadata

LARGEST_BYTES = 1 << 34
"""Of one array, or of a file that is read whole: 16 GiB."""
Arrays = Mapping[str, Any]
ONLY = ""
"""Name of the array of a file that holds one without a name."""


class NpzArrays(Mapping[str, Any]):
    """Arrays of an `.npz` file, each read when it is asked for."""

    def __init__(self, uri: str, file: Any):
        if not zipfile.is_zipfile(file):
            raise DataError(f"{uri} is no .npz file: it is not the archive that numpy.savez writes")
        file.seek(0)
        try:
            self._file = np.load(file, allow_pickle=False)
            sizes = {entry.filename: entry.file_size for entry in self._file.zip.infolist()}
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise unreadable(uri, error) from error
        self._uri, self._sizes = uri, {name.removesuffix(".npy"): size for name, size in sizes.items()}

    def __getitem__(self, name: str) -> np.ndarray:
        refuse_large(f"array {name!r} of {self._uri}", self._sizes.get(name, 0))
        try:
            return self._file[name]
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise unreadable(f"array {name!r} of {self._uri}", error) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._file.files)

    def __len__(self) -> int:
        return len(self._file.files)


@dataclass(frozen=True)
class ParquetMaps:
    """A column of maps: nested lists, or flat ones with their sizes."""

    uri: str
    column: pa.ChunkedArray
    sizes: Sequence[tuple[int, int] | None]
    """Height and width of each; None for nested lists."""

    def __len__(self) -> int:
        return len(self.column)

    def __getitem__(self, row: Any) -> np.ndarray:
        values = self.column[row].as_py()
        if values is None:
            raise DataError(f"row {row} of {self.uri} has no map; leave it out")
        size = self.sizes[row]
        try:
            array = np.array(values, dtype=np.float32)
            return array if size is None else array.reshape(size)
        except (TypeError, ValueError) as error:
            shape = "nested lists of one shape" if size is None else f"{size[0]} x {size[1]} numbers"
            raise DataError(f"the map in row {row} of {self.uri} is not {shape}: {error}") from error


def npy_arrays(uri: str) -> Arrays:
    fs, path = locate(uri)
    refuse_large(uri, fs.size(path))
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False) if is_local(fs) else None
        return {ONLY: np.load(io.BytesIO(bytes_of(fs, path)), allow_pickle=False) if array is None else array}
    except (ValueError, EOFError) as error:
        raise unreadable(uri, error) from error


def npz_arrays(uri: str) -> Arrays:
    fs, path = locate(uri)
    return NpzArrays(uri, fs.open(path))


def torch_arrays(uri: str) -> Arrays:
    """Tensors that `torch.save` wrote, alone, in a list or in a dictionary; read with `weights_only`."""
    import torch

    fs, path = locate(uri)
    refuse_large(uri, fs.size(path))
    try:
        content = torch.load(io.BytesIO(bytes_of(fs, path)), map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises nearly anything for bytes that it does not take
        raise unreadable(uri, error) from error
    named = content if isinstance(content, dict) else {ONLY: content}
    return {str(name): plain_array(uri, value) for name, value in named.items()}


def safetensors_arrays(uri: str) -> Arrays:
    from safetensors import SafetensorError
    from safetensors.torch import load

    fs, path = locate(uri)
    refuse_large(uri, fs.size(path))
    try:
        return {name: plain_array(uri, tensor) for name, tensor in load(bytes_of(fs, path)).items()}
    except SafetensorError as error:
        raise unreadable(uri, error) from error


def png_arrays(uri: str) -> Arrays:
    """A grey picture of a map, 8 or 16 bit."""
    from PIL import Image

    fs, path = locate(uri)
    try:
        image = Image.open(io.BytesIO(bytes_of(fs, path)), formats=["PNG"])
        if image.mode not in ("L", "I;16", "I"):
            raise DataError(
                f"{uri} is a picture in colour ({image.mode}), from which the map cannot be told; save the map itself, such as by numpy.save"
            )
        return {ONLY: np.asarray(image)}
    except (OSError, Image.DecompressionBombError) as error:
        raise unreadable(uri, error) from error


def parquet_arrays(uri: str) -> Arrays:
    """Columns `id`, `map` and, where there are any, `target`, `height` and `width`; also the files of a heatlas store."""
    fs, path = locate(uri)
    try:
        with fs.open(path) as file:
            opened = pq.ParquetFile(file)
            groups = (opened.metadata.row_group(index) for index in range(opened.metadata.num_row_groups))
            refuse_large(uri, sum(group.total_byte_size for group in groups))
            names, facts = opened.schema_arrow.names, read_metadata(opened.schema_arrow).get("map")
            if missing := {"id", "map"} - set(names):
                raise DataError(
                    f"{uri} has no column {min(missing)!r}; it needs id and map, and has {', '.join(names)}"
                )
            own = [
                name for name in ("target", "height", "width") if name in names and (facts is None or name == "target")
            ]
            table = opened.read(columns=["id", "map", *own])
    except (OSError, pa.ArrowException) as error:
        raise unreadable(uri, error) from error
    if facts is not None:
        table = table.filter(table["map"].is_valid())
    arrays: dict[str, Any] = {
        "ids": table["id"].to_pylist(),
        "maps": ParquetMaps(uri, table["map"], sizes_of(uri, table, facts)),
    }
    return arrays | ({"targets": table["target"].to_pylist()} if "target" in own else {})


def sizes_of(uri: str, table: pa.Table, facts: Mapping[str, int] | None) -> list[tuple[int, int] | None]:
    """Height and width of every map, where lists are flat.

    Raises:
        DataError: Where nothing says them.
    """
    inner = table["map"].type.value_type if pa.types.is_nested(table["map"].type) else None
    if inner is None:
        raise DataError(f"the column map of {uri} is {table['map'].type}, not lists of numbers")
    if pa.types.is_nested(inner):
        return [None] * len(table)
    if facts is not None:
        return [(facts["height"], facts["width"])] * len(table)
    if not {"height", "width"} <= set(table.column_names):
        raise DataError(
            f"the maps of {uri} are flat lists: give their sizes in columns height and width, or nested lists"
        )
    return list(zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True))


READERS: dict[str, Callable[[str], Arrays]] = {
    ".npy": npy_arrays,
    ".npz": npz_arrays,
    ".pt": torch_arrays,
    ".pth": torch_arrays,
    ".safetensors": safetensors_arrays,
    ".parquet": parquet_arrays,
    ".png": png_arrays,
}
"""By suffix."""


def suffix_of(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def read_arrays(uri: str) -> Arrays:
    """The arrays of a file by name.

    Raises:
        DataError: For another kind of file, a damaged one, or one that is too large.
    """
    reader = READERS.get(suffix_of(uri))
    if reader is None:
        raise DataError(f"{uri} is no file of maps: its suffix must be one of {', '.join(READERS)}")
    try:
        return reader(uri)
    except FileNotFoundError:
        raise DataError(f"there is no file {uri}") from None


def plain_array(where: str, value: Any) -> Any:
    """A tensor, array, or list of alike ones as a NumPy array; texts and numbers as they are.

    Raises:
        DataError: For anything else.
    """
    import torch

    if isinstance(value, torch.Tensor):
        kept = value.detach().cpu()
        return (kept.float() if kept.is_floating_point() else kept).numpy()
    if isinstance(value, np.ndarray | str | int | float):
        return value
    if isinstance(value, list | tuple) and value:
        items = [plain_array(where, item) for item in value]
        if all(isinstance(item, str) for item in items):
            return items
        try:
            return np.stack([np.asarray(item) for item in items])
        except ValueError as error:
            raise DataError(f"{where} holds a list of arrays of different shapes: {error}") from error
    raise DataError(f"{where} holds {type(value).__name__} where an array is needed")


def refuse_large(what: str, size: int | None) -> None:
    """Raises: DataError: above `LARGEST_BYTES`."""
    if size is not None and size > LARGEST_BYTES:
        raise DataError(
            f"{what} takes {size / 2**30:.1f} GiB, more than {LARGEST_BYTES / 2**30:.0f}; cut it into several files in a folder"
        )


def unreadable(what: str, error: Exception) -> DataError:
    text = " ".join(str(error).split()) or type(error).__name__
    return DataError(f"{what} cannot be read as maps: {text[:200]}; pickled objects are never read")
