"""A local run leaves no token, and none that others can read; a cluster that wants one is answered in one line."""

from __future__ import annotations

import os
import stat

import pytest
from heatlas.errors import UsageError
from heatlas.workers.ray.actors import refuse_spaces
from heatlas.workers.ray.auth_token import MODE, TOKEN, TOKEN_PATH, prepare_token, refused_token


@pytest.fixture
def home(tmp_path, monkeypatch):
    for name in (MODE, TOKEN, TOKEN_PATH):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield tmp_path
    for name in (MODE, TOKEN):  # what was set here must not reach another test's Ray
        os.environ.pop(name, None)


def stored(home, mode=0o644):
    (home / ".ray").mkdir()
    file = home / ".ray" / "auth_token"
    file.write_text("0" * 64)
    file.chmod(mode)
    return file


def test_a_private_instance_gets_a_token_that_stands_nowhere(home):
    prepare_token("local")
    assert len(os.environ[TOKEN]) == 64
    assert not (home / ".ray").exists()
    assert MODE not in os.environ


def test_a_token_that_is_there_is_used_and_made_private(home):
    file = stored(home)
    prepare_token("local")
    assert TOKEN not in os.environ
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_cluster_is_shown_the_token_unless_the_user_says_otherwise(home, monkeypatch):
    prepare_token("10.0.0.1:6379")
    assert MODE not in os.environ
    stored(home)
    monkeypatch.setenv(MODE, "disabled")
    prepare_token("10.0.0.1:6379")
    assert os.environ[MODE] == "disabled"
    monkeypatch.delenv(MODE)
    prepare_token("10.0.0.1:6379")
    assert os.environ[MODE] == "token"


def test_a_refused_token_is_named_in_one_line(home):
    text = refused_token("RpcError: UNAUTHENTICATED: Token authentication is enabled\nmany\nlines")
    assert text is not None
    assert "\n" not in text
    assert "this process has no token; set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in text
    assert refused_token("connection refused") is None


def test_an_interpreter_in_a_path_with_a_space_is_named():
    refuse_spaces("/usr/bin/python3")
    with pytest.raises(UsageError, match=r"Ray cannot start workers with '/my env/bin/python', .* --workers 0"):
        refuse_spaces("/my env/bin/python")
