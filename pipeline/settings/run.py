"""Every setting of a run: its type, range, default and help text. `load.py` reads their values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from ...engine.scoring.budget import LEAST_FORWARDS
from .methods import METHOD_GROUPS, MethodChoice
from .types import (
    Mean,
    Names,
    NaturalInt,
    PositiveFloat,
    PositiveInt,
    SettingsGroup,
    Size,
    Std,
    classes_as_text,
    is_group,
    number_or_share,
    whole_number,
)


class PreprocessSettings(SettingsGroup):
    """Preprocessing of images, where the weights do not declare it or declare another one."""

    size: Size | None = Field(None, description="Height and width of the network's input; one number for a square.")
    resize: Literal["shorter_side_crop", "squash", "pad"] | None = Field(
        None, description="Resize the shorter side and crop the centre, squash to the size, or pad to it."
    )
    resize_to: PositiveInt | None = Field(
        None, description="Length of the shorter side before the centre crop, in pixels."
    )
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] | None = Field(
        None, description="Resampling filter."
    )
    mean: Mean | None = Field(None, description="Per-channel mean subtracted, of values in [0, 1]; one for grey input.")
    std: Std | None = Field(None, description="Per-channel standard deviation divided by.")
    channels: Annotated[Literal[1, 3], BeforeValidator(whole_number)] | None = Field(
        None, description="Channels of the network's input: 3 is RGB, 1 is grey; a mean of one number means 1."
    )


class ColumnSettings(SettingsGroup):
    """Column names of a manifest or table."""

    id: str = Field("id", description="Column with the sample's unique id.")
    uri: str = Field("uri", description="Column with the image's path or URI.")
    label: str = Field("label", description="Column with the class index or name.")
    boxes: str = Field("boxes", description="Column with ground-truth boxes, lists of x0 y0 x1 y1 in pixels.")
    mask: str = Field("mask", description="Column with the URI of the ground-truth mask, a PNG, or with its bytes.")
    image: str | None = Field(
        None,
        description="Column with the image's bytes (Parquet, Hugging Face), or its suffix in a tar; detected by default.",
    )
    extra: Names = Field(
        ("all",),
        description="Columns of the data set to copy into the store: all, none, names, or NAME=NEW to rename one.",
    )


class StoreSettings(SettingsGroup):
    """What the store keeps of each map."""

    map: bool = Field(True, description="Store the map as numbers (float16).")
    map_size: PositiveInt | Literal["input"] = Field(
        56, description="Height and width of the stored numbers; `input` keeps the network-input resolution."
    )
    map_png: bool = Field(True, description="Store the map as an 8-bit PNG at network-input resolution, too.")


class Settings(MethodChoice):
    """All settings of one run: `method`, a group for each method, and these."""

    model: str = Field(
        description="`torchvision:NAME[@WEIGHTS]` (WEIGHTS: DEFAULT, an enum name, a .safetensors or .pth file), `timm:NAME[@FILE]`, `hf:FOLDER_OR_NAME`, a TorchScript .pt or exported .pt2 file, or `package.module:factory`."
    )
    data: str = Field(
        description="Image folder (class folders are labels), manifest (.csv, .jsonl, .parquet), tars, COCO JSON or another source of docs/data.md; path, URI or pattern, a prefix such as `coco:` says its kind."
    )
    out: str = Field(description="Directory or URI of the store to write; the same command again resumes there.")
    bank: str | None = Field(
        None,
        description="Feature bank (.safetensors, made by `heatlas bank`): a k-NN classifier for feature-only models; path or URI.",
    )
    data_root: str | None = Field(
        None,
        description="Folder or URI that confines an untrusted manifest: images and masks outside of it, links followed, become error rows.",
    )
    rows: Literal["image", "annotation"] = Field(
        "image", description="One row per image, or one per annotated object (COCO, VOC)."
    )
    images: str | None = Field(
        None, description="Folder of the images of COCO or VOC annotations, where it is not beside them."
    )

    target: Annotated[NaturalInt | str, BeforeValidator(classes_as_text)] = Field(
        "predicted",
        description="Classes to explain: predicted, label, both, top:K, above:P (sigmoid), column:NAME, or indices or names with commas.",
    )
    confidence: Literal["auto", "softmax", "sigmoid", "segmentation"] = Field(
        "auto",
        description="Confidence in a class: softmax, sigmoid (multi-label; auto with above:P), segmentation (auto for dense models).",
    )
    metrics: Names = Field(
        ("paper",), description="Metrics to compute: presets (`paper`, `standard`, `full`) or names; `none` for none."
    )
    chance_maps: NaturalInt = Field(
        32,
        description="Images on which a random map and a centred Gaussian are measured too, as chance baselines; 0 for none.",
    )
    sanity: NaturalInt = Field(
        0,
        description="Images explained a second time with randomised weights (sanity check: do maps depend on the model?); 0 for none.",
    )
    precision: Literal["fp32", "bf16", "fp16", "auto"] = Field(
        "fp32", description="Number format of the masked forward passes."
    )
    batch_size: PositiveInt = Field(64, description="Masked images per forward pass.")
    fold_bn: bool = Field(
        False,
        description="Score masks with batch norms folded into convolutions: faster; results differ in the last digits.",
    )
    compile: bool = Field(
        False,
        description="Score masks with torch.compile: faster after a minute of compiling; results differ in the last digits.",
    )
    budget: Annotated[
        Literal["exact", "balanced", "fast"]
        | Annotated[int, Field(ge=LEAST_FORWARDS)]
        | Annotated[float, Field(gt=0, le=1)],
        BeforeValidator(number_or_share),
    ] = Field(
        "exact",
        description="Forward passes per image: exact (all), balanced (25 %), fast (10 %), a number or a share of all; the scores of the other masks are predicted.",
    )
    seed: NaturalInt = Field(0, description="Seed of all random numbers.")
    where: str | None = Field(
        None,
        description="Explain only samples for which this SQL condition is true, over id, uri, label and further columns.",
    )
    ids: str | None = Field(
        None,
        description="Explain only the samples whose ids this file lists, one per line (or its column id: .csv, .jsonl, .parquet).",
    )
    sample: PositiveInt | None = Field(None, description="Explain this many samples, drawn at random by --seed.")
    limit: PositiveInt | None = Field(None, description="Explain only the first samples of the listing.")

    workers: Literal["auto"] | NaturalInt = Field(
        "auto",
        description="Worker processes: auto is one per GPU, else one per CPU share; 0 runs in this process without Ray.",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="Where the model runs; auto takes GPUs if there are any."
    )
    gpus_per_worker: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="Share of a GPU that each GPU worker gets."
    )
    cpus_per_worker: PositiveInt = Field(1, description="CPUs and threads of each worker.")
    address: str | None = Field(
        None, description="Ray cluster to use, auto or HOST:6379, from one of its nodes; none starts a local one."
    )
    shard_size: Literal["auto"] | PositiveInt = Field(
        "auto", description="Images per shard, the unit of work and of resuming."
    )
    image_timeout: PositiveFloat = Field(
        600.0, description="Restart a worker after this many seconds without progress."
    )
    start_timeout: PositiveFloat = Field(
        900.0, description="Restart a worker that has not built its model after this many seconds."
    )
    shard_retries: NaturalInt = Field(
        10, description="Retries of a shard after failures; quarantining an image restarts the count."
    )
    retry_errors: bool = Field(
        False, description="Recompute the error rows of finished shards whose error another attempt may not meet."
    )
    max_error_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="Stop the run when more than this share of recent images failed, in (0, 1]."
    )
    shared_fs: bool = Field(
        False, description="Declare that local paths of data and out name the same files on every node of the cluster."
    )

    preprocess: PreprocessSettings = PreprocessSettings()  # pyright: ignore[reportCallIssue]
    columns: ColumnSettings = ColumnSettings()  # pyright: ignore[reportCallIssue]
    store: StoreSettings = StoreSettings()  # pyright: ignore[reportCallIssue]


for _taken in METHOD_GROUPS.keys() & Settings.__annotations__.keys():
    del METHOD_GROUPS[_taken]  # a method of another package that is called like a setting: it has its defaults


def describe(settings: Settings) -> dict[str, Any]:
    """The resolved settings as plain JSON values, as they are stored in the run; of the methods' only the chosen one's."""
    return settings.model_dump(mode="json", exclude=METHOD_GROUPS.keys() - {settings.method})


def leaves(group: type[SettingsGroup] = Settings, prefix: str = "") -> dict[str, Any]:
    """Every single setting's dotted name and pydantic field, in the order written above, then those of the methods."""
    found: dict[str, Any] = {}
    for name, field in sorted(
        group.model_fields.items(), key=lambda one: group is Settings and one[0] in METHOD_GROUPS
    ):
        if is_group(field.annotation):
            found |= leaves(field.annotation, f"{prefix}{name}.")
        else:
            found[prefix + name] = field
    return found
