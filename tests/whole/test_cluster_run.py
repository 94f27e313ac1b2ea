"""Whole runs on a cluster that runs already, and on one whose workers cannot start, through the command."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.committed_shards import done_shards
from heatlas.pipeline.store.content_digest import logical_digest

from ..support.tiny_run import command, draw_all, environment, importable_factory, program

HERE_ONLY = """
import os
import tiny_net


def model():
    if os.getpid() != os.getppid() and str(os.getppid()) != os.environ["TESTER"]:
        raise OSError("weights.bin is not on this machine")
    return tiny_net.model()
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("cluster")
    draw_all(folder / "images", 12)
    (folder / "here_only.py").write_text(HERE_ONLY)
    with importable_factory(folder):
        yield folder


@pytest.fixture(scope="module")
def calm(folder: pathlib.Path) -> str:
    """The digest of the same run in this process."""
    assert main(command(folder / "images", folder / "calm")) == 0
    return logical_digest(str(folder / "calm"))


@pytest.fixture(scope="module")
def cluster():
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    yield cluster
    cluster.shutdown()


@pytest.fixture
def second_node(cluster):
    node = cluster.add_node(num_cpus=2)
    yield
    cluster.remove_node(node)


def explain(folder: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own."""
    return subprocess.run(
        program(*arguments), cwd=folder, env=environment(folder, TESTER=str(os.getpid())), capture_output=True, text=True,
        timeout=280,
    )  # fmt: skip


def test_a_running_cluster_is_used_and_left_running(cluster, folder: pathlib.Path, calm: str, tmp_path: pathlib.Path):
    done = explain(
        folder, *command(folder / "images", tmp_path / "out", "--workers", "2", "--address", cluster.address)
    )
    assert done.returncode == 0, done.stderr
    assert logical_digest(str(tmp_path / "out")) == calm
    assert cluster.remaining_processes_alive(), "the cluster must outlive the run"


def test_two_nodes_refuse_local_paths(cluster, second_node, folder: pathlib.Path, tmp_path: pathlib.Path):
    refused = explain(
        folder, *command(folder / "images", tmp_path / "out", "--workers", "2", "--address", cluster.address)
    )
    assert refused.returncode == 2
    assert f"the cluster has 2 nodes but '{folder / 'images'}', '{tmp_path / 'out'}' is local to one" in refused.stderr
    assert "--shared-fs" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not done_shards(str(tmp_path / "out"))


@pytest.mark.soak
def test_two_nodes_take_paths_that_they_share(
    cluster, second_node, folder: pathlib.Path, calm: str, tmp_path: pathlib.Path
):
    argv = command(folder / "images", tmp_path / "out", "--workers", "2", "--address", cluster.address)
    shared = explain(folder, *argv, "--shared-fs")
    assert shared.returncode == 0, shared.stderr
    assert logical_digest(str(tmp_path / "out")) == calm


def test_no_cluster_there(folder: pathlib.Path, tmp_path: pathlib.Path):
    failed = explain(
        folder, *command(folder / "images", tmp_path / "out", "--workers", "1", "--address", "127.0.0.1:1")
    )
    assert failed.returncode == 1
    assert "cannot connect to Ray at '127.0.0.1:1'" in failed.stderr
    assert "Traceback" not in failed.stderr


@pytest.mark.soak
def test_workers_that_cannot_start_end_the_run_with_the_cause(folder: pathlib.Path, tmp_path: pathlib.Path):
    """The driver can build the model, the workers cannot: a weights file that lies on one machine only."""
    argv = command(folder / "images", tmp_path / "out", "--workers", "1")
    argv[argv.index("tiny_net:model")] = "here_only:model"
    failed = explain(folder, *argv)
    assert failed.returncode == 1, failed.stderr
    assert (
        "heatlas: error: 3 workers in a row could not start: here_only:model() failed: OSError: weights.bin"
        in failed.stderr
    )
    assert "Traceback" not in failed.stderr
    assert not done_shards(str(tmp_path / "out"))


def test_a_temporary_folder_too_long_for_sockets(
    folder: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    failed = explain(folder, *command(folder / "images", tmp_path / "out", "--workers", "1"))
    assert failed.returncode == 2
    assert "set RAY_TMPDIR to a short one, such as RAY_TMPDIR=/tmp" in failed.stderr
    assert "Traceback" not in failed.stderr
