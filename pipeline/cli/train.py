"""`heatlas train`: those settings of `heatlas explain` that say which images go through which model, how to train, and a file to write."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from ...engine.training.head_settings import HeadSettings
from ...errors import SettingsError
from ..settings.load import load_settings
from ..settings.run import leaves
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
STUDENT = {"optimiser": "adamw", "learning_rate": 3e-3, "weight_decay": 1e-4, "epochs": 20}
"""Defaults that differ where a teacher's maps are imitated [ours]."""
TRAINING = Group("Training", sort_key=50)
_TEXT = {field.name: field.metadata["help"] for field in dataclasses.fields(HeadSettings)}


def option(name: str, note: str = "") -> Parameter:
    """The flag of a training setting."""
    default = getattr(HeadSettings(), name)
    shown = "" if default is None else f" (default {default}{note})"
    return Parameter(help=f"{_TEXT[name][:1].upper()}{_TEXT[name][1:]}{shown}.", group=TRAINING, negative="")


def train_command(
    method: Annotated[str, Parameter(help="What to train: ttame.")],
    /,
    *,
    config: Config = None,
    out: Annotated[str, Parameter(help="File to write, .safetensors; path or URI.", group=GROUPS["out"])],
    overwrite: Annotated[bool, Parameter(help="Replace the file if it exists.", group=GROUPS["out"])] = False,
    teacher: Annotated[
        str | None,
        Parameter(help="Store whose maps to imitate (a student); else the classifier teaches.", group=TRAINING),
    ] = None,
    layers: Annotated[list[str] | None, option("layers")] = None,
    shared_row: Annotated[
        Literal["auto", "yes", "no"],
        Parameter(help="One row of weights that all classes share; auto: below 32 images per class.", group=TRAINING),
    ] = "auto",
    fill: Annotated[Literal["black", "blur", "mean"] | None, option("fill")] = None,
    cross_entropy: Annotated[float | None, option("cross_entropy")] = None,
    area: Annotated[float | None, option("area")] = None,
    variation: Annotated[float | None, option("variation")] = None,
    power: Annotated[float | None, option("power")] = None,
    border: Annotated[float | None, option("border")] = None,
    epochs: Annotated[int | None, option("epochs", "; 20 with --teacher")] = None,
    batch_size: Annotated[int | None, option("batch_size")] = None,
    optimiser: Annotated[Literal["sgd", "adamw"] | None, option("optimiser", "; adamw with --teacher")] = None,
    learning_rate: Annotated[float | None, option("learning_rate", "; 0.003 with --teacher")] = None,
    weight_decay: Annotated[float | None, option("weight_decay", "; 0.0001 with --teacher")] = None,
    holdout: Annotated[float | None, option("holdout")] = None,
    patience: Annotated[int | None, option("patience")] = None,
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
        "shared_row": {"auto": None, "yes": True, "no": False}[shared_row],
    }  # fmt: skip
    chosen = {name: value for name, value in given.items() if value is not None}
    try:
        head = HeadSettings(**{**(STUDENT if teacher else {}), **chosen})
    except SettingsError as error:
        raise SettingsError(f"--{str(error).replace('_', '-', 1)}") from None
    settings = load_settings({**given_settings(flags), "out": out}, config)
    from ..train.train import train_settings

    print_result(train_settings(method, settings, head, teacher=teacher, overwrite=overwrite))
    return 0
