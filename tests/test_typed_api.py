"""The API's signatures as a type checker and so an editor sees them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent / "support" / "typed_example.py"


@pytest.mark.skipif(shutil.which("pyright") is None, reason="pyright is not installed")
def test_pyright_takes_every_right_line_and_no_wrong_one(tmp_path: Path):
    root = EXAMPLE.parents[2]
    (tmp_path / "heatlas").symlink_to(root)
    (tmp_path / "example.py").write_text(EXAMPLE.read_text())
    ran = subprocess.run(
        ["pyright", "--pythonpath", sys.executable, "--outputjson", "example.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    result = json.loads(ran.stdout)["generalDiagnostics"]
    complaints = {item["range"]["start"]["line"] for item in result if item["severity"] == "error"}
    lines = EXAMPLE.read_text().splitlines()
    refused = {number for number, line in enumerate(lines) if line.endswith("# refused")}
    assert complaints == refused, [item["message"] for item in result]
