"""`heatlas demo`: a generated data set with a planted shortcut, explained."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ..text import harmless


def demo_command(
    *,
    out: Annotated[str, Parameter(help="Directory for the demo's data, store and pictures.")] = "demo-out",
    workers: Annotated[
        Literal["auto"] | int, Parameter(help="Worker processes; 0 runs in this process without Ray.")
    ] = "auto",
    images: Annotated[int, Parameter(help="Images to explain.")] = 300,
    retrain: Annotated[bool, Parameter(help="Train the demo's network again and use the new weights.")] = False,
) -> int:
    """Explain a generated data set with a planted shortcut, and say what the maps reveal.

    Example: `heatlas demo --out demo-out --workers 0 --images 64`
    """
    from ..demo.demo import run_demo

    return run_demo(out, workers=workers, images=images, retrain=retrain, tell=lambda text: print(harmless(text)))
