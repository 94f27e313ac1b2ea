"""`heatlas fix`: repair a model by a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from ..text import harmless
from .arguments import Store


def fix_command(
    store: Store,
    /,
    *,
    recipe: Annotated[
        Literal["dfr", "pclarc", "spufix", "patchmix", "rrr", "relabel", "drop", "none"],
        Parameter(help="What is done about the decisions; docs/loop.md says what each is. none: trained anew, the control."),
    ],
    out: Annotated[str | None, Parameter(help="Folder to write; default: STORE/fixes/RECIPE.", metavar="PATH|URI")] = None,
    models: Annotated[
        list[str] | None, Parameter(name="--model", help="Models to start from, one per seed in turns; default: the store's.", metavar="MODEL")
    ] = None,
    test: Annotated[str | None, Parameter(help="Store whose locked test split is kept out; default: STORE.", metavar="STORE")] = None,
    seeds: Annotated[int, Parameter(help="Seeds; a verdict needs 3.")] = 3,
    seed: Annotated[int, Parameter(help="First seed.")] = 0,
    trainer: Annotated[
        str | None,
        Parameter(help="Your training function fit(manifest, init_weights, out, seed); runs its code.", metavar="MODULE:FUNCTION"),
    ] = None,
    from_scratch: Annotated[bool, Parameter(help="Train from random weights.")] = False,
    epochs: Annotated[int, Parameter(help="Epochs of the reference trainer, at most.")] = 8,
    batch_size: Annotated[int, Parameter(help="Images per step.")] = 64,
    learning_rate: Annotated[float, Parameter(help="Of AdamW, at its peak.")] = 1e-3,
    weight_decay: Annotated[float, Parameter(help="Of AdamW.")] = 0.05,
    smoothing: Annotated[float, Parameter(help="Label smoothing.")] = 0.05,
    holdout: Annotated[float, Parameter(help="Share of training images by whose loss the epoch is chosen.")] = 0.1,
    patience: Annotated[int, Parameter(help="Epochs without a better one before training stops.")] = 3,
    share: Annotated[float, Parameter(help="patchmix: share of a batch that is changed.")] = 0.5,
    penalty: Annotated[float, Parameter(help="rrr: weight of the gradient penalty.")] = 10.0,
    directions: Annotated[int, Parameter(help="pclarc: directions taken out per mark.")] = 1,
    overwrite: Annotated[bool, Parameter(help="Replace a repair that is there.")] = False,
) -> int:  # fmt: skip
    """Repair the store's model with its decisions, several seeds; heatlas verdict says whether it is better.

    Example: `heatlas fix maps/ --recipe dfr`
    """
    from ..fix.recipes import FixSettings
    from ..fix.repair import repair_store

    settings = FixSettings(
        recipe, seeds, seed, from_scratch, epochs, batch_size, learning_rate, weight_decay, smoothing, holdout, patience, share, penalty,
        directions,
    )  # fmt: skip
    done = repair_store(store, settings, models=models or (), test=test, out=out, trainer=trainer, overwrite=overwrite)
    print(harmless(done.summary()))
    return 0
