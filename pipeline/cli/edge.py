"""`heatlas edge`: a small int8 model for devices, and what it costs."""

from __future__ import annotations

import json
import math
from typing import Annotated, Literal

from cyclopts import Parameter

from ...errors import UsageError
from ..text import harmless
from .arguments import Json, Store


def edge_command(
    store: Store,
    /,
    *,
    out: Annotated[str, Parameter(help="Folder for the models, edge.json and agreement.parquet.", metavar="PATH|URI")],
    calibration: Annotated[int, Parameter(help="Images on which ranges of activations are seen.")] = 128,
    count: Annotated[int, Parameter(help="Other images, on which both models are compared.")] = 200,
    masks: Annotated[int, Parameter(help="Random masks an image; three times as many forwards.")] = 256,
    threads: Annotated[int, Parameter(help="Threads of one inference whose time is measured.")] = 1,
    backend: Annotated[
        Literal["onnx", "executorch"], Parameter(help="ONNX Runtime, or ExecuTorch with XNNPACK.")
    ] = "onnx",
    prune: Annotated[float | None, Parameter(help="Share of the channels to remove before, 0 to 1.")] = None,
    trainer: Annotated[
        str | None,
        Parameter(help="package.module:callable that fine-tunes the pruned network.", metavar="MODULE:CALLABLE"),
    ] = None,
    max_drift: Annotated[
        str | None,
        Parameter(help="Exit code 1 if a larger share of the explanations drifted: 0.02 or 2%.", metavar="SHARE"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Export the run's model to int8; report bytes, latency, accuracy, and how far explanations drift beside their noise.

    Example: `heatlas edge maps/ --out edge/ --max-drift 2%`
    """
    from ..edge.edge_model import export_edge
    from ..edge.text import edge_text

    most = None if max_drift is None else share_of(max_drift)
    report = export_edge(
        store,
        out,
        calibration=calibration,
        count=count,
        masks=masks,
        threads=threads,
        backend=backend,
        prune=prune,
        trainer=trainer,
    )
    is_too_much = most is not None and report.drift_share > most
    print(json.dumps(report.facts, indent=2) if as_json else harmless(edge_text(report)))
    if is_too_much and not as_json:
        print(f"that is more than --max-drift {max_drift}")
    return 1 if is_too_much else 0


def share_of(text: str) -> float:
    """`0.02` or `2%` as a share in [0, 1].

    Raises:
        UsageError: For anything else.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UsageError(f"--max-drift must be a share such as 0.02 or 2%, from 0 to 1, got {text!r}")
    return share
