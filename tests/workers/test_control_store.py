"""A control store that is gone is named with the remedy, before Ray ends the process without one."""

from __future__ import annotations

import socket

import pytest
from heatlas.workers.ray.control_store import PATIENCE_SECONDS, ControlStore, ControlStoreLostError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


def place(server) -> str:
    return f"127.0.0.1:{server.getsockname()[1]}"


def test_one_of_our_own_that_is_gone_is_gone_for_good(server):
    store = ControlStore(place(server), private=True)
    assert store.answers()
    server.close()
    with pytest.raises(
        ControlStoreLostError, match=r"this machine's own gcs_server, .* is gone .*: run the same command again"
    ):
        store.answers()


def test_that_of_a_cluster_may_come_back(server):
    clock = Clock()
    store = ControlStore(place(server), private=False, clock=clock)
    server.close()
    assert not store.answers()
    clock.now = PATIENCE_SECONDS - 1
    assert not store.answers()
    with socket.create_server(("127.0.0.1", int(store.address.split(":")[1]))):
        assert store.answers()
    clock.now += PATIENCE_SECONDS
    assert not store.answers()
    clock.now += PATIENCE_SECONDS + 1
    with pytest.raises(ControlStoreLostError, match=r"the cluster's gcs_server, .* start the cluster again"):
        store.answers()
