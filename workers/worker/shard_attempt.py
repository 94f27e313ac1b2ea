"""One attempt at a shard: images in order, decoded ahead, pushed through the engine, a row for every target of each.

Every image is reported before anything touches it, also before a thread decodes it: if the process dies, the last
event names the suspects. With `ahead=0` there is only ever one.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace

from ... import statuses
from ...engine.explanation import Explanation
from ...engine.scoring.memory_errors import is_out_of_memory
from ...engine.scoring.whole_image import ClassOverview
from ...engine.session import Explained
from ...errors import RunError, SampleError
from ..events import ImagesAlive
from ..images.decode import Prepared
from ..object_targets import NO_MORE, image_objects, recognised_objects
from ..protocols import SampleReader
from ..samples import Row, Sample
from ..targets import PREDICTED, TargetRule, targets_of
from .engine_protocol import Engine
from .error_kinds import DEVICE_FAULT_EXIT, describe, may_be_device_fault
from .report_pace import ReportPace
from .row_description import describe_image, name_target

Target = int | None
QUARANTINE_TEXT = "taken out: it was being worked on at three consecutive deaths of its worker process"


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


class ShardAttempt:
    """Turns the samples of one shard into rows.

    Args:
        engine: The model with its session, which must be empty.
        reader: Bytes by uri.
        samples: All samples of the shard; a position is an index into them.
        target: Which classes of each image are explained.
        quarantine: Positions that get an error row and are not touched.
        encode: Encodes a finished row in a thread, beside the rest; None to leave that to the commit.
        pace: Says how many images are reported at once; one at a time by default.
        exit_process: Called when the device is broken; a new process is the only cure.
    """

    def __init__(
        self,
        engine: Engine,
        reader: SampleReader,
        samples: Sequence[Sample],
        *,
        target: TargetRule = PREDICTED,
        quarantine: Collection[int] = (),
        encode: Callable[[Row], object] | None = None,
        pace: ReportPace | None = None,
        exit_process: Callable[[int], object] = os._exit,
    ):
        self.engine = engine
        self.reader = reader
        self.samples = samples
        self.target = target
        self.exit_process = exit_process
        self._rows: dict[int, list[Row]] = {}
        self._alive: dict[int, None] = {}
        self._in_flight: dict[int, InWork] = {}
        self._encode = encode
        self._pace = pace
        self._beside: ThreadPoolExecutor | None = None
        self._encoding: list[Future[None]] = []
        for position in quarantine:
            self._settle(position, [self._failed(position, statuses.QUARANTINED, QUARANTINE_TEXT)])

    @property
    def rows(self) -> list[Row]:
        """All rows, by position and then in the order of the image's targets.

        Raises:
            RuntimeError: If the engine lost an image.
        """
        lost = [sample.id for position, sample in enumerate(self.samples) if position not in self._rows]
        if lost:
            raise RuntimeError(f"the engine returned no result for {lost}")
        return [row for position in range(len(self.samples)) for row in self._rows[position]]

    def work(self, ahead: int) -> Iterator[ImagesAlive]:
        """Explain everything, reporting each image first.

        Args:
            ahead: Images to decode in threads while others are explained; 0: strictly one image at a time.
        """
        todo = deque(position for position in range(len(self.samples)) if position not in self._rows)
        try:
            yield from self._ahead(todo, ahead) if ahead else self._one_by_one(todo)
        finally:
            self.engine.session.reset()

    def _one_by_one(self, todo: deque[int]) -> Iterator[ImagesAlive]:
        for position in todo:
            yield self._report(position)
            ready: Future[Prepared] = Future()
            try:
                ready.set_result(self._prepare(position))
            except Exception as error:
                ready.set_exception(error)
            yield from self._take(position, ready)
            yield from self._step(self._finish)

    def _ahead(self, todo: deque[int], ahead: int) -> Iterator[ImagesAlive]:
        decoding: deque[tuple[int, Future[Prepared]]] = deque()
        pool = ThreadPoolExecutor(ahead, thread_name_prefix="decode")
        self._beside = None if self._encode is None else ThreadPoolExecutor(1, thread_name_prefix="encode")
        try:
            while todo or decoding:
                while todo and len(decoding) < ahead:
                    group = [
                        todo.popleft() for _ in range(min(len(todo), 1 if self._pace is None else self._pace.size))
                    ]
                    yield self._report(*group)
                    if self._pace is not None:
                        self._pace.reported()
                    decoding.extend((position, pool.submit(self._prepare, position)) for position in group)
                yield from self._take(*decoding.popleft())
            if self._in_flight:
                yield self._heartbeat()
            yield from self._step(self._finish)
            with self.engine.meter.at("encoding"):
                wait(self._encoding)
        finally:
            for threads in (pool, self._beside):
                if threads is not None:
                    threads.shutdown(cancel_futures=True)
            self._beside = None

    def _report(self, *positions: int) -> ImagesAlive:
        for position in positions:
            self._alive.pop(position, None)
            self._alive[position] = None
        return self._heartbeat()

    def _heartbeat(self) -> ImagesAlive:
        return ImagesAlive(tuple(self._alive), len(self._rows))

    def _prepare(self, position: int) -> Prepared:
        sample, begun = self.samples[position], time.perf_counter()
        if not self.target.asks_model:  # before the image is read, because there may be nothing to explain
            targets_of(self.target, sample, None, self.engine.num_classes)
        try:
            return self.engine.prepare(sample, self.reader)
        finally:
            self.engine.meter.add("decoding", time.perf_counter() - begun)

    def _take(self, position: int, ready: Future[Prepared]) -> Iterator[ImagesAlive]:
        try:
            with self.engine.meter.at("waiting"):
                prepared = ready.result()
        except SampleError as error:
            row = self._failed(position, error.status, error.text)
            row.source_size, row.source_hash = error.source_size, error.source_hash
            self._settle(position, [row])
        except RunError:
            raise  # the store's fault and not the image's
        except Exception as error:
            self._settle(position, [self._failed(position, statuses.DECODE_ERROR, describe(error))])
        else:
            self._in_flight[position] = InWork(prepared)
            yield from self._step(lambda: self._enter(position))

    def _enter(self, position: int) -> None:
        """Push an image for each of its targets."""
        if self._settle_targets(position):
            for place in self._in_flight[position].left:
                self._collect(self._push(position, place))

    def _settle_targets(self, position: int) -> bool:
        """Find out which classes are to be explained; False if there are none, and the image has its row."""
        state, sample = self._in_flight[position], self.samples[position]
        if state.targets is not None:
            return True
        if state.prepared.given is not None:
            return self._settle_given(position, state.prepared.given)
        seen = None
        if self.target.asks_model:
            state.overview = state.overview or self.engine.overview(state.prepared.image, sample.label)
            seen, state.asked = state.overview.ranking.cpu(), 1
        try:
            state.targets = targets_of(self.target, sample, seen, self.engine.num_classes)
            if self.target.kind == "components":
                self._find_objects(position, state)
        except SampleError as error:
            row = self._failed(position, error.status, error.text)
            row.n_forwards = state.asked
            row.prediction = None if seen is None else int(seen.argmax())
            row.target = self.target.classes[0] if self.target.kind == "components" else None
            self._settle(position, [row])
            return False
        return True

    def _find_objects(self, position: int, state: InWork) -> None:
        """Put the objects of the class in its place; what is left out gets a row that says so."""
        if state.overview is None or state.overview.scene is None:
            state.targets = (None,)  # the output is not finite; explaining it says so
            return
        objects = image_objects(state.overview.scene, self.target.classes[0], self.target.count)
        state.targets = objects.explained
        if note := objects.note():
            state.targets = (*objects.explained, self.target.classes[0])
            row = self._failed(position, statuses.NO_TARGET, note)
            row.target, row.object_id = self.target.classes[0], NO_MORE
            row.prediction = int(state.overview.ranking.argmax())
            state.rows[len(objects.explained)] = row

    def _settle_given(self, position: int, given: Sequence[Explanation]) -> bool:
        """The targets of explanations that are there already."""
        state, label = self._in_flight[position], self.samples[position].label
        has_objects = any(each.object_id is not None for each in given)
        if has_objects or any(each.prediction is None for each in given):  # maps that are to be stored, too
            state.overview = state.overview or self.engine.overview(state.prepared.image, label)
        try:
            state.targets = recognised_objects(None if state.overview is None else state.overview.scene, given)
        except SampleError as error:
            self._settle(position, [self._failed(position, error.status, error.text)])
            return False
        return True

    def _push(self, position: int, place: int) -> Sequence[Explained]:
        state, sample = self._in_flight[position], self.samples[position]
        targets, given = state.targets or (), state.prepared.given
        target = targets[place]
        stored = None if given is None else replace(given[place], target=target)
        return self.engine.session.push(
            position + place * len(self.samples),
            state.prepared.image,
            target=target,
            truth=state.prepared.truth,
            label=sample.label,
            sample_seed=seed_of(sample.id),
            given=stored,
        )

    def _step(self, call: Callable[[], None]) -> Iterator[ImagesAlive]:
        """Do a step in which several images share batches; if it raises, find out whose fault it was."""
        failure = self._try(call)
        if failure is None:
            return
        suspects = list(self._in_flight)
        if len(suspects) == 1 and not failure.again and len(self._in_flight[suspects[0]].left) <= 1:
            return self._give_up(suspects[0], failure)
        for position in suspects:
            yield self._report(position)
            self._alone(position)

    def _alone(self, position: int) -> None:
        """Explain one image with nothing else in flight, target by target, with less and less memory if need be."""
        while (state := self._in_flight.get(position)) is not None:
            before = state.left, state.targets
            failure = self._try(lambda: self._next_target(position))
            if failure is not None and not failure.again:
                self._give_up(position, failure)
            elif failure is None and position in self._in_flight and before == (state.left, state.targets):
                return  # the engine lost it, which `rows` tells

    def _next_target(self, position: int) -> None:
        if self._settle_targets(position):
            place = self._in_flight[position].left[0]
            self._collect([*self._push(position, place), *self.engine.session.finish()])

    def _give_up(self, position: int, failure: Failure) -> None:
        """An error row for the target that was being explained, or for the image where it has none yet."""
        state = self._in_flight[position]
        row = self._failed(position, failure.status, failure.text)
        place = next(iter(state.left), None)
        row.n_forwards = 0 if place else state.asked
        if place is None:
            return self._settle(position, [row])
        name_target(row, (state.targets or ())[place], state.prepared)
        return self._add(position, place, row)

    def _try(self, call: Callable[[], None]) -> Failure | None:
        """Do it. Gives a failure as text: the exception's frames would hold the device's memory."""
        try:
            call()
        except Exception as error:
            no_memory = is_out_of_memory(error)
            if not no_memory and may_be_device_fault(error) and not self.engine.usable():
                self.exit_process(DEVICE_FAULT_EXIT)
            self.engine.session.reset()
            failure = Failure(statuses.OUT_OF_MEMORY if no_memory else statuses.EXPLAIN_ERROR, describe(error))
        else:
            return None
        if failure.status == statuses.OUT_OF_MEMORY:
            failure.again = self.engine.shrink()
        return failure

    def _finish(self) -> None:
        self._collect(self.engine.session.finish())

    def _collect(self, explanations: Sequence[Explained]) -> None:
        for explained in explanations:
            place, position = divmod(explained.key, len(self.samples))
            self._add(position, place, self._explained(position, explained, place))

    def _add(self, position: int, place: int, row: Row) -> None:
        """Note the row of one target; with the last of them the image is finished."""
        state = self._in_flight[position]
        state.rows[place] = row
        if not state.left:
            self._settle(position, [state.rows[number] for number in sorted(state.rows)])

    def _settle(self, position: int, rows: list[Row]) -> None:
        self._rows[position] = rows
        if self._beside is not None:
            self._encoding += [self._beside.submit(self._encode_row, row) for row in rows if row.map is not None]
        self._alive.pop(position, None)
        self._in_flight.pop(position, None)

    def _encode_row(self, row: Row) -> None:
        """What fails here fails again in the commit, which tells."""
        begun = time.perf_counter()
        if self._encode is not None:
            self._encode(row)
        self.engine.meter.add("pictures", time.perf_counter() - begun)

    def _failed(self, position: int, status: str, error: str) -> Row:
        row = Row(self.samples[position], status, error, device=self.engine.device, precision=self.engine.precision)
        return (
            row
            if (work := self._in_flight.get(position)) is None
            else describe_image(row, work.prepared, work.overview)
        )

    def _explained(self, position: int, explained: Explained, place: int) -> Row:
        work = self._in_flight[position]
        work.overview = work.overview or explained.overview
        row = Row(
            sample=self.samples[position],
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
            device=self.engine.device,
            precision=self.engine.precision,
            chance=explained.chance,
        )
        name_target(row, explained.target, work.prepared)
        return describe_image(row, work.prepared, work.overview)


def seed_of(sample_id: str) -> int:
    """A number that stands for the sample in random draws: the same on any worker and in any shard."""
    return int.from_bytes(hashlib.sha256(sample_id.encode("utf-8", "surrogateescape")).digest()[:8])


def count_statuses(rows: Sequence[Row]) -> dict[str, int]:
    """Rows by status."""
    return dict(Counter(row.status for row in rows))
