"""Progress of a run: a live bar on a terminal, else a log message every few seconds; and every event in the event log."""

from __future__ import annotations

import time
from collections.abc import Callable
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

from ...workers.events import (
    ImageQuarantined,
    RunEvent,
    RunStopping,
    ShardGivenUp,
    ShardProgress,
    WorkerLost,
    WorkerNote,
    event_record,
)
from ...workers.run_totals import RunTotals
from ..terminal_log import LOG, terminal_console
from ..text import counted, duration, shown
from .event_log import EventLog

PLAIN_SECONDS = 10.0
"""Between two plain lines."""


class RunProgress:
    """Listens to a run's events: call it with each; use it as a context manager around the run.

    Args:
        totals: Where the events are counted.
        log: Where they are logged.
        console: Gets the live bar if it is a terminal; by default that of the command line, if it runs.
        clock: Seconds of a steady clock.
    """

    def __init__(
        self,
        totals: RunTotals,
        log: EventLog,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.totals = totals
        self._log = log
        self._clock = clock
        console = console or terminal_console()
        self._bar = bar(console) if console is not None and console.is_terminal else None
        self._task = self._bar.add_task("starting", total=totals.images) if self._bar else None
        self._shown = clock()
        self._stopping = False

    def __enter__(self) -> RunProgress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._show(force=True)
        if self._bar:
            self._bar.stop()
        if error is not None:
            self._log.write({"event": "RunFailed", "error": type(error).__name__, "text": str(error)})
        self._log.close()

    def __call__(self, event: RunEvent) -> None:
        self.totals.observe(event, self._clock())
        if not isinstance(event, ShardProgress):  # one per image: too many for a log of ten million
            self._log.write(event_record(event))
        self._stopping |= isinstance(event, RunStopping)
        given_up_by_stopping = self._stopping and isinstance(event, ShardGivenUp)  # thousands, and the user knows why
        if not given_up_by_stopping and (text := event_text(event)) is not None:
            LOG.warning(text)
        self._show()

    def _show(self, force: bool = False) -> None:
        now = self._clock()
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=self.totals.finished, description=line(self.totals, now))
        elif force or now - self._shown >= PLAIN_SECONDS:
            self._shown = now
            LOG.info(f"{self.totals.finished}/{self.totals.images} images, {line(self.totals, now)}")


def bar(console: Console) -> Progress:
    columns = (
        SpinnerColumn(),
        BarColumn(bar_width=24),
        TaskProgressColumn("{task.completed}/{task.total}"),
        TextColumn("{task.description}", markup=False),
    )
    return Progress(*columns, console=console, transient=True)


def line(totals: RunTotals, now: float) -> str:
    """Everything but the count: `2.4 images/s, 1 min 05 s left, 3 errors, 1 death, workers 2 ready 1 starting`."""
    rate, left = totals.rate(now), totals.seconds_left(now)
    parts = [] if rate is None or left is None else [f"{rate:.3g} images/s", f"{duration(left)} left"]
    parts += [counted(totals.errors, "error")] if totals.errors else []
    parts += [counted(totals.deaths, "worker death")] if totals.deaths else []
    parts += [counted(len(totals.undone), "shard") + " given up"] if totals.undone else []
    parts += [f"workers {totals.ready} ready" + (f" {totals.pending} starting" if totals.pending else "")]
    return ", ".join(parts)


def event_text(event: RunEvent) -> str | None:
    """What deserves a line of its own, because somebody may want to act on it."""
    match event:
        case WorkerLost():
            at = f" on shard {event.shard}" if event.shard is not None else ""
            with_images = f", images in work: {', '.join(map(shown, event.alive))}" if event.alive else ""
            return f"worker {event.worker} lost{at} ({event.kind}): {event.text}{with_images}"
        case ImageQuarantined():
            return f"image {event.sample!r} was in work at three worker deaths in a row and becomes an error row"
        case ShardGivenUp():
            return f"shard {event.shard} given up: {event.reason}"
        case RunStopping():
            return f"stopping: {event.reason}"
        case WorkerNote():
            return f"note: {event.text}"
    return None
