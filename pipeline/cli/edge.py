"""`heatlas edge`: a small int8 model for devices, and what it costs."""

from __future__ import annotations

import json
import math
import sys
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
    max_changed: Annotated[
        str | None,
        Parameter(help="Exit code 1 if the prediction changed for a larger share: 0.02 or 2%.", metavar="SHARE"),
    ] = None,
    as_json: Json = False,
) -> int:
    """Export the run's model to int8; report bytes, latency, accuracy, and how far explanations drift beside their noise.

    Example: `heatlas edge maps/ --out edge/ --max-drift 2%`
    """
    from ..edge.edge_model import export_edge
    from ..edge.text import edge_text

    limits = {
        name: None if text is None else share_of(text, name)
        for name, text in (("--max-drift", max_drift), ("--max-changed", max_changed))
    }
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
    shares = {"--max-drift": report.drift_share, "--max-changed": report.changed_share}
    # what is not known passes no gate
    beyond = [name for name, most in limits.items() if most is not None and not shares[name] <= most]
    print(json.dumps(report.facts, indent=2) if as_json else harmless(edge_text(report)))
    for name in beyond:
        what = "the share of drifted explanations" if name == "--max-drift" else "the share of changed predictions"
        said = "cannot be judged" if math.isnan(shares[name]) else f"is {100 * shares[name]:.3g} %"
        print(
            f"{what} {said}, and {name} allows {100 * (limits[name] or 0):.3g} %",
            file=sys.stderr if as_json else sys.stdout,
        )
    return 1 if beyond else 0


def share_of(text: str, option: str = "--max-drift") -> float:
    """`0.02` or `2%` as a share in [0, 1].

    Raises:
        UsageError: For anything else.
    """
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = math.nan
    if not 0 <= share <= 1:
        raise UsageError(f"{option} must be a share such as 0.02 or 2%, from 0 to 1, got {text!r}")
    return share
