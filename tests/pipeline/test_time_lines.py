"""The closing summary says where the workers' time went."""

from __future__ import annotations

from heatlas.pipeline.explain.result import time_lines


def test_shares_the_largest_first_with_decoding_beside():
    stages = {
        "forwards": 70.0,
        "gradients": 20.0,
        "waiting": 5.0,
        "decoding": 40.0,
        "pictures": 8.0,
        "metrics": 0.1,
    }
    [line] = time_lines(stages, 100.0, 1234)

    assert (
        line.split("spent on")[1].strip()
        == "forwards 70%, gradients 20%, waiting 5%, other 5%; decoding 40% and pictures 8% beside it; 1,234 rows of padding"
    )


def test_the_storing_of_the_shard_before_is_beside_the_rest():
    [line] = time_lines({"forwards": 90.0, "commit": 10.0, "decoding": 5.0, "pictures": 2.0, "storing": 20.0}, 100.0, 0)
    assert line.endswith("forwards 90%, commit 10%; decoding 5%, pictures 2% and storing 20% beside it")


def test_waiting_for_images_earns_advice():
    assert not any("cpus-per-worker" in line for line in time_lines({"waiting": 2.0, "forwards": 8.0}, 10.0, 0))
    assert "--cpus-per-worker" in time_lines({"waiting": 3.0, "forwards": 7.0}, 10.0, 0)[-1]


def test_a_run_that_did_nothing_says_nothing():
    assert time_lines({}, 0.0, 0) == []
