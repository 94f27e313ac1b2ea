"""A local run leaves no token, and none that others can read; a cluster that wants one is answered in one line."""

from __future__ import annotations

import os
import stat
import sys

import pytest
from heatlas.errors import RunError, UsageError
from heatlas.workers.ray import actors
from heatlas.workers.ray.actors import ray_session, refuse_spaces
from heatlas.workers.ray.auth_token import (
    MODE,
    TOKEN,
    TOKEN_PATH,
    forget_cached_token,
    may_show_token,
    refused_token,
    token_in_place,
)

CLUSTER = "10.0.0.1:6379"


@pytest.fixture
def home(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        for name in (MODE, TOKEN, TOKEN_PATH):
            patch.delenv(name, raising=False)
        patch.setenv("HOME", str(tmp_path))
        yield tmp_path
    forget_cached_token()  # or the next Ray of this process would look for this one


def stored(home, mode=0o644):
    (home / ".ray").mkdir()
    file = home / ".ray" / "auth_token"
    file.write_text("0" * 64)
    file.chmod(mode)
    return file


def refused_by_ray() -> ConnectionError:
    """What Ray 2.60 raises at a cluster whose token this process does not have."""
    inner = RuntimeError("Failed to connect to GCS. Last connection error: ray.exceptions.AuthenticationError: RPC error: "
                         "InvalidAuthToken: Authentication token is missing or incorrect.\nmany\nlines")  # fmt: skip
    error = ConnectionError("Failed to connect to Ray cluster at 10.0.0.1:6379")
    error.__cause__ = inner
    return error


def test_a_private_instance_gets_a_token_that_stands_nowhere(home):
    with token_in_place("local", show=False):
        assert len(os.environ[TOKEN]) == 64
        assert not (home / ".ray").exists()
    assert TOKEN not in os.environ
    assert MODE not in os.environ


def test_a_token_that_is_there_is_used_and_made_private(home):
    file = stored(home)
    with token_in_place("local", show=False):
        assert TOKEN not in os.environ
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_who_may_show_a_token(home, monkeypatch):
    assert not may_show_token(CLUSTER)
    stored(home)
    assert may_show_token(CLUSTER)
    assert not may_show_token("local")
    with token_in_place(CLUSTER, show=False):
        assert MODE not in os.environ
    with token_in_place(CLUSTER, show=True):
        assert os.environ[MODE] == "token"
    assert MODE not in os.environ
    monkeypatch.setenv(MODE, "disabled")
    assert not may_show_token(CLUSTER)


def test_a_refused_token_is_named_in_one_line(home, monkeypatch):
    text = refused_token(refused_by_ray())
    assert text is not None
    assert "\n" not in text
    assert "this process has none; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in text
    monkeypatch.setenv(TOKEN, "f" * 64)
    assert "RAY_AUTH_TOKEN is not its own" in str(refused_token(refused_by_ray()))
    assert refused_token(ConnectionError("connection refused")) is None


class RayOfACluster:
    """Stands for Ray: a cluster with or without a token, and what it prints from C++ when it refuses."""

    __path__ = ("/usr/lib/ray",)

    def __init__(self, *, wants_token: bool):
        self.wants_token, self.modes = wants_token, []

    def is_initialized(self) -> bool:
        return False

    def shutdown(self) -> None:
        self.modes.append("shut down")

    def init(self, **_) -> None:
        self.modes.append(os.environ.get(MODE))
        if self.wants_token and os.environ.get(MODE) != "token":
            os.write(2, b"gcs_client.cc:210: Failed to get cluster ID from GCS server: Unauthenticated\n" * 20)
            raise refused_by_ray()


@pytest.fixture
def cluster(monkeypatch, home):
    def make(*, wants_token: bool) -> RayOfACluster:
        ray = RayOfACluster(wants_token=wants_token)
        monkeypatch.setitem(sys.modules, "ray", ray)
        monkeypatch.setattr(actors, "refuse_silence", lambda _: None)
        return ray

    return make


def test_the_token_at_hand_is_tried_where_a_cluster_wants_one(cluster, home, capfd):
    stored(home)
    ray = cluster(wants_token=True)
    with ray_session(CLUSTER):
        assert ray.modes == [None, "token"]
    assert ray.modes[-1] == "shut down"
    assert capfd.readouterr().err == ""


def test_a_cluster_without_a_token_is_shown_none(cluster, home):
    stored(home)
    ray = cluster(wants_token=False)
    with ray_session(CLUSTER):
        assert ray.modes == [None]


def test_a_cluster_whose_token_nobody_has_is_refused_in_one_line(cluster, home, monkeypatch, tmp_path, capfd):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    cluster(wants_token=True)
    with pytest.raises(RunError) as caught, ray_session(CLUSTER):
        pass
    text = str(caught.value)
    assert text.startswith(
        "cannot connect to Ray at '10.0.0.1:6379': the cluster wants its token, and this process has none; set"
    )
    assert "\n" not in text
    [log] = tmp_path.glob("heatlas-ray-*.log")
    assert str(log) in text
    assert log.read_text().count("Unauthenticated") == 20
    assert capfd.readouterr().err == ""


def test_an_interpreter_in_a_path_with_a_space_is_named():
    refuse_spaces("/usr/bin/python3", "/usr/lib/ray")
    with pytest.raises(UsageError, match=r"Ray cannot start workers with '/my env/bin/python': .* --workers 0"):
        refuse_spaces("/my env/bin/python")
    with pytest.raises(UsageError, match=r"from '/my libs/ray', as '/usr/bin/python3' finds it: the path has a space"):
        refuse_spaces("/usr/bin/python3", "/my libs/ray")


def test_it_is_refused_before_ray_starts(monkeypatch, cluster):
    ray = cluster(wants_token=False)
    monkeypatch.setattr("sys.executable", "/my env/bin/python")
    with pytest.raises(UsageError, match="'/my env/bin/python'"), ray_session("local"):
        pass
    assert ray.modes == []
