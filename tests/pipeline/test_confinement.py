"""`--data-root`: what an untrusted manifest can write, and that nothing of it is read outside of the root."""

from __future__ import annotations

import os
import pickle
import uuid
from pathlib import Path

import fsspec
import pytest
from heatlas.errors import SampleError, SettingsError
from heatlas.pipeline.sources.reading import local_file
from heatlas.pipeline.sources.reading.confinement import REMOTE, check_data_root
from heatlas.pipeline.sources.reading.local_file import read_regular
from heatlas.pipeline.sources.reading.reader import FsspecReader
from heatlas.statuses import READ_ERROR

SECRET = b"what nobody may see"
OUTSIDE = "refused, because it lies outside of the data root"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with `in.png` and links, beside it a secret file and a folder whose name begins with the root's."""
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "in.png").write_bytes(b"inside")
    (root / "50%2e%2e#?.png").write_bytes(b"inside")
    for folder in (tmp_path, tmp_path / "root-not"):
        folder.mkdir(exist_ok=True)
        (folder / "secret.png").write_bytes(SECRET)
    (root / "out.png").symlink_to(tmp_path / "secret.png")
    (root / "out").symlink_to(tmp_path)
    (root / "sub" / "up.png").symlink_to("../../secret.png")
    (root / "twice.png").symlink_to(root / "sub" / "up.png")
    (root / "loop").symlink_to(root / "loop")
    (root / "fine.png").symlink_to("sub/../in.png")
    return root


def refusal(reader: FsspecReader, uri: str) -> str:
    with pytest.raises(SampleError) as caught:
        reader.read(uri)
    assert caught.value.status == READ_ERROR
    assert SECRET not in str(caught.value).encode()
    return caught.value.text


@pytest.mark.parametrize(
    "uri", ["/in.png", "/fine.png", "/sub/../in.png", "/50%2e%2e#?.png", "//in.png", "/out/root/in.png"]
)
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_what_lies_inside_is_read(root: Path, uri: str, scheme: str) -> None:
    reader = pickle.loads(pickle.dumps(FsspecReader(check_data_root(str(root)))))
    assert reader.read(f"{scheme}{root}{uri}") == b"inside"


ESCAPES = [
    "{root}/../secret.png", "{root}/sub/../../secret.png", "{outside}/secret.png", "{outside}/root-not/secret.png", "{root}-not/secret.png",
    "{root}/out.png", "{root}/out/secret.png", "{root}/sub/up.png", "{root}/twice.png", "{root}/loop/../out/secret.png",
    "{root}/loop/../../secret.png", "{root}/in.png/../../secret.png", "{root}/none/../../secret.png", "{root}\\..\\secret.png",
    "/etc/passwd", "/proc/self/cwd/../etc/passwd", "/dev/zero", "//etc/passwd", "/{root}/../secret.png",
    "{root}/in.png\0", "{root}/\0/../../secret.png", "\0/etc/passwd", "", ".", "in.png", "secret.png", "~/secret.png",
    "file://{outside}/secret.png", "file://{root}/../secret.png", "file://{root}/out.png", "file://localhost{outside}/secret.png",
    "FILE://{outside}/secret.png", "File:///etc/passwd", "file:{outside}/secret.png", "file:/etc/passwd", "local://{outside}/secret.png",
    "file://~/secret.png", "{root}/%2e%2e/%2e%2e/etc/passwd/../../../../../secret.png", "file://file://{outside}/secret.png",
    "simplecache::file://{outside}/secret.png", "filecache::{outside}/secret.png", "zip://secret.png::{outside}/a.zip",
    "simplecache::{root}/in.png", "zip://x::{root}/in.png", "blockcache::memory://secret/x.png",
    "s3://bucket/x.png", "http://127.0.0.1/x.png", "https://169.254.169.254/latest", "ftp://127.0.0.1/x", "sftp://h/x", "smb://h/x",
    "memory://secret/x.png", "data:image/png;base64,AAAA", "data://x", "github://a:b@c/x", "reference://x", "dir://x::file:///etc",
    "root:{root}/in.png", "://{root}/in.png",
]  # fmt: skip


@pytest.mark.parametrize("uri", ESCAPES)
def test_what_lies_outside_is_refused_whatever_it_is_called(
    root: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    text = refusal(FsspecReader(str(root)), uri.replace("{root}", str(root)).replace("{outside}", str(root.parent)))
    unread = "no such file" if "%2e" in uri else "too many levels of symbolic links" if "loop" in uri else OUTSIDE
    assert unread in text or OUTSIDE in text


def test_whether_something_is_there_outside_is_not_told(root: Path) -> None:
    reader = FsspecReader(str(root))
    texts = [
        refusal(reader, f"{root.parent}/{name}").replace(name, "") for name in ("secret.png", "gone.png", "root-not")
    ]
    assert len(set(texts)) == 1


def test_links_are_followed_at_reading_not_before(root: Path) -> None:
    reader = FsspecReader(check_data_root(str(root)))
    uri = f"{root}/changing.png"
    (root / "changing.png").symlink_to("in.png")
    assert reader.read(uri) == b"inside"
    (root / "changing.png").unlink()
    (root / "changing.png").symlink_to("../secret.png")
    assert OUTSIDE in refusal(reader, uri)


def test_inside_it_is_told_why(root: Path) -> None:
    reader = FsspecReader(str(root))
    assert refusal(reader, f"{root}/gone.png").endswith("no such file")
    assert refusal(reader, f"{root}/loop").endswith("too many levels of symbolic links")
    assert refusal(reader, f"{root}/sub").endswith("is a directory")


def test_the_root_may_be_a_link_and_the_whole_machine(root: Path) -> None:
    (root.parent / "link").symlink_to(root)
    reader = FsspecReader(check_data_root(f"{root.parent}/link/"))
    assert reader.read(f"{root.parent}/link/in.png") == reader.read(f"{root}/in.png") == b"inside"
    assert FsspecReader(check_data_root("/")).read(f"{root.parent}/secret.png") == SECRET


def test_only_the_weights_that_the_user_named_are_exempt(root: Path) -> None:
    reader = FsspecReader(str(root), trusted=(f"file://{root.parent}/secret.png",))
    assert reader.read(f"file://{root.parent}/secret.png") == SECRET
    assert OUTSIDE in refusal(reader, f"{root.parent}/secret.png")


def test_without_a_root_everything_is_welcome(root: Path) -> None:
    fsspec.filesystem("memory").pipe("memory://welcome/x.png", b"remote")
    for uri in (f"{root}/out.png", f"{root.parent}/secret.png", f"file://{root}/../secret.png"):
        assert FsspecReader().read(uri) == SECRET
    assert (
        FsspecReader().read("memory://welcome/x.png")
        == FsspecReader().read("simplecache::memory://welcome/x.png")
        == b"remote"
    )


def test_a_remote_root() -> None:
    bucket = f"memory://{uuid.uuid4().hex}"
    fs = fsspec.filesystem("memory")
    for name in ("set/in.png", "set/a/%2e%2e.png", "secret.png", "set-not/secret.png"):
        fs.pipe(f"{bucket}/{name}", b"inside" if "in.png" in name or "%" in name else SECRET)
    reader = FsspecReader(check_data_root(f"{bucket}/set/"))
    path = bucket.removeprefix("memory://")
    for uri in (f"{bucket}/set/in.png", f"memory:///{path}/set/in.png", f"{bucket}/set/a/%2e%2e.png"):
        assert reader.read(uri) == b"inside"
    for uri in (
        f"{bucket}/secret.png", f"{bucket}/set/../secret.png", f"{bucket}/set-not/secret.png", f"{bucket}/set/./../secret.png",
        f"simplecache::{bucket}/set/in.png", f"MEMORY://{path}/set/in.png", f"s3://{path}/set/in.png", "/etc/passwd",
        "file:///etc/passwd", f"{path}/set/in.png",
    ):  # fmt: skip
        assert OUTSIDE in refusal(reader, uri)
    assert refusal(reader, f"{bucket}/set/gone.png").endswith("no such file")


@pytest.mark.parametrize(
    "data_root",
    ["nowhere", "", "file:///tmp", "http://host/x", "memory://", "simplecache::memory://x", "FILE:///tmp", __file__],
)
def test_a_root_that_cannot_confine_is_refused(data_root: str) -> None:
    with pytest.raises(SettingsError) as caught:
        check_data_root(data_root)
    assert (
        f"--data-root {data_root or repr('')} is not a folder here; give one, or a URI that begins with one of s3://"
        in str(caught.value)
    )


def test_a_root_means_the_same_everywhere(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    monkeypatch.setenv("HOME", str(root.parent))
    assert check_data_root("root/") == check_data_root("~/root") == str(root)
    assert check_data_root(None) is None
    assert "memory" in REMOTE


def test_only_regular_files_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "large.png").write_bytes(b"12345")
    for name in ("pipe.png", "zero.png"):
        assert "not a regular file" in refusal(FsspecReader(), f"{tmp_path}/{name}")
    assert read_regular(f"{tmp_path}/large.png") == b"12345"
    monkeypatch.setattr(local_file, "LARGEST", 4)
    assert "5 bytes are more than the limit of 4" in refusal(FsspecReader(), f"{tmp_path}/large.png")


def test_a_link_put_in_place_at_the_last_moment_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(SECRET)
    (tmp_path / "link.png").symlink_to("a.png")
    with pytest.raises(SampleError, match="not a regular file"):
        read_regular(f"{tmp_path}/link.png", follow=False)


def test_names_that_are_not_utf8_get_a_remedy(tmp_path: Path) -> None:
    assert refusal(FsspecReader(), f"{tmp_path}/caf\\xe9.png").endswith(
        "no such file; rename files whose names are not UTF-8"
    )
