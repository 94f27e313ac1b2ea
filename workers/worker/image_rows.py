"""An image on its way through a worker, and the rows that come of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from ... import statuses
from ...engine.scoring.whole_image import ClassOverview
from ...engine.session import Explained
from ..images.decode import Prepared
from ..object_targets import NO_MORE, image_objects
from ..samples import Row, Sample
from ..targets import TargetRule
from .engine_protocol import Engine
from .row_description import describe_image, name_target

Target = int | None


@dataclass(slots=True)
class Failure:
    """An exception of the engine, and whether the same images may be tried again with a smaller micro-batch."""

    status: str
    text: str
    again: bool = False


@dataclass(slots=True)
class InWork:
    """A decoded image on its way to its rows."""

    prepared: Prepared
    targets: tuple[Target, ...] | None = None
    """The classes to explain; None until it is settled which."""
    asked: int = 0
    """Forward passes spent on settling that."""
    overview: ClassOverview | None = None
    """What the model says of the whole image; None until it was asked, or told with its first explanation."""
    rows: dict[int, Row] = field(default_factory=dict)
    """By place among the targets."""

    @property
    def left(self) -> list[int]:
        """Places of the targets that have no row."""
        return [place for place in range(len(self.targets or ())) if place not in self.rows]


def failed_row(engine: Engine, sample: Sample, status: str, error: str, work: InWork | None) -> Row:
    """The row of an image that came to nothing, with what is known of it."""
    row = Row(sample, status, error, device=engine.device, precision=engine.precision)
    return row if work is None else describe_image(row, work.prepared, work.overview)


def explained_row(engine: Engine, sample: Sample, explained: Explained, place: int, work: InWork) -> Row:
    """The row of one target of an image, which is `place` among its targets."""
    work.overview = work.overview or explained.overview
    row = Row(
        sample=sample,
        status=explained.status,
        error=explained.error,
        prediction=explained.prediction,
        confidence=explained.confidence,
        logit=explained.logit,
        map=None if explained.map is None else explained.map.numpy(),
        metrics=dict(explained.metrics),
        mask_counts=explained.mask_counts,
        n_forwards=explained.n_forwards + (work.asked if place == 0 else 0),
        n_backwards=explained.n_backwards,
        extras={name: extra.numpy() for name, extra in explained.extras.items()},
        surrogate_error=explained.surrogate_error,
        seconds=explained.seconds,
        device=engine.device,
        precision=engine.precision,
        chance=explained.chance,
    )
    name_target(row, explained.target, work.prepared)
    return describe_image(row, work.prepared, work.overview)


def find_objects(engine: Engine, sample: Sample, rule: TargetRule, work: InWork) -> None:
    """Put the objects of the class in its place; what is left out gets a row that says so."""
    if work.overview is None or work.overview.scene is None:
        work.targets = (None,)  # the output is not finite; explaining it says so
        return
    objects = image_objects(work.overview.scene, rule.classes[0], rule.count)
    work.targets = objects.explained
    if note := objects.note():
        work.targets = (*objects.explained, rule.classes[0])
        row = failed_row(engine, sample, statuses.NO_TARGET, note, work)
        row.target, row.object_id = rule.classes[0], NO_MORE
        row.prediction = int(work.overview.ranking.argmax())
        work.rows[len(objects.explained)] = row


def count_statuses(rows: Sequence[Row]) -> dict[str, int]:
    """Rows by status."""
    return dict(Counter(row.status for row in rows))
