"""The facade of a store: its rows and maps, and every command that works on it, as methods of one object."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, NoReturn, overload

import pyarrow as pa

from ..errors import UsageError
from .statistics.metric_summary import score_summary
from .statistics.paired_tests import compare_scores
from .store.reader import StoreReader, open_store
from .store.union import StoreUnion, open_union
from .text import class_name

CLASS_COLUMNS = ("label", "prediction", "target")
WITH_IMAGES = frozenset({"coco", "fiftyone", "overlays"})
"""Formats of export that need the images of a run."""

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

    from ..engine.interventions.region_fill import RegionFill
    from .cluster.cluster import Clusters
    from .decisions.current import Decisions
    from .decisions.decision import Decision
    from .decisions.manifest import ManifestOverlay
    from .export.export import Exported
    from .html.notebook import Shown
    from .intervene.intervene import Intervention
    from .report.build import Report
    from .spread.spread import SpreadDecisions
    from .store.compact import Compacted
    from .store.status_facts import RunStatus
    from .store.verify import Verification
    from .view.serve import ViewServer


@overload
def open_atlas(uri: str | os.PathLike[str]) -> Atlas: ...
@overload
def open_atlas(uri: list[Any] | tuple[Any, ...]) -> AtlasUnion: ...
def open_atlas(uri: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> Atlas:
    """Open the store that `heatlas explain --out URI` wrote, also one whose run is not finished; or several as one.

    Args:
        uri: Local path or fsspec URI of the run's directory; a list of them for runs of one model and method over different images.

    Raises:
        NoRunError: If there is no run.
        RunMismatchError: If several stores cannot be read as one, naming what differs or which ids they share.
        StorageError: If none of its shards is finished yet, or a part cannot be read or is another run's.
    """
    if isinstance(uri, str | os.PathLike):
        return open_store(uri, Atlas)
    return open_union(uri, AtlasUnion)


class Atlas(StoreReader):
    """Rows and maps of one run, as they were when it was opened, and what can be made of them.

    One row is one explained (sample, target, method). Nothing is read before it is asked for; `table`, `to_pandas` and `maps`
    bring what they return into memory, so name the columns or ids you need when the data set is large.
    """

    def to_pandas(
        self, columns: Sequence[str] | None = None, where: str | None = None, *, names: bool = True
    ) -> pd.DataFrame:
        """Rows for pandas; `label_name`, `prediction_name` and `target_name` stand beside the class indices where the model has names.

        Args:
            columns: Their names; None for all, maps and PNGs included.
            where: SQL condition over any columns, such as `"status = 'ok' AND ebpg < 0.2"`.
            names: Whether class names are added.
        """
        frame = super().to_pandas(columns, where)
        if not names or not self.class_names:
            return frame
        for column in reversed(
            [column for column in CLASS_COLUMNS if column in frame and f"{column}_name" not in frame]
        ):
            place = list(frame.columns).index(column) + 1
            known = [
                None if index != index or index is None else class_name(self.class_names, int(index))
                for index in frame[column]
            ]
            frame.insert(place, f"{column}_name", known)
        return frame

    def _repr_html_(self) -> str:
        """What a notebook shows: rows by status, the mean of every metric per image, and a link to the view, where one runs."""
        from .statistics.notebook_form import atlas_html  # here, because it loads torch
        from .view.serve import running_view  # most who read a store do not ask

        text, view = (
            atlas_html(self.uri, self.statuses(), self.summary(resamples=1).to_pylist()),
            running_view(self.uri),
        )
        return text if view is None else f"{text}<p>{view._repr_html_()}</p>"

    def summary(self, by: str | None = None, *, resamples: int = 1000, seed: int = 0) -> pa.Table:
        """Mean of every metric with its 95 % bootstrap interval, chance baselines beside them; see `score_summary`, which this is."""
        return score_summary(self, by, resamples=resamples, seed=seed)

    def status(self) -> RunStatus:
        """How far the run is now: shards, rows, errors by cause, mean metrics; as `heatlas status`."""
        from .store.status import run_status  # here, because most who read a store do not ask

        return run_status(self.uri)

    def verify(self, *, delete_damaged: bool = False) -> Verification:
        """Read every file of the store and check it against the run's plan; as `heatlas verify`."""
        from .store.verify import verify_run  # here, because most who read a store do not ask

        return verify_run(self.uri, delete_damaged=delete_damaged)

    def compare(
        self,
        other: Atlas | str,
        metrics: Sequence[str] | None = None,
        *,
        where: str = "TRUE",
        second_where: str | None = None,
        resamples: int = 1000,
        seed: int = 0,
    ) -> pa.Table:
        """Paired tests against another run over the same ids, or a chance baseline of this one; see `compare_scores`, which this is."""
        return compare_scores(
            self, other, metrics, where=where, second_where=second_where, resamples=resamples, seed=seed
        )

    def curate(
        self,
        recipes: Sequence[str] | None = None,
        *,
        limit: int = 1000,
        params: Sequence[str] = (),
        probs: str | None = None,
    ) -> pa.Table:
        """What is to be looked at, ranked and with reasons, as one table; options and errors as `run_recipes`, which this is.

        Recipes that cannot run on this store are left out; the table's metadata `heatlas_curation` says which and why.
        """
        from .curate.queue import run_recipes  # here, because scikit-learn takes a second to import

        return run_recipes(self, recipes, limit=limit, params=params, probs=probs).table()

    def cluster(
        self,
        *,
        target: Literal["predicted", "label"] = "predicted",
        min_size: int | None = None,
        side: int = 14,
        seed: int = 0,
        features: bool = False,
    ) -> Clusters:
        """Groups of alike maps in every class; options and errors as `cluster_maps`, which this is."""
        from .cluster.cluster import cluster_maps  # here, because scikit-learn takes a second to import

        return cluster_maps(self, target=target, min_size=min_size, side=side, seed=seed, features=features)

    def intervene(
        self,
        region: str,
        *,
        classes: Sequence[str] | None = None,
        images: int = 64,
        receivers: int = 8,
        controls: int = 8,
        fill: str | RegionFill = "surround",
        method: str | None = None,
        batch_size: int = 64,
        seed: int = 0,
    ) -> Intervention:
        """Whether the model needs a region, and whether the region is enough; options and errors as `intervene_store`, which this is.

        Writes the columns `necessity`, `sufficiency` and `confirmed` beside the store: open it again to read them.
        """
        from .intervene.intervene import intervene_store  # here, because it loads the run's model

        return intervene_store(
            self, region, classes=classes, images=images, receivers=receivers, controls=controls, fill=fill, method=method,
            batch_size=batch_size, seed=seed,
        )  # fmt: skip

    def spread(
        self, *, classes: Sequence[str] | None = None, method: str | None = None, neighbours: int = 15, seed: int = 0
    ) -> SpreadDecisions:
        """What people decided about some images, spread to all of their class; options and errors as `spread_decisions`, which this is.

        Writes decisions with source `spread`, and the column `shortcut_probability` beside the store: open it again to read it.
        """
        from .spread.spread import spread_decisions  # here, because it loads the run's model

        return spread_decisions(self, classes=classes, method=method, neighbours=neighbours, seed=seed)

    def decide(
        self,
        decisions: str | Sequence[str] | Sequence[Mapping[str, Any]],
        kind: str | None = None,
        *,
        label_name: str | None = None,
        object_id: str | None = None,
        mask: np.ndarray | Mapping[str, Any] | None = None,
        why: str | None = None,
        who: str | None = None,
        round: int | None = None,
        supersedes: str | None = None,
    ) -> tuple[Decision, ...]:
        """Record decisions beside the store; as `record_decisions`, which this is.

        Args:
            decisions: Ids to which the other arguments apply, or mappings with the fields of `Decision` (`id`, `kind`, ...).
            kind: `ok`, `relabel` (to `label_name`), `drop`, `shortcut`, `core`, `unsure`, or `undo`.
            label_name: The right class.
            object_id: Where the decision is about one object of the image.
            mask: Where the shortcut or the core is: a boolean array `(height, width)` in pixels of the upright source image, or
                COCO run lengths.
            why: Reason.
            who: Name; None for the user of this process.
            round: Number of the round of review.
            supersedes: Id of the decision that is answered or undone.
        """
        from .decisions.record import (  # here, because most who read a store do not decide
            decision_mappings,
            record_decisions,
        )

        values = {
            "kind": kind,
            "label_name": label_name,
            "object_id": object_id,
            "mask": mask,
            "supersedes": supersedes,
        }
        return record_decisions(self, decision_mappings(decisions, values), who=who, why=why, round=round)

    def decisions(self) -> Decisions:
        """The decisions that hold now, conflicts beside them; `.table()` gives them as an Arrow table."""
        from .decisions.record import current_decisions

        return current_decisions(self.uri)

    def manifest(self, to: str | os.PathLike[str]) -> ManifestOverlay:
        """The run's data set with the decisions applied, as a manifest; errors as `write_manifest`, which this is."""
        from .decisions.manifest import write_manifest

        return write_manifest(self, os.fspath(to))

    def show(self, identity: str) -> Shown:
        """One image beside its maps, for notebooks, which draw it; `show_row` says when it fails, which this is."""
        from .html.notebook import show_row  # here, because it draws with what opens stores

        return show_row(self, identity)

    def view(
        self,
        *,
        port: int = 0,
        method: str | None = None,
        compare: str | os.PathLike[str] | StoreReader | None = None,
        who: str | None = None,
        trust_code: bool = False,
    ) -> ViewServer:
        """Serve the store to a browser on this machine; shows as a link in a notebook. Options and errors as `start_view`.

        Needs the extra `view`. The server runs until `.stop()` or the end of the process.
        """
        from .view.serve import start_view  # here, because it loads every row without its map

        return start_view(self, port=port, method=method, compare=compare, who=who, trust_code=trust_code)

    def report(
        self,
        to: str | os.PathLike[str] | None = None,
        *,
        gallery: int = 8,
        method: str | None = None,
        blocks: bool | None = None,
        images: bool = True,
    ) -> Report:
        """The run as one HTML page, by default `report.html` in the store; options and errors as `write_report`, which this is."""
        from .report.build import write_report  # here, because it opens stores itself

        return write_report(self, to, gallery=gallery, method=method, blocks=blocks, images=images)

    def export(
        self,
        to: str,
        place: str | os.PathLike[str],
        *,
        where: str | None = None,
        ids: str | None = None,
        columns: Sequence[str] | None = None,
        overwrite: bool = False,
        trust_code: bool = False,
    ) -> Exported:
        """The rows, or some of them, in the format of another program; options and errors as `export_store`, which this is."""
        from .export.export import export_store  # here, because it opens stores itself

        return export_store(
            self, to, place, where=where, ids=ids, columns=columns, overwrite=overwrite, trust_code=trust_code
        )

    def compact(self, *, size_mb: int = 128) -> Compacted:
        """Many small files of the store become few large ones; options and errors as `compact_store`, which this is."""
        from .store.compact import compact_store  # here, because most who read a store do not change it

        return compact_store(self.uri, size_mb=size_mb)


class AtlasUnion(StoreUnion, Atlas):
    """Rows and maps of several runs of one model and method over different images, and what can be made of them together.

    What belongs to one run (its status, its decisions, its pages with images) is asked of that run: `members` opens as `Atlas` objects
    by their `uri`.
    """

    def status(self) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("status")

    def verify(self, *, delete_damaged: bool = False) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("verify")

    def decide(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("decide")

    def decisions(self) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("decisions")

    def manifest(self, to: str | os.PathLike[str]) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("manifest")

    def show(self, identity: str) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("show")

    def view(self, **kwargs: Any) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("view")

    def report(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("report")

    def compact(self, *, size_mb: int = 128) -> NoReturn:
        """Refused: see the class."""
        self._one_store_only("compact")

    def export(self, to: str, place: str | os.PathLike[str], **options: Any) -> Exported:
        """As of one store, in formats that need no images: `csv`, `hf`, `lance` and `cleanlab`."""
        if to in WITH_IMAGES:
            self._one_store_only(f"export to {to}")
        return super().export(to, place, **options)

    def _one_store_only(self, what: str) -> NoReturn:
        places = ", ".join(member.uri for member in self.members)
        raise UsageError(f"{what} belongs to one store; open {places} one by one for it")
