"""The settings of a run as keyword arguments that an editor completes and a type checker knows; a test holds them to `Settings`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict


class ExecutionOptions(TypedDict, total=False):
    """How a run is carried out; what `heatlas.evaluate_store` takes."""

    workers: Literal["auto"] | int
    """Worker processes; auto: one per GPU, else per CPU share; 0: this process, without Ray."""
    device: Literal["auto", "cpu", "cuda", "gpu"]
    """Where the model runs; auto: GPUs if any."""
    gpus_per_worker: float
    """Share of a GPU for each GPU worker."""
    address: str | None
    """Ray cluster, auto or HOST:6379; or a local one."""
    image_timeout: float
    """Restart a worker after this many seconds without progress."""
    start_timeout: float
    """Restart a worker that takes more seconds to start."""
    shard_retries: int
    """Retries of a shard after failures."""
    wait_for_space: bool
    """Wait, with the computed rows kept, while the store is full or down instead of ending the run."""
    retry_errors: bool
    """Recompute error rows that may succeed this time."""
    max_error_rate: float
    """Stop when more of the recent images fail."""
    any_device: bool
    """Resume a run whose precision, forward and batch were chosen for a GPU on other devices."""
    shared_fs: bool
    """Local paths name the same files on every node."""


class ImportOptions(ExecutionOptions, total=False):
    """Settings of `heatlas.import_maps` beside maps, model, data and out; groups of settings are mappings."""

    append: bool
    """Add samples that are new in the data set to a run; rows of those that are gone stay."""
    bank: str | None
    """Feature bank (heatlas bank) for a k-NN classifier."""
    data_root: str | None
    """Confine an untrusted manifest to this folder or URI."""
    rows: Literal["image", "annotation"]
    """One row per image or annotated object."""
    images: str | None
    """Image folder of COCO or VOC, if elsewhere."""
    target: str | int | Sequence[str | int]
    """predicted, label, both, top:K, above:P, column:NAME, or classes (docs/targets.md)."""
    confidence: Literal["auto", "softmax", "sigmoid", "segmentation", "dice"]
    """Confidence in a class; auto: softmax, sigmoid with above:P, segmentation (soft IoU) for dense models; dice: soft Dice."""
    metrics: str | Sequence[str] | None
    """Presets (paper, standard, full, dense), names, none."""
    chance_maps: int
    """Images on which a random and a centred Gaussian map are measured too, as chance baselines."""
    precision: Literal["fp32", "tf32", "bf16", "fp16", "auto"]
    """Number format of masked passes; auto: by a trial on a GPU, fp32 on a CPU."""
    batch_size: Literal["auto"] | int
    """Masked images per forward pass; auto: by a trial on a GPU, 64 on a CPU."""
    seed: int
    """Seed of all random numbers."""
    where: str | None
    """Only samples for which this SQL condition is true."""
    ids: str | None
    """Only samples whose ids this file lists."""
    sample: int | None
    """Only this many samples, drawn at random by --seed."""
    limit: int | None
    """Only the first samples of the listing."""
    cpus_per_worker: int
    """CPUs and threads of each worker."""
    shard_size: Literal["auto"] | int
    """Images per shard, the unit of resuming."""
    columns: Mapping[str, Any]
    """Column names of a manifest or table: `{"label": "class"}`."""
    store: Mapping[str, Any]
    """What the store keeps of each map: `{"map_size": "input"}`."""
    decode: Mapping[str, Any]
    """How image files are read."""
    labels: Mapping[str, Any]
    """How labels are read."""
    allow_unlabelled: bool
    """Accept many labels that name no class."""


class RunOptions(ImportOptions, total=False):
    """Settings of `heatlas.explain_dataset` beside model, data and out; groups of settings are mappings."""

    method: str
    """Explanation method (heatlas methods)."""
    explainer: str | None
    """Trained explainer (heatlas train) of the method."""
    correct_shift: str | Sequence[float] | None
    """Move maps back by their shift: measured, or pixels down and right."""
    sanity: int
    """Images also explained with randomised weights."""
    budget: Literal["exact", "balanced", "fast"] | int | float
    """exact, balanced (25 %), fast (10 %), a number or share of forward passes; the rest is predicted."""
    forward: Literal["auto", "eager", "fold_bn", "compile", "cuda_graph"]
    """How masked passes run: as they are, batch norms folded, compiled (a minute at each start), as a CUDA graph; last digits differ.
    auto: by a trial on a GPU, eager on a CPU."""
    sise: Mapping[str, Any]
    ada_sise: Mapping[str, Any]
    grad_cam: Mapping[str, Any]
    grad_cam_pp: Mapping[str, Any]
    layer_cam: Mapping[str, Any]
    consensus: Mapping[str, Any]
    daam: Mapping[str, Any]
    fovex: Mapping[str, Any]
    integrated_gradients: Mapping[str, Any]
    occlusion: Mapping[str, Any]
    refine_cam: Mapping[str, Any]
    rise: Mapping[str, Any]
    score_cam: Mapping[str, Any]
    ucag: Mapping[str, Any]
    agf: Mapping[str, Any]
    lafam: Mapping[str, Any]
    sise_plus: Mapping[str, Any]
    lima: Mapping[str, Any]
    winsor_cam: Mapping[str, Any]
    expected_gradients: Mapping[str, Any]
    feature_cam: Mapping[str, Any]
    bee: Mapping[str, Any]
    bee_select: Mapping[str, Any]
    ttame: Mapping[str, Any]
    ptame: Mapping[str, Any]
    explainer_network: Mapping[str, Any]
