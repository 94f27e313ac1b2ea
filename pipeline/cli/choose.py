"""`heatlas choose`: which method for this model and data."""

from __future__ import annotations

import json
from typing import Annotated, Any

from cyclopts import Parameter

from ...errors import UsageError
from ..settings.run import leaves
from ..text import harmless
from .arguments import Json, Resamples, names_of
from .settings_flags import given_settings

TAKEN = ("model", "data", "data_root", "rows", "allow_unlabelled", "confidence", "metrics", "chance_maps", "batch_size", "workers", "device", "gpus_per_worker",
         "cpus_per_worker", "address", "columns.id", "columns.uri", "columns.label", "columns.boxes", "columns.mask", "columns.image")  # fmt: skip
SETTINGS = tuple(name for name in leaves() if name in TAKEN or name.startswith(("preprocess.", "labels.")))
TEXTS = {
    "metrics": "Metrics to measure; default: ebpg, insertion_auc, deletion_auc.",
    "chance_maps": "Images for chance baselines; default: all of the sample.",
}


def choose_command(
    *stores: Annotated[str, Parameter(help="Stores to choose among, one per method; without: --model, --data, --methods and --out.")],
    methods: Annotated[list[str] | None, Parameter(help="Methods to try.")] = None,
    out: Annotated[str | None, Parameter(help="Where trials go: a store per method, and choice.parquet.", metavar="PATH|URI")] = None,
    count: Annotated[int, Parameter(help="Images to try methods on, stratified by label.")] = 200,
    by: Annotated[
        list[str] | None, Parameter(help="plausibility, faithfulness, stability, retention; default: the first three, as far as they are stored.")
    ] = None,
    resamples: Resamples = 1000,
    seed: Annotated[int, Parameter(help="Seed of sample and resamples, at least 0.")] = 0,
    as_json: Json = False,
    **flags: Any,
) -> int:  # fmt: skip
    """Rank methods on the same images, chance baselines subtracted, and take the cheapest that cannot be told from the best.

    Example: `heatlas choose --model torchvision:resnet50 --data photos/ --methods grad_cam layer_cam sise --out trial/`
    """
    from ..choose.choose import choose_among, choose_by_trial

    settings = given_settings(flags)
    wanted, tried = names_of(by), names_of(methods)
    if stores and (settings or tried or out):
        raise UsageError(
            "give either stores to choose among, or --model, --data, --methods and --out to try methods anew"
        )
    if stores:
        chosen = choose_among(stores, columns=wanted, resamples=resamples, seed=seed)
    elif tried is None or out is None:
        raise UsageError("name at least two stores, or --model, --data, --methods and --out")
    else:
        chosen = choose_by_trial(settings, tried, out, count=count, columns=wanted, resamples=resamples, seed=seed)
    if as_json:
        choice = chosen.choice
        print(json.dumps({"method": choice.method, "reason": choice.reason, "columns": choice.columns, "images": choice.images, "rows": choice.rows,
                          "skipped": chosen.skipped, "notes": chosen.notes}, indent=2))  # fmt: skip
        return 0
    from ..choose.text import choice_text

    print(harmless(choice_text(chosen)))
    return 0
