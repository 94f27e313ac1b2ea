"""Chooses number format, forward and batch size for a device by a short trial. Pure: whoever measures is handed in.

The order: the precision (the fastest whose maps agree with those of float32), then the batch (doubled as long as memory allows and the
rate grows), then the forward (the fastest, where compiling pays at all), then the batch once more where the forward is another; and
whether a budget's preset is faster than scoring every mask.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from .budget import EXACT, Budget
from .scoring_options import ForwardKind

AGREEMENT = 0.97
"""Least mean weighted Jaccard index of a precision's maps with those of float32."""
GAIN = 1.05
"""How much faster anything else than the plain way, or a batch of twice the size, must be."""
FIRST_BATCH = 64
LARGEST_BATCH = 4096
COMPILING_PAYS_SECONDS = 600.0
"""Least seconds of plain forwards that each worker has before it: compiling takes a minute or more at every worker's start."""


@dataclass(frozen=True)
class AskedPace:
    """What the user decided; None for what the trial is to find."""

    precision: str | None = None
    forward: ForwardKind | None = None
    batch_size: int | None = None
    budget: Budget = EXACT
    """A preset that is dropped where scoring all masks is faster; `exact` for none."""


@dataclass(frozen=True)
class TimedForward:
    """One measurement."""

    precision: str
    forward: ForwardKind
    batch_size: int
    rate: float | None
    """Forwards a second; None where it does not fit into memory."""


@dataclass(frozen=True)
class PaceTrial:
    """What was chosen, and why."""

    device: str
    """As rows name it."""
    precision: str
    forward: ForwardKind
    batch_size: int
    rate: float
    """Forwards a second of one worker."""
    image_seconds: float | None = None
    """Of the images that were explained, each; None where none was."""
    image_forwards: float | None = None
    """Of those images, each."""
    agreement: Mapping[str, float] = field(default_factory=dict)
    """Mean weighted Jaccard index with float32 by precision, where maps were compared."""
    images: int = 0
    """That were compared."""
    tried: tuple[TimedForward, ...] = ()
    budget: Budget = EXACT
    """What the run works with: the preset asked for, or `exact` where that is faster."""
    budget_seconds: Mapping[str, float] = field(default_factory=dict)
    """Of an image with the preset and with `exact`, where a preset was asked for."""

    def record(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def of_record(cls, record: Mapping[str, Any]) -> PaceTrial:
        """What `record` gave; unknown keys are left out."""
        known = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        return cls(**{**known, "tried": tuple(TimedForward(**timed) for timed in record.get("tried", ()))})


class TrialDevice(Protocol):
    """Measures."""

    @property
    def name(self) -> str: ...
    @property
    def precisions(self) -> Sequence[str]:
        """What the device computes in hardware; `fp32` is among them."""
        ...

    @property
    def forwards(self) -> Sequence[ForwardKind]:
        """What is worth trying; `eager` is among them."""
        ...

    def rate(self, precision: str, forward: ForwardKind, batch_size: int) -> float | None:
        """Forwards a second in full batches, plain ones where the model allows no other; None where they do not fit into memory."""
        ...

    def agreement(self, precision: str, batch_size: int) -> float | None:
        """Mean weighted Jaccard index of maps with those of float32; None where no image gives a map."""
        ...

    def image_seconds_with(self, budget: Budget, precision: str, forward: ForwardKind, batch_size: int) -> float:
        """Of an image, several sharing batches."""
        ...

    @property
    def compared(self) -> int:
        """Images by which the agreement is told."""
        ...

    @property
    def image_seconds(self) -> float | None:
        """Of an image that was explained in float32; None where none was."""
        ...

    @property
    def image_forwards(self) -> float | None: ...


class RateBook:
    """Every rate once, in the order of measuring."""

    def __init__(self, device: TrialDevice):
        self._device = device
        self._timed: dict[tuple[str, ForwardKind, int], TimedForward] = {}

    def rate(self, precision: str, forward: ForwardKind, batch_size: int) -> float | None:
        key = precision, forward, batch_size
        if key not in self._timed:
            self._timed[key] = TimedForward(*key, self._device.rate(*key))
        return self._timed[key].rate

    @property
    def tried(self) -> tuple[TimedForward, ...]:
        return tuple(self._timed.values())


def choose_pace(device: TrialDevice, asked: AskedPace, *, images: float) -> PaceTrial:
    """Carry the trial out.

    Args:
        device: Measures.
        asked: What is settled already.
        images: That each worker has before it.
    """
    book, agreement = RateBook(device), dict[str, float]()
    plain = asked.forward or "eager"
    batch = asked.batch_size or fitting_batch(lambda size: book.rate("fp32", plain, size), FIRST_BATCH)
    precision = asked.precision or choose_precision(device, book, plain, batch, agreement)
    if asked.batch_size is None:
        batch = grown_batch(lambda size: book.rate(precision, plain, size), batch)
    forward = asked.forward or choose_forward(device, book, precision, batch, images)
    if asked.batch_size is None and forward != plain:
        batch = grown_batch(lambda size: book.rate(precision, forward, size), batch)
    seconds = {
        str(budget): device.image_seconds_with(budget, precision, forward, batch)
        for budget in ((asked.budget, EXACT) if asked.budget != EXACT else ())
    }
    pays = bool(seconds) and seconds[str(asked.budget)] < seconds[EXACT]
    return PaceTrial(
        device.name, precision, forward, batch, book.rate(precision, forward, batch) or 0.0, device.image_seconds, device.image_forwards,
        agreement, device.compared if agreement else 0, book.tried, asked.budget if pays else EXACT, seconds,
    )  # fmt: skip


def choose_precision(
    device: TrialDevice, book: RateBook, forward: ForwardKind, batch: int, agreement: dict[str, float]
) -> str:
    """The fastest whose maps agree; float32 where none is faster. Agreements that were measured are noted in `agreement`."""
    rates = {name: book.rate(name, forward, batch) or 0.0 for name in device.precisions}
    for name in sorted(rates, key=lambda name: -rates[name]):
        if name == "fp32" or rates[name] < GAIN * rates["fp32"]:
            return "fp32"
        measured = device.agreement(name, batch)
        if measured is not None:
            agreement[name] = measured
            if measured >= AGREEMENT:
                return name
    return "fp32"


def choose_forward(device: TrialDevice, book: RateBook, precision: str, batch: int, images: float) -> ForwardKind:
    """The fastest; the plain one where none is clearly faster."""
    plain = book.rate(precision, "eager", batch) or 0.0
    ahead = images * (device.image_forwards or 0.0) / plain if plain else 0.0
    chosen, best = "eager", GAIN * plain
    for kind in device.forwards:
        if kind == "eager" or (kind == "compile" and ahead < COMPILING_PAYS_SECONDS):
            continue
        rate = book.rate(precision, kind, batch) or 0.0
        if rate > best:
            chosen, best = kind, rate
    return chosen


def fitting_batch(rate: Callable[[int], float | None], start: int) -> int:
    """`start`, halved until it fits into memory, and at least 1."""
    size = start
    while size > 1 and rate(size) is None:
        size //= 2
    return size


def grown_batch(rate: Callable[[int], float | None], start: int) -> int:
    """`start`, halved until it fits into memory, then doubled as long as that fits and is faster."""
    size = fitting_batch(rate, start)
    while size * 2 <= LARGEST_BATCH:
        now, twice = rate(size), rate(size * 2)
        if now is None or twice is None or twice < GAIN * now:
            break
        size *= 2
    return size
