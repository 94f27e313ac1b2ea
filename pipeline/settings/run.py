"""Every setting of a run: its type, range, default and help text. `load.py` reads their values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ...engine.scoring.budget import LEAST_FORWARDS
from .methods import METHOD_GROUPS, MethodChoice
from .types import (
    Mean,
    NaturalInt,
    PositiveFloat,
    PositiveInt,
    SettingsGroup,
    Size,
    Std,
    classes_as_text,
    gpu_as_cuda,
    is_group,
    number_or_share,
    numbers_as_text,
    whole_number,
)

SHIFT = r"^(measured|[-+]?[0-9]+(\.[0-9]*)?,[-+]?[0-9]+(\.[0-9]*)?)$"
RANGE = r"^(dtype|minmax|percentile|[-+0-9.eE]+,[-+0-9.eE]+)$"


class PreprocessSettings(SettingsGroup):
    """Preprocessing of images, where the weights do not declare it or declare another one."""

    size: Size | None = Field(None, description="Height and width of the network's input.")
    resize: Literal["shorter_side_crop", "squash", "pad"] | None = Field(
        None, description="shorter_side_crop, squash or pad."
    )
    resize_to: PositiveInt | None = Field(None, description="Shorter side before the centre crop, in pixels.")
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        None, description="nearest, bilinear, bicubic or lanczos."
    )
    mean: Mean | None = Field(None, description="Mean per channel, of values in [0, 1].")
    std: Std | None = Field(None, description="Standard deviation per channel.")
    channels: PositiveInt | None = Field(None, description="Channels: 3 RGB, 1 grey, else bands.")
    channel_order: Literal["rgb", "bgr"] | None = Field(None, description="rgb, or bgr as OpenCV and Caffe have it.")


class ColumnSettings(SettingsGroup):
    """Column names of a manifest or table."""

    id: str = Field("id", description="Column of the sample's unique id.")
    uri: str = Field("uri", description="Column of the image's path or URI.")
    label: str = Field("label", description="Column of the class index or name.")
    boxes: str = Field("boxes", description="Column of boxes: x0 y0 x1 y1 in pixels.")
    mask: str = Field("mask", description="Column of the mask: PNG, as URI or bytes.")
    image: str | None = Field(
        None,
        description="Column of the image's bytes, or its suffix in a tar.",
    )
    extra: tuple[str, ...] = Field(
        ("all",),
        description="Columns to copy: names, NAME=NEW, none.",
    )


class LabelSettings(SettingsGroup):
    """Which label is which class of the model, where names do not tell."""

    order: Literal["imagefolder", "natural", "numeric", "model"] | Annotated[str, Field(pattern="^file:.+")] | None = (
        Field(
            None,
            description="imagefolder, natural, numeric, model, file:PATH.",
        )
    )
    base: Annotated[Literal[0, 1], BeforeValidator(whole_number)] | None = Field(
        None, description="First class where labels are numbers."
    )
    folder: Literal["first", "last"] | None = Field(None, description="Which folder on the way is the class.")
    boxes: Literal["pixels", "scaled", "fractions"] | None = Field(
        None, description="Boxes: pixels, scaled, fractions."
    )


class DecodeSettings(SettingsGroup):
    """How image files are read."""

    range: Annotated[str, Field(pattern=RANGE, examples=["dtype", "minmax", "percentile", "LOW,HIGH"])] | None = Field(
        None, description="Black and white: dtype, minmax, percentile, LOW,HIGH."
    )
    bands: tuple[PositiveInt, ...] | None = Field(None, description="Bands of the file, from 1.")


class StoreSettings(SettingsGroup):
    """What the store keeps of each map."""

    map: bool = Field(True, description="Store the map as numbers (float16).")
    map_size: PositiveInt | Literal["input"] = Field(56, description="Height and width; input: the network's own.")
    map_png: bool = Field(True, description="Store the map as an 8-bit PNG, too.")
    features: bool = Field(True, description="Store penultimate features of images.")
    top_k: PositiveInt = Field(5, description="Classes stored with their confidence.")


class Settings(MethodChoice):
    """All settings of one run: `method`, a group for each method, and these."""

    model: str = Field(description="torchvision:NAME, timm:NAME, ... (docs/models.md).")
    data: str = Field(description="Image folder, manifest, tars, ... (docs/data.md).")
    out: str = Field(description="Store to write: directory or URI.")
    bank: str | None = Field(
        None,
        description="Feature bank (heatlas bank) for a k-NN classifier.",
    )
    explainer: str | None = Field(
        None,
        description="Trained explainer (heatlas train) of --method.",
    )
    data_root: str | None = Field(
        None,
        description="Confine an untrusted manifest to this folder or URI.",
    )
    rows: Literal["image", "annotation"] = Field("image", description="One row per image or annotated object.")
    images: str | None = Field(None, description="Image folder of COCO or VOC, if elsewhere.")

    allow_unlabelled: bool = Field(False, description="Accept many labels that name no class.")
    target: Annotated[NaturalInt | str, BeforeValidator(classes_as_text)] = Field(
        "predicted",
        description="label, both, top:K ... (docs/targets.md).",
    )
    confidence: Literal["auto", "softmax", "sigmoid", "segmentation", "dice"] = Field(
        "auto",
        description="softmax, sigmoid, segmentation, dice; auto.",
    )
    metrics: tuple[str, ...] = Field(("paper",), description="paper, standard, full, dense, names, none.")
    chance_maps: NaturalInt = Field(
        32,
        description="Images for chance baselines (random, Gaussian).",
    )
    sanity: NaturalInt = Field(
        0,
        description="Images explained with random weights, too.",
    )
    correct_shift: (
        Annotated[
            str, BeforeValidator(numbers_as_text), Field(pattern=SHIFT, examples=["measured", "DOWN,RIGHT in pixels"])
        ]
        | None
    ) = Field(None, description="Move maps back: measured, or DOWN,RIGHT.")
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"] = Field(
        "auto", description="Of masked passes; auto by trial."
    )
    forward: Literal["auto", "eager", "fold_bn", "compile", "cuda_graph"] = Field(
        "auto", description="eager, fold_bn, compile, cuda_graph; auto."
    )
    batch_size: Literal["auto"] | PositiveInt = Field("auto", description="Masked images per pass; auto by trial.")
    budget: Annotated[
        Literal["exact", "balanced", "fast"]
        | Annotated[int, Field(ge=LEAST_FORWARDS)]
        | Annotated[float, Field(gt=0, le=1)],
        BeforeValidator(number_or_share),
    ] = Field(
        "exact",
        description="exact, balanced, fast, a number or share.",
    )
    seed: NaturalInt = Field(0, description="Seed of all random numbers.")
    where: str | None = Field(
        None,
        description="Only samples for which this SQL condition is true.",
    )
    ids: str | None = Field(
        None,
        description="Only samples whose ids this file lists.",
    )
    sample: PositiveInt | None = Field(None, description="Only this many samples, drawn at random by --seed.")
    limit: PositiveInt | None = Field(None, description="Only the first samples of the listing.")

    workers: Literal["auto"] | NaturalInt = Field(
        "auto",
        description="Processes; auto: one per GPU or CPU; 0: no Ray.",
    )
    device: Annotated[Literal["auto", "cpu", "cuda"], BeforeValidator(gpu_as_cuda)] = Field(
        "auto", description="Where the model runs; auto: GPUs if any."
    )
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="Share of a GPU for each GPU worker.")
    cpus_per_worker: PositiveInt = Field(1, description="CPUs and threads of each worker.")
    address: str | None = Field(None, description="Ray cluster, auto or HOST:6379; or a local one.")
    shard_size: Literal["auto"] | PositiveInt = Field("auto", description="Images per shard, the unit of resuming.")
    image_timeout: PositiveFloat = Field(600.0, description="Restart a worker without progress (seconds).")
    start_timeout: PositiveFloat = Field(900.0, description="Restart a worker that starts slower (seconds).")
    shard_retries: NaturalInt = Field(10, description="Retries of a shard after failures.")
    retry_errors: bool = Field(False, description="Recompute error rows that may succeed this time.")
    wait_for_space: bool = Field(False, description="Wait while the store is full or down.")
    append: bool = Field(False, description="Add samples that are new in the data set to a run.")
    max_error_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Stop when more of the recent images fail."
    )
    any_device: bool = Field(False, description="Resume on another kind of GPU.")
    shared_fs: bool = Field(False, description="Local paths name the same files on every node.")

    preprocess: PreprocessSettings = PreprocessSettings()  # pyright: ignore[reportCallIssue]
    columns: ColumnSettings = ColumnSettings()  # pyright: ignore[reportCallIssue]
    labels: LabelSettings = LabelSettings()  # pyright: ignore[reportCallIssue]
    decode: DecodeSettings = DecodeSettings()  # pyright: ignore[reportCallIssue]
    store: StoreSettings = StoreSettings()  # pyright: ignore[reportCallIssue]


for _taken in METHOD_GROUPS.keys() & Settings.__annotations__.keys():
    del METHOD_GROUPS[_taken]  # a method of another package that is called like a setting: it has its defaults


def describe(settings: Settings) -> dict[str, Any]:
    """The resolved settings as plain JSON values, as they are stored in the run; of the methods' only the chosen one's."""
    return settings.model_dump(mode="json", exclude=METHOD_GROUPS.keys() - {settings.method})


def leaves(group: type[SettingsGroup] = Settings, prefix: str = "") -> dict[str, Any]:
    """Every single setting's dotted name and pydantic field, in the order written above, then those of the methods."""
    fields: dict[str, Any] = {}
    for name, field in sorted(
        group.model_fields.items(), key=lambda pair: group is Settings and pair[0] in METHOD_GROUPS
    ):
        if is_group(field.annotation):
            fields |= leaves(field.annotation, f"{prefix}{name}.")
        else:
            fields[prefix + name] = field
    return fields
