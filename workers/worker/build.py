"""Builds the engine of a worker from its spec: model, method, session, on this process's device."""

from __future__ import annotations

import warnings
from dataclasses import replace

import torch
from torch import Tensor

from ...engine.explainer import Explainer
from ...engine.methods.registry import make_explainer, settings_class
from ...engine.scoring.fast_forward import StandInWarning
from ...engine.scoring.precision import resolved_precision
from ...engine.scoring.scoring_options import Scoring
from ...engine.scoring.whole_image import ClassOverview, class_overview
from ...engine.session import ExplainSession, OverviewWanted
from ...engine.time_spent import WorkMeter
from ...errors import ModelError
from ..images.decode import Prepared, prepare
from ..models.load import LoadedModel, load_model
from ..models.model_identity import require_model
from ..protocols import SampleReader, StoredExplanations
from ..samples import Sample
from .engine_protocol import Engine
from .malloc import keep_freed_memory
from .spec import WorkerSpec


def build_engine(spec: WorkerSpec, reader: SampleReader, stored: StoredExplanations | None = None) -> Engine:
    """Load the model and put it on the device; sets this process's threads and, on a CPU, that it keeps the memory it frees.

    Args:
        spec: Model and method.
        reader: Reads weights at remote places.
        stored: Where explanations are; then they are measured, and nothing is explained but what a metric asks for.

    Raises:
        ModelError: When the model cannot be loaded, has no blocks, or is not that of the run.
        SettingsError: When a metric or precision is unknown.
    """
    torch.set_num_threads(spec.threads)
    device = device_of(spec.device)
    if device.type == "cpu":
        keep_freed_memory()
    loaded = load_model(spec.model, reader)
    require_model(spec.expected, loaded)
    engine = ModelEngine(spec, loaded, device, stored)
    refuse_other_device(spec.tried_on, engine.device)
    return engine


def refuse_other_device(tried_on: str | None, device: str) -> None:
    """Numbers in another format or batch belong to another run, and what is best on one card may not fit into another.

    Raises:
        ModelError: When the run's precision, forward and batch were chosen on another device.
    """
    if tried_on is not None and tried_on != device:
        raise ModelError(
            f"precision, forward and batch size of this run were chosen for {tried_on}, and this worker has {device}; give it such a "
            "device, or allow others with --any-device: last digits may then differ between rows"
        )


def device_of(wanted: str) -> torch.device:
    """What `auto`, `cpu` or `cuda` means here."""
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


class ModelEngine:
    """A method with its metrics over one loaded model."""

    def __init__(
        self,
        spec: WorkerSpec,
        loaded: LoadedModel,
        device: torch.device,
        stored: StoredExplanations | None = None,
    ):
        self._spec = spec
        self._stored = stored
        self._preprocess = loaded.preprocess
        self._trained = None if loaded.explainer is None else loaded.explainer.trained()
        self._torch_device = device
        self._model = loaded.module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.num_classes: int | None = loaded.num_classes
        self.device = f"cuda:{torch.cuda.get_device_name(device)}" if device.type == "cuda" else device.type
        self.precision = resolved_precision(spec.scoring.precision, device)
        self._batch_size = spec.scoring.batch_size
        self.meter = WorkMeter()
        self.session = self._new_session()
        self.notes = self._warm_up() if spec.scoring.forward != "eager" else ()

    @property
    def scoring(self) -> Scoring:
        """How passes run, as the run says."""
        return self._spec.scoring

    @property
    def batch_size(self) -> int:
        return min(self._batch_size, self.session.explainer.scorer.micro_batch)

    def prepare(self, sample: Sample, reader: SampleReader) -> Prepared:
        given = None if self._stored is None else self._stored.of(sample)
        prepared = prepare(sample, reader, self._preprocess)
        if self._torch_device.type == "cuda":  # pinned here, in a decoding thread, so that the copy need not wait
            prepared = replace(prepared, image=prepared.image.pin_memory())
        return prepared if given is None else replace(prepared, given=given)

    def overview(self, image: Tensor, label: int | None) -> ClassOverview:
        return class_overview(
            self._model,
            self._spec.scoring.confidence,
            self.on_device(image),
            label=label,
            top_k=self._spec.top_k,
            features=self._spec.features,
        )

    def on_device(self, image: Tensor) -> Tensor:
        """The image where the model is."""
        return image.to(self._torch_device)

    def shrink(self) -> bool:
        if self._torch_device.type == "cuda":
            torch.cuda.empty_cache()
        if self.batch_size == 1:
            return False
        self._batch_size = self.batch_size // 2
        self.session = self._new_session()
        return True

    def usable(self) -> bool:
        try:
            torch.ones(1, device=self._torch_device).add_(1).item()
        except RuntimeError:
            return False
        return True

    def _warm_up(self) -> tuple[str, ...]:
        """Compile before the first image, while the patience for starts holds; what is not possible, for the user to read."""
        empty = torch.zeros(self._preprocess.channels, *self._preprocess.size, device=self._torch_device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.session.explainer.scorer.warm_up(empty)
        return tuple(str(warning.message) for warning in caught if issubclass(warning.category, StandInWarning))

    def explainer(self, scoring: Scoring) -> Explainer:
        """The run's method over the model, its passes as asked for."""
        spec = self._spec
        settings = settings_class(spec.method)(**spec.method_settings)
        explainer = make_explainer(spec.method, self._model, settings, scoring)
        if self._trained is not None:
            explainer = replace(explainer, trained=self._trained)  # pyright: ignore[reportCallIssue]
        if explainer.declared.colours:
            colours = {"mean": self._preprocess.mean, "std": self._preprocess.std}
            explainer = replace(explainer, **colours)
        if any(spec.correct_shift):
            explainer = replace(explainer, correct_shift=spec.correct_shift)
        return explainer

    def _new_session(self) -> ExplainSession:
        spec = self._spec
        return ExplainSession(
            self.explainer(replace(spec.scoring, batch_size=self._batch_size)), spec.metrics, seed=spec.seed,
            chance_below=spec.chance_below, sanity_below=spec.sanity_below,
            overview=OverviewWanted(spec.top_k, spec.features), meter=self.meter,
        )  # fmt: skip
