"""docs/models.md and docs/targets.md: their commands are understood, their sidecar is read, every rule and score is there."""

from __future__ import annotations

import re
import shlex
from types import SimpleNamespace

import pytest
from heatlas.engine.scoring.confidence import CONFIDENCES
from heatlas.pipeline.cli.app import main
from heatlas.pipeline.explain import explain
from heatlas.pipeline.explain import feature_bank as bank
from heatlas.pipeline.settings.run import Settings
from heatlas.workers.models.load import is_program
from heatlas.workers.models.sidecar import read_sidecar
from heatlas.workers.targets import parse_target

from ..support.checkout import ROOT

DOCS = ROOT / "docs"
PAGES = {name: (DOCS / f"{name}.md").read_text() for name in ("models", "targets")}
COMMANDS = [
    line.strip()
    for page in PAGES.values()
    for line in page.splitlines()
    if line.startswith(("    heatlas explain", "    heatlas bank"))
]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Settings] = []

    def begin(settings: Settings, overwrite: bool = False) -> SimpleNamespace:
        begun.append(settings)
        return SimpleNamespace(summary=lambda: "")

    monkeypatch.setattr(explain, "explain_settings", begin)
    monkeypatch.setattr(bank, "bank_settings", begin)
    assert main(shlex.split(command)[1:]) == 0
    [settings] = begun
    family = settings.model.partition(":")[0]
    assert family in ("torchvision", "timm", "hf", "mypackage.nets") or is_program(settings.model)
    if settings.target != "octagon":
        parse_target(settings.target, ("tench", "bus"), 1000)


def test_there_is_a_block_for_every_family() -> None:
    models = [shlex.split(command)[shlex.split(command).index("--model") + 1] for command in COMMANDS]
    assert any(command.startswith("heatlas bank") for command in COMMANDS)
    for family in ("torchvision:", "timm:", "hf:", "mypackage.nets:", "torchvision:deeplabv3"):
        assert any(model.startswith(family) for model in models), family
    assert {"net.pt", "net.pt2"} <= set(models)


def test_the_sidecar_on_the_page_is_read() -> None:
    [example] = re.findall(r"^    (\{.preprocess.*\})$", PAGES["models"], flags=re.MULTILINE)
    preprocess, names, origin = read_sidecar("net.pt", example.encode())
    assert (preprocess.size, names, origin) == ((224, 224), ("ant", "bee"), "sidecar net.pt.json")


def test_every_rule_and_score_is_on_the_page() -> None:
    for rule in ("predicted", "label", "both", "top:K", "above:P", "column:NAME"):
        assert f"| `{rule}`" in PAGES["targets"]
    for score in CONFIDENCES:
        assert f"| `{score}` |" in PAGES["targets"]
