"""`heatlas train`: those settings of `heatlas explain` that say which images go through which model, how to train, and a file to write."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from ...engine.training.head_settings import HeadSettings, OptimisationSettings
from ...engine.training.part_settings import PartSettings
from ...errors import UsageError
from ..settings.load import load_settings
from ..settings.run import leaves
from ..train.defaults import ALIASES, training_settings
from .explain import Config, print_result
from .settings_flags import GROUPS, given_settings

TAKEN = ("model", "data", "data_root", "rows", "images", "where", "ids", "sample", "limit", "seed", "workers", "device", "gpus_per_worker",
         "cpus_per_worker", "address", "columns.id", "columns.uri", "columns.image")  # fmt: skip
SETTINGS = tuple(name for name in leaves() if name in TAKEN or name.startswith(("preprocess.", "decode.")))
TEXTS = {
    "data": "Images to train on, from any source of `heatlas explain`; labels are not used.",
    "where": "Only samples for which this SQL condition is true.",
    "ids": "Only the samples whose ids this file lists.",
    "sample": "This many samples, drawn at random by --seed.",
    "limit": "Only the first samples of the listing.",
    "seed": "Seed of weights, of the images' order and of --sample.",
    "workers": "Training processes, each with a share of every batch; auto: one per GPU, else per CPU share; 0: this process, without Ray.",
}
TRAINING = Group("Training", sort_key=50)
PARTS = Group("Explainer network", sort_key=51)


def option(name: str, note: str = "", settings: type[OptimisationSettings] = HeadSettings) -> Parameter:
    """The flag of a training setting."""
    text = {field.name: field.metadata["help"] for field in dataclasses.fields(settings)}[name]
    default = getattr(settings(), name)
    shown = "" if default is None else f" (default {default}{note})"
    group = TRAINING if settings is HeadSettings else PARTS
    return Parameter(help=f"{text[:1].upper()}{text[1:]}{shown}.", group=group, negative="")


def train_command(
    method: Annotated[
        str, Parameter(help="What to train: ttame, ptame, or explainer (explainer:robust, explainer:paper).")
    ],
    /,
    *,
    config: Config = None,
    out: Annotated[str, Parameter(help="File to write, .safetensors; path or URI.", group=GROUPS["out"])],
    overwrite: Annotated[bool, Parameter(help="Replace the file if it exists.", group=GROUPS["out"])] = False,
    teacher: Annotated[
        str | None,
        Parameter(help="Store whose maps to imitate (a student); else the classifier teaches.", group=TRAINING),
    ] = None,
    auxiliary: Annotated[
        str | None,
        Parameter(help="Network whose features ptame reads (default torchvision:resnet18@DEFAULT).", group=TRAINING),
    ] = None,
    tune: Annotated[
        int | None,
        Parameter(
            help="Search the loss weights of ttame or ptame first, by so many trials on a tenth of the images.",
            group=TRAINING,
        ),
    ] = None,
    layers: Annotated[list[str] | None, option("layers")] = None,
    shared_row: Annotated[
        Literal["auto", "yes", "no"],
        Parameter(help="One row of weights that all classes share; auto: below 32 images per class.", group=TRAINING),
    ] = "auto",
    confidence: Annotated[Literal["softmax", "sigmoid"] | None, option("confidence")] = None,
    fill: Annotated[Literal["black", "blur", "mean"] | None, option("fill")] = None,
    cross_entropy: Annotated[float | None, option("cross_entropy")] = None,
    area: Annotated[float | None, option("area")] = None,
    variation: Annotated[float | None, option("variation")] = None,
    power: Annotated[float | None, option("power")] = None,
    border: Annotated[float | None, option("border")] = None,
    epochs: Annotated[int | None, option("epochs", "; 20 with --teacher and for explainer, 1 for ptame")] = None,
    batch_size: Annotated[int | None, option("batch_size", "; 64 for explainer")] = None,
    optimiser: Annotated[
        Literal["sgd", "adamw"] | None, option("optimiser", "; adamw with --teacher, for ptame and explainer")
    ] = None,
    learning_rate: Annotated[
        float | None, option("learning_rate", "; 0.003 with --teacher, 0.0001 for ptame, 0.0003 for explainer")
    ] = None,
    weight_decay: Annotated[
        float | None, option("weight_decay", "; 0.0001 with --teacher and for explainer, 0.00024267 for ptame")
    ] = None,
    holdout: Annotated[float | None, option("holdout")] = None,
    patience: Annotated[int | None, option("patience")] = None,
    eta: Annotated[float | None, option("eta", settings=PartSettings)] = None,
    filter_weight: Annotated[float | None, option("filter_weight", settings=PartSettings)] = None,
    filter_queue: Annotated[int | None, option("filter_queue", settings=PartSettings)] = None,
    kept_parts: Annotated[int | None, option("kept_parts", settings=PartSettings)] = None,
    augment: Annotated[
        bool | None, Parameter(help="Crop and flip images at random: parts must move (default yes).", group=PARTS)
    ] = None,
    **flags: Any,
) -> int:
    """Train an explainer, which gives the map of any class in one forward pass.

    The same command again continues from the last checkpoint, FILE.checkpoint.

    Example: `heatlas train ttame --model torchvision:resnet50 --data photos/ --out explainer.safetensors`
    """
    given = {
        "layers": tuple(name for text in layers for name in text.split(",")) if layers else None, "fill": fill, "cross_entropy": cross_entropy,
        "area": area, "variation": variation, "power": power, "border": border, "epochs": epochs, "batch_size": batch_size,
        "optimiser": optimiser, "learning_rate": learning_rate, "weight_decay": weight_decay, "holdout": holdout, "patience": patience,
        "shared_row": {"auto": None, "yes": True, "no": False}[shared_row], "eta": eta, "filter_weight": filter_weight, "filter_queue": filter_queue, "confidence": confidence,
        "kept_parts": kept_parts, "augment": augment,
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    method, preset = ALIASES.get(method, (method, None))
    training = training_settings(method, chosen, preset, teacher is not None)
    settings = load_settings({**given_settings(flags), "out": out}, config)
    from ..train.train import refuse_out, train_settings
    from ..train.tune import forget_trials, tuned_settings

    if tune is not None:
        if teacher is not None or not isinstance(training, HeadSettings):
            raise UsageError(
                "--tune searches the loss weights of ttame and ptame, which learn from the classifier; leave it out"
            )
        refuse_out(settings.out, overwrite)
        tuned = tuned_settings(method, settings, training, tune, auxiliary=auxiliary)
        print(tuned.summary())
        training = tuned.settings
    result = train_settings(method, settings, training, teacher=teacher, auxiliary=auxiliary, overwrite=overwrite)
    if tune is not None:
        forget_trials(settings.out)
    print_result(result)
    return 0
