"""What `heatlas plan` says, as plain facts, and the same as JSON values."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...engine.map_shift import MapShift
    from ..train.forecast import TrainingForecast


@dataclass(frozen=True)
class PlannedShards:
    """How the data set is cut."""

    count: int
    largest: int
    """Images of the largest shard."""


@dataclass(frozen=True)
class PreprocessValue:
    """One setting of the preprocessing, and where it comes from."""

    name: str
    value: Any
    origin: str


@dataclass(frozen=True)
class ProbeFacts:
    """What was looked at."""

    device: str
    threads: int
    looked_at: int
    """Images."""
    usable: int
    counted: int
    """Images whose masks were counted."""
    explained: int
    """Rows made."""


@dataclass(frozen=True)
class ValueSpread:
    """Of a number over images."""

    mean: float
    low: float
    high: float
    images: int


@dataclass(frozen=True)
class ForwardCounts:
    """Forward passes, a backward pass counted as two; None where the probe could not tell."""

    per_image: float | None
    total: float | None
    parts: dict[str, float] | None
    """By what they are for."""


@dataclass(frozen=True)
class ForwardRate:
    """As measured on this machine."""

    forwards_per_second: float
    batch_size: int
    device: str
    precision: str
    """Of the run."""
    forward: str
    """Of the run, see `heatlas explain --forward`."""
    by_trial: bool
    """Whether a trial chose precision, forward and batch size, now or when the run began."""


@dataclass(frozen=True)
class PredictedTime:
    """Of a number of workers, without their start."""

    device: str
    workers: int
    seconds: float
    how: str
    """It was come by."""


@dataclass(frozen=True)
class StoreSize:
    """Of the store that the run would write."""

    bytes: int
    per_row: int
    how: str
    """It was come by."""


@dataclass(frozen=True)
class ProbedAccuracy:
    """Share of labelled images looked at whose predicted class is their label."""

    top1: float
    images: int


@dataclass(frozen=True)
class Finding:
    """One thing that looks wrong."""

    code: str
    text: str
    remedy: str


@dataclass(frozen=True)
class Forecast:
    """A run that is not begun yet."""

    model: str
    data: str
    out: str
    method: str
    target: Any
    images: int
    rows_per_image: float
    classes: int
    class_names: bool
    """Whether there are any."""
    labels: str | None
    """How labels are read."""
    shards: PlannedShards
    layers: list[dict[str, Any]] | None
    """Block layers with what was found out about them."""
    preprocess: list[PreprocessValue]
    probe: ProbeFacts
    masks: ValueSpread | None
    """Per image and target."""
    forwards: ForwardCounts
    rate: ForwardRate
    seconds_per_row: Any
    times: list[PredictedTime]
    map_shift: MapShift | None
    """None where explaining the mirrored images was not quick."""
    store: StoreSize
    accuracy: ProbedAccuracy | None
    findings: list[Finding]
    """What looks wrong, the most serious first."""
    correct_shift: tuple[float, float] | None = None
    """Pixels down and right by which maps will be moved back; None where they stay."""
    training: TrainingForecast | None = None
    """Of the explainer, where the method needs one and none is given."""

    def __str__(self) -> str:
        """What `heatlas plan` prints."""
        from .forecast_text import format_forecast  # here, because facts do not need their text

        return format_forecast(self)

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `heatlas plan --json` prints them."""
        values = asdict(self)
        values["preprocess"] = [
            {"name": fact.name, "value": fact.value, "from": fact.origin} for fact in self.preprocess
        ]
        return values
