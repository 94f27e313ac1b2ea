"""Images that changed since they were explained: size and time of the file decide whether it is read again, its hash whether it changed."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from ...errors import RunMismatchError, SampleError, StorageError
from ...statuses import RETRYABLE
from ...workers.protocols import SampleReader
from ..sources.listing.detection import item_source
from ..sources.reading.container_uri import is_container_uri, parse_uri
from ..sources.reading.reader import FsspecReader
from ..storage.backoff import with_retries
from ..storage.location import is_local, locate
from ..store.committed_shards import done_shards
from ..store.part_files import PartFile
from ..store.part_reader import open_file
from ..store.verify import Problem
from ..text import counted

COLUMNS = ("id", "uri", "status", "source_size", "source_hash")
CLOCKS_APART = timedelta(minutes=10)
"""A file that is older than the run by more than this was not touched since."""
READERS = 16
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created")
"""Names of the time of the last change in what file systems tell of a file."""


@dataclass(frozen=True)
class ExplainedImage:
    """What a finished row says of the bytes that were read."""

    id: str
    uri: str
    size: int
    hash: str
    part: str
    """Path of its file in the store."""


@dataclass(frozen=True)
class FileState:
    """What a file system tells of a file without reading it."""

    size: int | None = None
    changed: datetime | None = None


@dataclass(frozen=True)
class InputCheck:
    """What was found."""

    images: int
    """With a stored hash, of rows that no retry would compute again."""
    read: int
    """Of these, read again."""
    changed: tuple[tuple[ExplainedImage, int], ...]
    """With the bytes there now."""
    gone: tuple[ExplainedImage, ...]
    """That cannot be read any more."""


def check_inputs(out: str, run: Mapping[str, Any], reader: SampleReader) -> InputCheck:
    """Compare the images of finished rows with the bytes that were explained.

    Args:
        out: The run's directory.
        run: Content of its `_run.json`.
        reader: Of the run's images.

    Raises:
        StorageError: If the store cannot be read.
    """
    images = list({image.id: image for image in explained_images(out)}.values())
    since = _time(run.get("created"))
    suspects = _suspects(images, None if since is None else since - CLOCKS_APART)
    with ThreadPoolExecutor(READERS, thread_name_prefix="reread") as pool:
        sizes = list(pool.map(lambda image: _size_if_changed(image, reader), suspects))
    changed = tuple((image, size) for image, size in zip(suspects, sizes, strict=True) if isinstance(size, int))
    gone = tuple(image for image, size in zip(suspects, sizes, strict=True) if size == "gone")
    return InputCheck(len(images), len(suspects), changed, gone)


def refuse_changed_inputs(out: str, check: InputCheck) -> None:
    """Half of a store must not be of other images than the data set has now.

    Raises:
        RunMismatchError: Saying how many changed, with an example.
    """
    if not check.changed:
        return
    image, size = check.changed[0]
    raise RunMismatchError(
        f"{counted(len(check.changed), 'image')} of {check.images} changed since explained, such as {image.id!r} ({image.size} bytes then, "
        f"{size} now): their maps in {out} are of other pictures. Restore them, or delete their parts with `heatlas verify {out} --data "
        "--delete-damaged` and run the same command again, or choose another --out; nothing was changed"
    )


def input_problems(out: str, run: Mapping[str, Any]) -> list[Problem]:
    """What `heatlas verify --data` finds wrong: parts whose images changed, and images that are gone."""
    data = run["settings"].get("data", "")
    reader = FsspecReader(run["fingerprint"].get("data_root"), (), item_source(data))
    check = check_inputs(out, run, reader)
    by_part: dict[str, list[str]] = defaultdict(list)
    for image, _ in check.changed:
        by_part[image.part].append(image.id)
    problems = [
        Problem(part, f"{counted(len(ids), 'image')} of it changed since explained, such as {ids[0]!r}", "delete")
        for part, ids in sorted(by_part.items())
    ]
    if check.gone:
        text = f"{counted(len(check.gone), 'explained image')} cannot be read any more, such as {check.gone[0].uri!r}"
        problems.append(Problem("maps", text, "look"))
    return problems


def explained_images(out: str) -> Iterator[ExplainedImage]:
    """Every row that names the bytes that were read, but for rows that a retry would compute again."""
    for file in done_shards(out).files:
        try:
            rows = _stored_rows(out, file)
        except StorageError:  # a damaged part is told by whoever needs its maps, and by `verify`
            continue
        for row in rows:
            if row["source_hash"] is not None and row["status"] not in RETRYABLE:
                yield ExplainedImage(row["id"], row["uri"], row["source_size"], row["source_hash"], file.path)


def _stored_rows(out: str, file: PartFile) -> list[dict[str, Any]]:
    """Without maps; none of a store whose rows do not name what was read."""
    with open_file(out, file) as opened:
        if not set(COLUMNS) <= set(opened.schema_arrow.names):
            return []
        return opened.read(columns=list(COLUMNS)).to_pylist()


def _suspects(images: Iterable[ExplainedImage], since: datetime | None) -> list[ExplainedImage]:
    """Images whose file has another size, is younger than the run, or tells nothing."""
    by_file: dict[str, list[ExplainedImage]] = defaultdict(list)
    for image in images:
        inside = parse_uri(image.uri) if is_container_uri(image.uri) else None
        if inside is None or inside.kind != "item":  # what a data set written in Python gives has no file to look at
            by_file[image.uri if inside is None else inside.file].append(image)
    suspects = []
    for file, state in file_states(by_file).items():
        for image in by_file[file]:
            other_size = file == image.uri and state.size is not None and state.size != image.size
            if other_size or state.changed is None or since is None or state.changed > since:
                suspects.append(image)
    return suspects


def file_states(files: Iterable[str]) -> dict[str, FileState]:
    """Size and time of files, by one listing a folder where they are not local; nothing known of those that are not there."""
    states, remote = {}, defaultdict(list)
    for file in files:
        if file.startswith("/"):
            states[file] = _local_state(file)
        else:
            remote[file.rpartition("/")[0]].append(file)
    with ThreadPoolExecutor(READERS, thread_name_prefix="listing") as pool:
        for folder_states in pool.map(_folder_states, remote, remote.values()):
            states |= folder_states
    return states


def _local_state(path: str) -> FileState:
    try:
        status = os.stat(path)
    except OSError:
        return FileState()
    return FileState(status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _folder_states(folder: str, files: list[str]) -> dict[str, FileState]:
    fs, path = locate(folder)
    if is_local(fs):
        return {file: _local_state(locate(file)[1]) for file in files}
    fs.invalidate_cache(path)
    try:
        entries = with_retries(lambda: fs.ls(path, detail=True), f"list {folder}")
    except Exception:  # each storage has errors of its own; what is not known is read again
        return {file: FileState() for file in files}
    known = {entry["name"].rsplit("/", 1)[-1]: entry for entry in entries}
    return {file: _entry_state(known.get(file.rsplit("/", 1)[-1])) for file in files}


def _entry_state(entry: Mapping[str, Any] | None) -> FileState:
    if entry is None:
        return FileState()
    times = [time for name in _TIMES if (time := _time(entry.get(name))) is not None]
    return FileState(entry.get("size"), times[0] if times else None)


def _time(value: Any) -> datetime | None:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _size_if_changed(image: ExplainedImage, reader: SampleReader) -> int | str | None:
    """Bytes of the image where they are other ones; `gone` where it cannot be read; None where it is the same."""
    try:
        data = reader.read(image.uri)
    except SampleError:
        return "gone"
    return None if hashlib.sha256(data).hexdigest() == image.hash else len(data)
