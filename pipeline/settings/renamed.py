"""Settings that older releases named otherwise: stored runs keep the old names, users are told the new ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .imported_runs import preparable

RENAMED = {"score": "confidence", "floors": "chance_maps"}
"""New names by old ones."""
SWITCHES = {"fold_bn": "--forward fold_bn", "compile": "--forward compile"}
"""Switches of older releases, and what says the same now."""


def forward_of(facts: Mapping[str, Any]) -> str:
    """How masks were scored, from the fingerprint or the settings of a run: older ones say it by two switches."""
    older = "compile" if facts.get("compile") else "fold_bn" if facts.get("fold_bn") else "eager"
    return str(facts.get("forward") or older)


def current_facts(fingerprint: Mapping[str, Any]) -> dict[str, Any]:
    """What identifies a stored run, as a run of today with the same settings says it."""
    forward = forward_of(fingerprint)
    facts = {name: value for name, value in fingerprint.items() if name not in SWITCHES}
    return facts if forward == "eager" or "forward" in facts else {**facts, "forward": forward}


def current_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a stored run under the names that they have today, as `load_settings` takes them."""
    current = {RENAMED.get(name, name): value for name, value in preparable(stored).items()}
    switches = {name: current.pop(name) for name in SWITCHES if name in current}
    return {**current, "forward": forward_of(switches)} if switches and "forward" not in current else current
