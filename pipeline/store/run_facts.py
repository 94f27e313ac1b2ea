"""What commands read of `_run.json`, and what is wrong with a file that says it otherwise. Facts without a default must be there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

SHOWN_FAULTS = 3


class StrictFacts(BaseModel):
    """Facts of the type they are declared with; others are taken as they are."""

    model_config = ConfigDict(strict=True, extra="ignore")


class PlanFacts(StrictFacts):
    samples: int = 0
    shards: int = 0
    digest: str = ""


class PreprocessFacts(StrictFacts):
    size: tuple[int, int] = (1, 1)


class FingerprintFacts(StrictFacts):
    plan: PlanFacts = PlanFacts()
    metrics: list[str] = []
    model: dict[str, Any] = {}
    preprocess: PreprocessFacts = PreprocessFacts()
    versions: dict[str, str] = {}


class SettingsFacts(StrictFacts):
    data: str | None = None
    store: dict[str, Any] = {}


class RunFacts(StrictFacts):
    schema_version: int
    created: str
    fingerprint: FingerprintFacts
    settings: SettingsFacts
    started_in: str = ""


def run_file_faults(run: Mapping[str, Any]) -> list[str]:
    """Where the content of `_run.json` is not as heatlas writes it: `fingerprint.plan.samples: input should be a valid integer`; the first few."""
    try:
        RunFacts.model_validate_json(json.dumps(run))
    except ValidationError as error:
        faults = error.errors()[:SHOWN_FAULTS]
        return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg'].lower()}" for fault in faults]
    return []
