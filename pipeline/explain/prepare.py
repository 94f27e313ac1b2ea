"""What a run is, checked and planned before its workers start; nothing is written here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, cast

import pyarrow as pa
import torch
from torch import nn

from ...engine.method_fit import check_fit
from ...engine.methods.registry import find_method
from ...engine.metrics import spelt_out
from ...engine.metrics.choosing_metric import refuse_choosing_metric
from ...engine.metrics.evaluate import find_metric
from ...engine.scoring.confidence import CONFIDENCES
from ...engine.scoring.pace_trial import PaceTrial
from ...engine.scoring.scoring_options import ForwardKind, Scoring
from ...engine.scoring.whole_image import class_overview
from ...errors import UsageError
from ...workers.models.behaviour import refuse_blocked_gradients
from ...workers.models.load import LoadedModel, ModelSpec, load_model, refuse_random_weights
from ...workers.protocols import ShardSink
from ...workers.run_totals import RunTotals
from ...workers.samples import Sample, Shard
from ...workers.targets import TargetRule
from ...workers.worker.engine_protocol import Build
from ...workers.worker.spec import WorkerSpec
from ..run_samples import chosen_samples, images_sharing_batches, stored_extra
from ..settings.methods import chosen_settings, without_effect
from ..settings.run import Settings, describe
from ..shards import samples_of
from ..sources.listing.detection import item_source
from ..sources.listing.labels import ResolvedLabels, resolve_labels
from ..sources.listing.nested_folders import refuse_unclear_folders
from ..sources.reading.confinement import check_data_root
from ..sources.reading.reader import FsspecReader
from ..store.committed_shards import done_shards
from ..store.footer_reader import part_summaries
from ..store.identity import facts_for_workers
from ..store.parquet_sink import ParquetSink
from ..store.part_origin import run_identity
from ..store.run_file import claim_run, find_run, stored_fingerprint
from ..terminal_log import say
from ..text import counted
from .changed_inputs import check_inputs, refuse_changed_inputs
from .device import refuse_missing_gpu
from .dispatch import work_through
from .fingerprint import run_fingerprint, store_layout
from .image_files import file_evidence
from .label_evidence import label_rules, probe_predictions
from .pace import settle_pace
from .places import named_by_user, refuse_out_among_images, refuse_out_behind_links, refuse_private_memory
from .retry_errors import Retry, RetrySink
from .sections import PlannedSamples, planned_samples
from .shift_correction import measure_shift, pixels_of, settle_shift
from .subsample import chosen_below
from .target import resolved_confidence, target_rule


@dataclass(frozen=True)
class PreparedRun:
    """A run that is checked and planned; nothing is written yet."""

    settings: Settings
    listing: pa.Table
    shards: list[Shard]
    fingerprint: dict[str, Any]
    spec: WorkerSpec
    reader: FsspecReader
    sink: ParquetSink
    planned: PlannedSamples
    remarks: dict[str, str]
    """How labels were read and layers were found."""
    layer_count: int
    labels: ResolvedLabels
    model: LoadedModel
    """Without its module, which belongs to the workers."""
    made_by: str | None = None
    """Instead of method and layers in the headline."""
    build: Build | None = None
    """Makes a worker's engine; None for that of the method."""
    described: Mapping[str, Any] | None = None
    """What `_run.json` says to people instead of the settings."""
    trial: PaceTrial | None = None
    """What precision, forward and batch size were chosen by; None where no trial was made, now or when the run began."""

    def claimed(self) -> PreparedRun:
        """Make the directory this run's, or find that it is; from then on parts name the run as the directory does.

        Raises:
            RunMismatchError: If it belongs to another run.
        """
        out, mismatch = self.settings.out, self.planned.mismatch
        trial = None if self.trial is None else self.trial.record()
        claim = claim_run(
            out, self.fingerprint, self.described or describe(self.settings), self.remarks, mismatch, trial
        )
        for remark in claim.remarks:
            say(f"note: resumed, though another than before is{remark.removeprefix(' ')}")
        if claim.state == "resumed":
            check = check_inputs(out, claim.run, self.reader)
            refuse_changed_inputs(out, check)
            if gone := [image.id for image in check.gone if image.id not in self.planned.gone]:
                say(
                    f"note: {counted(len(gone), 'explained image')} cannot be read any more, such as {gone[0]!r}; the rows stay"
                )
        stored = claim.run["fingerprint"]
        self.planned.write(out)
        return replace(
            self,
            sink=replace(self.sink, run=run_identity(stored)),
            spec=replace(self.spec, expected=facts_for_workers(stored)),
        )

    def undone(self) -> list[Shard]:
        """Shards that are not committed.

        Raises:
            StorageError: If a file that stands for one of the others is damaged, or belongs to another run or shard.
        """
        done = done_shards(self.settings.out)
        part_summaries(self.settings.out, done)
        return [shard for shard in self.shards if shard.index not in done]

    def headline(self, todo: Sequence[Shard]) -> str:
        images = sum(map(len, todo))
        rest = f" of {len(self.listing):,}" if images != len(self.listing) else ""
        return (
            f"{counted(images, 'image')}{rest} in {counted(len(todo), 'shard')}, {self.settings.model} {self._reading}"
        )

    @property
    def _reading(self) -> str:
        if self.made_by is not None:
            return self.made_by
        method, layers = self.settings.method, self.layer_count
        by = "" if method == "sise" else f"by {method} "
        return f"{by}with {layers} block layers" if layers else by.strip()

    def work(self, todo: Sequence[Shard]) -> RunTotals:
        """Explain the shards, showing progress."""
        totals = RunTotals(images=len(self.listing), before=len(self.listing) - sum(map(len, todo)))
        rate = self.settings.max_error_rate
        return self._work(todo, lambda shard: samples_of(self.listing, shard), self.sink, totals, rate)

    def again(self, retry: Retry) -> RunTotals:
        """Explain error rows once more. Most may fail again, so no share of failures is too large."""
        sink = RetrySink(self.settings.out, self.sink.layout, self.sink.run)
        return self._work(
            retry.shards, lambda shard: retry.samples[shard.index], sink, RunTotals(images=len(retry)), 1.0
        )

    def _work(
        self,
        todo: Sequence[Shard],
        samples: Callable[[Shard], Sequence[Sample]],
        sink: ShardSink,
        totals: RunTotals,
        max_error_rate: float,
    ) -> RunTotals:
        shared = (self.spec, self.reader, sink, totals)
        return work_through(self.settings, todo, samples, *shared, max_error_rate=max_error_rate, build=self.build)


def prepare_run(settings: Settings) -> PreparedRun:
    """Check everything that can be checked before workers start: data, model, layers, metrics, target.

    Raises:
        UsageError: Naming what is wrong.
    """
    metrics = [find_metric(name).name for name in spelt_out(settings.metrics)]
    refuse_chosen_by(settings, metrics)
    refuse_out_among_images(settings)
    refuse_private_memory(settings)
    refuse_missing_gpu(settings)
    data_root = check_data_root(settings.data_root)
    listed = chosen_samples(settings, data_root)
    if listed.folders:
        refuse_out_behind_links(settings, listed.listing["uri"].to_pylist())
    model_spec = ModelSpec(
        spec=settings.model, bank=settings.bank, explainer=settings.explainer, **settings.preprocess.model_dump()
    )
    reader = FsspecReader(data_root, named_by_user(settings), item_source(settings.data))
    files = file_evidence(listed.listing, reader, settings)
    model_spec = files.applied_to(model_spec, settings)
    model = load_model(model_spec, FsspecReader())
    check_explainer(settings, model)
    refuse_random_weights(model_spec, model, FsspecReader())
    rules = label_rules(settings)
    if listed.folders:
        names = rules.names or model.class_names
        refuse_unclear_folders(listed.all_ids, names, model.num_classes, settings.labels.folder, settings.data)
    labels = resolve_labels(
        listed.listing,
        model.class_names,
        model.num_classes,
        listed.orders,
        listed.labels,
        rules=rules,
        folders=listed.folders,
        predict=lambda listing: probe_predictions(listing, model, reader),
    )
    if not settings.allow_unlabelled:
        labels.require_labels()
    rule = target_rule(settings, labels, model.num_classes)
    score = resolved_confidence(settings, rule, dense=model.dense, multi_label=model.multi_label)
    chosen = chosen_settings(settings)
    least = images_sharing_batches(find_method(settings.method), settings.budget)
    asked = settings
    pace = settle_pace(
        asked,
        find_run(settings.out),
        labels.listing,
        reader,
        lambda plain: worker_spec(
            plain, model_spec, metrics, labels.listing, rule, scoring_of(plain, score, images=len(labels.listing))
        ),
    )
    trial, least = pace.trial, max(least, pace.shard_least)
    paced = pace.settings
    settings = settle_shift(
        paced, find_run(paced.out), model.preprocess.size,
        lambda: measure_shift(
            worker_spec(
                paced.model_copy(update={"correct_shift": None}), model_spec, metrics, labels.listing, rule,
                scoring_of(paced, score, images=len(labels.listing)),
            ),
            labels.listing, reader,
        ),
    )  # fmt: skip
    planned = planned_samples(settings, labels.listing, listed, least)
    scoring = scoring_of(settings, score, images=max(map(len, planned.shards)))
    fit = check_fit(
        settings.method,
        model.module,
        chosen,
        torch.zeros(model.preprocess.channels, *model.preprocess.size),
        scoring,
        trained=None if model.explainer is None else model.explainer.trained(),
    )
    if fit.blocks and find_method(settings.method).gradients:
        layers = [layer.name for layer in fit.blocks]
        refuse_blocked_gradients(model.module, layers, model.preprocess, settings.model)
    if idle := without_effect(settings):
        say(f"note: {', '.join(idle)} {'has' if len(idle) == 1 else 'have'} no effect with method {settings.method}")
    for note in (*model.notes, *listed.notes, *files.notes, labels.how, labels.warning()):
        if note:
            say(f"note: {note}")
    layout = store_layout(
        settings,
        metrics,
        model,
        fit,
        labels.class_names,
        score,
        stored_extra(listed),
        feature_width(settings, model, score),
    )
    fingerprint = run_fingerprint(
        settings,
        metrics,
        model,
        fit,
        planned.first_listing,
        planned.first_shards,
        data_root,
        score,
        labels.class_names,
        layout,
    )
    return PreparedRun(
        settings=settings,
        listing=planned.listing,
        shards=list(planned.shards),
        fingerprint=fingerprint,
        spec=replace(
            worker_spec(settings, model_spec, metrics, planned.first_listing, rule, scoring),
            expected=facts_for_workers(fingerprint),
            tried_on=None if trial is None or settings.any_device else trial.device,
        ),
        reader=reader,
        sink=ParquetSink(settings.out, layout, run_identity(stored_fingerprint(fingerprint))),
        planned=planned,
        remarks={
            "labels": labels.how,
            "layers_found": fit.blocks.how if fit.blocks else "",
            "said": "; ".join((*model.notes, *listed.notes, *files.notes)),
        },
        layer_count=len(fit.blocks or ()),
        labels=labels,
        model=replace(model, module=nn.Identity()),
        described=describe(asked),
        trial=trial,
    )


def refuse_chosen_by(settings: Settings, metrics: Sequence[str]) -> None:
    """Refuse a metric by which the method chooses its maps.

    Raises:
        SettingsError: Naming the metric.
    """
    selected_by = find_method(settings.method).selected_by(chosen_settings(settings))
    refuse_choosing_metric(settings.method, selected_by, metrics)


def check_explainer(settings: Settings, model: LoadedModel) -> None:
    """A trained method needs an explainer of its own, and no other method takes one.

    Raises:
        UsageError: Saying which.
    """
    method, stored = find_method(settings.method), model.explainer
    if not method.trained:
        if stored is not None:
            raise UsageError(
                f"--explainer {settings.explainer} has no effect with method {method.name}; use --method {stored.method}, or leave it out"
            )
        return
    if stored is None:
        raise UsageError(
            f"method {method.name} needs a trained explainer: `heatlas train {method.name} --model {settings.model} --data ... --out "
            "explainer.safetensors`, then --explainer explainer.safetensors"
        )
    if stored.method != method.name:
        raise UsageError(
            f"the explainer {settings.explainer} was trained for method {stored.method}; use --method {stored.method}"
        )


def feature_width(settings: Settings, model: LoadedModel, confidence: str) -> int | None:
    """Numbers in the penultimate features; None where they are not wanted or the layer that gives the logits cannot be found."""
    if not settings.store.features:
        return None
    empty = torch.zeros(model.preprocess.channels, *model.preprocess.size)
    features = class_overview(model.module, CONFIDENCES[confidence], empty).features
    return None if features is None else len(features)


def scoring_of(settings: Settings, confidence: str, *, images: int) -> Scoring:
    """How passes run and what confidence means, as the settings say.

    Args:
        settings: Of the run, with its pace settled.
        confidence: Of `CONFIDENCES`.
        images: Of the run's largest shard, at least 1.
    """
    return Scoring(
        batch_size=int(settings.batch_size), images=images, precision=settings.precision, confidence=CONFIDENCES[confidence],
        forward=cast(ForwardKind, settings.forward), budget=settings.budget,
    )  # fmt: skip


def worker_spec(
    settings: Settings,
    model: ModelSpec,
    metrics: Sequence[str],
    listing: pa.Table,
    rule: TargetRule,
    scoring: Scoring,
) -> WorkerSpec:
    return WorkerSpec(
        model=model,
        target=rule,
        method=settings.method,
        method_settings=asdict(chosen_settings(settings)),
        scoring=scoring,
        correct_shift=pixels_of(settings.correct_shift),
        metrics=tuple(metrics),
        seed=settings.seed,
        chance_below=chosen_below(listing, settings.chance_maps),
        sanity_below=chosen_below(listing, settings.sanity),
        top_k=settings.store.top_k,
        features=settings.store.features,
        threads=settings.cpus_per_worker,
        device=settings.device,
    )
