"""`heatlas layers`, `show`, `status`, `verify` and `demo`: arguments in, one call down, text out."""

from __future__ import annotations

import json
from typing import Annotated, Literal

from cyclopts import Parameter

from ..text import harmless

Out = Annotated[str, Parameter(help="Directory or URI of a run's store.")]


def layers_command(
    model: Annotated[
        str, Parameter(help="Model as in `heatlas explain --model`; without @WEIGHTS its weights are random.")
    ],
    /,
    *,
    size: Annotated[
        int | None, Parameter(help="Height and width of the network's input, in pixels; by default the model's own.")
    ] = None,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of a table.", negative="")] = False,
) -> int:
    """Show the block-end layers from which SISE takes its feature maps."""
    from .layer_table import block_table, layer_records

    records = layer_records(model, size)
    print(json.dumps(records, indent=2) if as_json else harmless(block_table(records)))
    return 0


def show_command(
    out: Out,
    /,
    *,
    ids: Annotated[
        list[str] | None, Parameter(name="--id", help="Ids of the samples to show.", consume_multiple=True, negative="")
    ] = None,
    limit: Annotated[int, Parameter(help="Without --id: show this many, evenly spread over the run.")] = 12,
    to: Annotated[str | None, Parameter(help="Directory for the pictures instead of OUT/_show.")] = None,
    trust_code: Annotated[
        bool,
        Parameter(
            help="For runs over a python: or torchvision: source: run that code again to get the images.", negative=""
        ),
    ] = False,
) -> int:
    """Draw maps over their images, as PNG files. Exit code 1 if there is nothing to draw."""
    from ..pictures.show import show_overlays

    any_drawn = False
    for drawn, line in show_overlays(out, ids=ids, limit=limit, to=to, trust_code=trust_code):
        print(harmless(line, lines=False), flush=True)
        any_drawn |= drawn
    return 0 if any_drawn else 1


def status_command(
    out: Out,
    /,
    *,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.", negative="")] = False,
) -> int:
    """Show how far a run is: shards, rows, errors by cause, mean metrics."""
    from ..store.status import run_status, status_text

    found = run_status(out)
    print(json.dumps(found, indent=2) if as_json else harmless(status_text(found)))
    return 0


def verify_command(
    out: Out,
    /,
    *,
    delete_damaged: Annotated[
        bool,
        Parameter(
            help="Delete the part files that are wrong, so that the run's own command recomputes them.", negative=""
        ),
    ] = False,
    as_json: Annotated[bool, Parameter(name="--json", help="Print JSON instead of text.", negative="")] = False,
) -> int:
    """Read a whole store and check it against its plan. Exit code 1 if anything is wrong."""
    from ..store.verify import verify_run, verify_text

    found = verify_run(out, delete_damaged=delete_damaged)
    print(json.dumps(found, indent=2) if as_json else harmless(verify_text(found)))
    return 0 if found["ok"] else 1


def demo_command(
    *,
    out: Annotated[str, Parameter(help="Directory for the demo's data, store and pictures.")] = "demo-out",
    workers: Annotated[
        Literal["auto"] | int,
        Parameter(help="Worker processes: auto, or a number; 0 runs without Ray.", metavar="auto|INT"),
    ] = "auto",
    images: Annotated[int, Parameter(help="How many images to explain.")] = 300,
    retrain: Annotated[
        bool, Parameter(help="Train the demo's network again and use the new weights.", negative="")
    ] = False,
) -> int:
    """Explain a generated data set with a planted shortcut, and say what the maps reveal."""
    from ..demo.demo import run_demo

    return run_demo(out, workers=workers, images=images, retrain=retrain)
