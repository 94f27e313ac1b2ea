"""A whole run under a budget: resumed, recorded, and not mixed with an exact one."""

from __future__ import annotations

import pathlib

import heatlas
import pytest
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.store.content_digest import logical_digest

from ..support.tiny_run import command, draw_all, importable_factory


def test_a_run_under_a_budget_resumes_and_says_what_it_took(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture):
    draw_all(tmp_path / "images", 7)
    with importable_factory(tmp_path):
        whole, resumed = tmp_path / "whole", tmp_path / "resumed"
        assert main(command(tmp_path / "images", whole, "--budget", "fast")) == 0
        assert main(command(tmp_path / "images", resumed, "--budget", "fast")) == 0
        (resumed / "maps" / "part-000001.parquet").unlink()
        (resumed / "_SUCCESS").unlink()
        assert main(command(tmp_path / "images", resumed, "--budget", "fast")) == 0
        assert logical_digest(str(resumed)) == logical_digest(str(whole))
        assert main(command(tmp_path / "images", tmp_path / "exact")) == 0
        capsys.readouterr()
        assert main(command(tmp_path / "images", whole, "--budget", "0.5")) == 2
        assert 'budget: stored "fast", now 0.5' in capsys.readouterr().err
        frames = {name: heatlas.open(str(tmp_path / name)).to_pandas() for name in ("whole", "exact")}
    thrifty, exact = frames["whole"], frames["exact"]
    fewer = (thrifty.status == "ok") & (thrifty.n_masks > 8)
    assert fewer.any()
    assert (thrifty.n_forwards[fewer] < exact.n_forwards[fewer]).all()
    assert thrifty.surrogate_error[fewer].between(0, 1, inclusive="neither").all()
    assert exact.surrogate_error.isna().all()
