import errno
import multiprocessing
import os
import stat
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from heatlas.errors import StorageError, UsageError
from heatlas.pipeline.storage import atomic_write as commit
from heatlas.pipeline.storage import backoff as retries
from heatlas.pipeline.storage.atomic_write import put, put_if_absent, sweep_temporaries
from tenacity import wait_none


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(retries, "WAIT", wait_none())


def read(uri):
    fs, path = fsspec.core.url_to_fs(uri)
    return fs.cat_file(path)


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# --- on both kinds of store


def test_first_writer_wins(place):
    assert put_if_absent(f"{place}/maps/a", b"first")
    assert not put_if_absent(f"{place}/maps/a", b"second")
    assert read(f"{place}/maps/a") == b"first"


def test_put_overwrites(place):
    put(f"{place}/a", b"one")
    put(f"{place}/a", b"two")
    assert read(f"{place}/a") == b"two"


def test_eight_racing_threads_have_one_winner(place):
    for attempt in range(20):
        start, wins = threading.Barrier(8), []

        def write(number, attempt=attempt, start=start, wins=wins):
            start.wait()
            if put_if_absent(f"{place}/r{attempt}", str(number).encode() * 1000):
                wins.append(number)

        threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(wins) == 1
        assert read(f"{place}/r{attempt}") == str(wins[0]).encode() * 1000


# --- local


def _race(path, number, start, wins):
    start.wait()
    if put_if_absent(path, str(number).encode() * 100_000):
        wins.put(number)


def test_eight_racing_processes_have_one_winner(tmp_path):
    context = multiprocessing.get_context("spawn")
    start, wins = context.Barrier(8), context.SimpleQueue()
    racers = [context.Process(target=_race, args=(str(tmp_path / "part"), number, start, wins)) for number in range(8)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0] * 8
    winner = wins.get()
    assert wins.empty()
    assert (tmp_path / "part").read_bytes() == str(winner).encode() * 100_000
    assert files_in(tmp_path) == ["part"]


def test_files_have_the_permissions_that_others_expect(tmp_path):
    put_if_absent(str(tmp_path / "a"), b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


@pytest.mark.parametrize(
    ("write", "call"), [(put, "fsync"), (put, "replace"), (put_if_absent, "fsync"), (put_if_absent, "link")]
)
def test_a_full_disk_leaves_nothing_and_says_what_to_do(tmp_path, monkeypatch, write, call):
    calls = []

    def full(*_):
        calls.append(call)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, call, full)
    with pytest.raises(
        StorageError,
        match=r"cannot write .*part after 6 attempts: .*No space left.*; free some space.*finished shards are kept",
    ):
        write(str(tmp_path / "part"), b"x" * 1000)
    assert len(calls) == retries.ATTEMPTS
    assert files_in(tmp_path) == []


def test_a_passing_failure_is_survived(tmp_path, monkeypatch):
    real, failures = os.link, [OSError(errno.EIO, "busy"), OSError(errno.ESTALE, "stale")]

    def link(*arguments):
        if failures:
            raise failures.pop()
        return real(*arguments)

    monkeypatch.setattr(os, "link", link)
    assert put_if_absent(str(tmp_path / "part"), b"x")
    assert files_in(tmp_path) == ["part"]


def test_a_file_system_without_hard_links_works(tmp_path, monkeypatch):
    def link(*_):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert put_if_absent(str(tmp_path / "part"), b"x")
    assert not put_if_absent(str(tmp_path / "part"), b"y")
    assert (tmp_path / "part").read_bytes() == b"x"
    assert files_in(tmp_path) == ["part"]


def test_losing_after_staging_leaves_no_temporary(tmp_path, monkeypatch):
    real = os.link

    def late(source, target):
        Path(target).write_bytes(b"other")
        return real(source, target)

    monkeypatch.setattr(os, "link", late)
    assert not put_if_absent(str(tmp_path / "part"), b"mine")
    assert (tmp_path / "part").read_bytes() == b"other"
    assert files_in(tmp_path) == ["part"]


def test_a_file_in_the_way_fails_at_once(tmp_path):
    (tmp_path / "out").write_bytes(b"")
    with pytest.raises(StorageError, match=r"cannot write .*: .*; a file stands where a folder should be") as caught:
        put_if_absent(str(tmp_path / "out" / "maps" / "part"), b"x")
    assert "attempts" not in str(caught.value)


def test_sweeping_removes_only_temporaries(tmp_path):
    for name in (".part-000001.parquet.abc.tmp", "part-000001.parquet", ".keep"):
        (tmp_path / name).write_bytes(b"")
    sweep_temporaries(str(tmp_path))
    assert files_in(tmp_path) == [".keep", "part-000001.parquet"]


def test_a_writer_swept_away_sees_that_it_lost(tmp_path, monkeypatch):
    real = os.link

    def swept(source, target):
        Path(target).write_bytes(b"other")
        sweep_temporaries(str(tmp_path))
        return real(source, target)

    monkeypatch.setattr(os, "link", swept)
    assert not put_if_absent(str(tmp_path / "part"), b"mine")


# --- object stores, with what their clients raise


class ClientError(Exception):
    """As botocore's."""

    def __init__(self, code):
        super().__init__(code)
        self.response = {"Error": {"Code": code}}


class Azure412(Exception):
    status_code = 412


def failing(monkeypatch, errors):
    """Lets `pipe_file` of the memory store raise `errors` one after the other, then work."""
    real, modes = MemoryFileSystem.pipe_file, []

    def pipe_file(self, path, value, mode="overwrite", **options):
        modes.append(mode)
        if errors:
            raise errors.pop(0)
        return real(self, path, value, mode=mode, **options)

    monkeypatch.setattr(MemoryFileSystem, "pipe_file", pipe_file)
    return modes


def caused_by(error, cause):
    error.__cause__ = cause
    return error


def test_one_conditional_put_is_all(memory_uri, monkeypatch):
    modes = failing(monkeypatch, [])
    assert put_if_absent(f"{memory_uri}/a", b"x")
    assert modes == ["create"]


@pytest.mark.parametrize(
    "error",
    [FileExistsError("a"), caused_by(OSError(errno.EINVAL, "no"), ClientError("PreconditionFailed")), Azure412("x")],
)
def test_precondition_failed_means_lost(memory_uri, monkeypatch, error):
    modes = failing(monkeypatch, [error])
    assert not put_if_absent(f"{memory_uri}/a", b"x")
    assert modes == ["create"]


@pytest.mark.parametrize(
    "error",
    [
        caused_by(OSError(errno.EIO, "conflict"), ClientError("ConditionalRequestConflict")),
        OSError(errno.EBUSY, "Please reduce your request rate"),
        TimeoutError("slow"),
        ConnectionResetError("gone"),
        ClientError("InternalError"),
    ],
)
def test_transient_errors_are_tried_again(memory_uri, monkeypatch, error):
    modes = failing(monkeypatch, [error, error])
    assert put_if_absent(f"{memory_uri}/a", b"x")
    assert modes == ["create"] * 3
    assert read(f"{memory_uri}/a") == b"x"


def test_lasting_errors_end_loudly(memory_uri, monkeypatch):
    failing(monkeypatch, [OSError(errno.EBUSY, "503 slow down") for _ in range(20)])
    with pytest.raises(
        StorageError, match=r"cannot write memory://.*/a after 6 attempts: .*503 slow down; check the storage"
    ):
        put_if_absent(f"{memory_uri}/a", b"x")


def test_missing_permission_is_not_tried_again(memory_uri, monkeypatch):
    modes = failing(monkeypatch, [PermissionError("AccessDenied")])
    with pytest.raises(StorageError, match="AccessDenied; check the permissions or credentials"):
        put_if_absent(f"{memory_uri}/a", b"x")
    assert modes == ["create"]


@pytest.mark.parametrize(
    "refusal",
    [
        lambda: TypeError("pipe_file() got an unexpected keyword argument 'mode'"),
        lambda: NotImplementedError("create"),
        lambda: caused_by(OSError(errno.ENOSYS, "no"), ClientError("NotImplemented")),
    ],
)
def test_stores_without_conditional_put_look_first(memory_uri, monkeypatch, refusal):
    modes = failing(monkeypatch, [refusal()])
    assert put_if_absent(f"{memory_uri}/a", b"x")
    assert modes == ["create", "overwrite"]
    failing(monkeypatch, [refusal()])
    assert not put_if_absent(f"{memory_uri}/a", b"y")
    assert read(f"{memory_uri}/a") == b"x"


# --- places


@pytest.mark.parametrize(
    ("uri", "text"),
    [
        ("", "an empty path"),
        ("s4://bucket/a", "Protocol not known: s4.*s3://"),
        ("memmory://a", "did you mean 'memory'"),
    ],
)
def test_unknown_places_say_what_is_known(uri, text):
    with pytest.raises(UsageError, match=text):
        put(uri, b"")


def test_temporaries_are_dot_files(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(os, "fsync", lambda _: seen.extend(files_in(tmp_path)))
    commit.put(str(tmp_path / "part"), b"x")
    assert seen[0].startswith(".part.")
    assert seen[0].endswith(".tmp")
