"""One attempt at a shard: images in order, decoded ahead, pushed through the engine, a row for every target of each.

Every image is reported before anything touches it, also before a thread decodes it: if the process dies, the last
event names the suspects. With `ahead=0` there is only ever one. An attempt may be left open, with its last images decoded and in flight;
they then finish beside the first of the next shard, in batches with them.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import replace

from ... import statuses
from ...engine.explanation import Explanation
from ...engine.scoring.memory_errors import is_out_of_memory
from ...engine.session import Explained
from ...errors import RunError, SampleError
from ..events import EarlierShard, ImagesAlive
from ..images.decode import Prepared
from ..object_targets import recognised_objects
from ..protocols import SampleReader
from ..samples import Row, Sample
from ..targets import PREDICTED, TargetRule, targets_of
from .engine_protocol import Engine
from .error_kinds import DEVICE_FAULT_EXIT, describe, may_be_device_fault
from .image_rows import Failure, InWork, explained_row, failed_row, find_objects
from .report_pace import ReportPace
from .row_description import name_target

Report = ImagesAlive | EarlierShard
QUARANTINE_TEXT = "taken out: it was being worked on at three consecutive deaths of its worker process"
KEYS_OF_A_SHARD = 2**40
"""Targets of all of a shard's images are fewer; the session's keys of two open shards lie that far apart."""


class ShardAttempt:
    """Turns the samples of one shard into rows.

    Args:
        engine: The model with its session, which must be empty but for the images of `before`.
        reader: Bytes by uri.
        samples: All samples of the shard; a position is an index into them.
        target: Which classes of each image are explained.
        quarantine: Positions that get an error row and are not touched.
        encode: Encodes a finished row in a thread, beside the rest; None to leave that to the commit.
        pace: Says how many images are reported at once; one at a time by default.
        before: The attempt that was left open, whose images share batches with these.
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
        before: ShardAttempt | None = None,
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
        self._decoders: ThreadPoolExecutor | None = None
        self._decoding: deque[tuple[int, Future[Prepared]]] = deque()
        self._beside: ThreadPoolExecutor | None = None
        self._encoding: list[Future[None]] = []
        self._before = before
        self.earlier: int | None = None
        """Index of the shard, once another one was begun beside it."""
        self._first_key = 0 if before is None or before._first_key else KEYS_OF_A_SHARD
        self.sharing: tuple[ShardAttempt, ...] = (self,) if before is None else (before, self)
        if before is not None:
            before.sharing = self.sharing
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

    @property
    def complete(self) -> bool:
        """Whether every image has its rows."""
        return len(self._rows) == len(self.samples)

    @property
    def alive(self) -> tuple[int, ...]:
        """Positions that were reported and have no row yet."""
        return tuple(self._alive)

    def work(self, ahead: int, *, leave_open: bool = False) -> Iterator[Report]:
        """Explain everything, reporting each image first; the images of `before` first of all.

        Args:
            ahead: Images to decode in threads while others are explained; 0: strictly one image at a time.
            leave_open: Stop when the last images are being decoded or are in flight; `finish` or a following attempt works them off.
        """
        todo = deque(position for position in range(len(self.samples)) if position not in self._rows)
        try:
            if not ahead:
                yield from self._one_by_one(todo)
                return
            yield from self._ahead(todo, ahead)
            if not leave_open:
                yield from self.finish()
        except BaseException:
            self.abandon()
            raise

    def finish(self) -> Iterator[Report]:
        """Explain what was left open, and what was left open before it."""
        try:
            while self._decoding:
                yield from self._take(*self._decoding.popleft())
            yield from self.flush()
        except BaseException:
            self.abandon()
            raise

    def flush(self) -> Iterator[Report]:
        """Work off everything that is in flight, of both attempts."""
        if self._in_flight:
            yield self.heartbeat()
        yield from self._step(self._finish)

    def explain_alone(self) -> Iterator[Report]:
        """Explain what was left open image by image, after whatever shared batches with it came to grief."""
        self.sharing = (self,)
        while self._decoding:
            yield from self._take(*self._decoding.popleft())
        for position in list(self._in_flight):
            yield self._report(position)
            self._alone(position)

    def abandon(self) -> None:
        """Forget what is in flight, also what `before` has there; decoded images stay with it."""
        self.engine.session.reset()
        self._close_threads()

    def encoded(self) -> None:
        """Wait until every row that is encoded beside the work is so; to be called when the attempt is complete."""
        wait(self._encoding)
        self._close_threads()

    def _close_threads(self) -> None:
        for threads in (self._decoders, self._beside):
            if threads is not None:
                threads.shutdown(cancel_futures=True)
        self._decoders = self._beside = None

    def _one_by_one(self, todo: deque[int]) -> Iterator[Report]:
        for position in todo:
            yield self._report(position)
            ready: Future[Prepared] = Future()
            try:
                ready.set_result(self._prepare(position))
            except Exception as error:
                ready.set_exception(error)
            yield from self._take(position, ready)
            yield from self._step(self._finish)

    def _ahead(self, todo: deque[int], ahead: int) -> Iterator[Report]:
        """Push all images but those that are being decoded when the last is begun."""
        self._decoders = ThreadPoolExecutor(ahead, thread_name_prefix="decode")
        self._beside = None if self._encode is None else ThreadPoolExecutor(1, thread_name_prefix="encode")
        before = self._before
        while todo or (before is not None and before._decoding):
            while todo and len(self._decoding) < ahead + (0 if self._pace is None else self._pace.size - 1):
                yield from self._decode_next(todo, self._decoders)
            if before is not None and before._decoding:
                yield from before._take(*before._decoding.popleft())
            elif todo:
                yield from self._take(*self._decoding.popleft())
        self._before = None

    def _decode_next(self, todo: deque[int], decoders: ThreadPoolExecutor) -> Iterator[Report]:
        """Report a group of images, then have threads decode them."""
        group = [todo.popleft() for _ in range(min(len(todo), 1 if self._pace is None else self._pace.size))]
        yield self._report(*group)
        if self._pace is not None:
            self._pace.reported()
        self._decoding.extend((position, decoders.submit(self._prepare, position)) for position in group)

    def _report(self, *positions: int) -> Report:
        for position in positions:
            self._alive.pop(position, None)
            self._alive[position] = None
        return self.heartbeat()

    def heartbeat(self) -> Report:
        """Which images are in flight now."""
        event = ImagesAlive(self.alive, len(self._rows))
        return event if self.earlier is None else EarlierShard(self.earlier, event)

    def _prepare(self, position: int) -> Prepared:
        sample, begun = self.samples[position], time.perf_counter()
        if not self.target.asks_model:  # before the image is read, because there may be nothing to explain
            targets_of(self.target, sample, None, self.engine.num_classes)
        try:
            return self.engine.prepare(sample, self.reader)
        finally:
            self.engine.meter.add("decoding", time.perf_counter() - begun)

    def _take(self, position: int, ready: Future[Prepared]) -> Iterator[Report]:
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
                find_objects(self.engine, sample, self.target, state)
        except SampleError as error:
            row = self._failed(position, error.status, error.text)
            row.n_forwards = state.asked
            row.prediction = None if seen is None else int(seen.argmax())
            row.target = self.target.classes[0] if self.target.kind == "components" else None
            self._settle(position, [row])
            return False
        return True

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
            self._first_key + position + place * len(self.samples),
            state.prepared.image,
            target=target,
            truth=state.prepared.truth,
            label=sample.label,
            sample_seed=seed_of(sample.id),
            given=stored,
        )

    def _step(self, call: Callable[[], None]) -> Iterator[Report]:
        """Do a step in which several images share batches; if it raises, find out whose fault it was."""
        failure = self._try(call)
        if failure is None:
            return
        suspects = [(attempt, position) for attempt in self.sharing for position in attempt._in_flight]
        if len(suspects) == 1 and not failure.again:
            [(attempt, position)] = suspects
            if len(attempt._in_flight[position].left) <= 1:
                return attempt._give_up(position, failure)
        for attempt, position in suspects:
            yield attempt._report(position)
            attempt._alone(position)

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
            own = next(attempt for attempt in self.sharing if 0 <= explained.key - attempt._first_key < KEYS_OF_A_SHARD)
            place, position = divmod(explained.key - own._first_key, len(own.samples))
            own._add(
                position,
                place,
                explained_row(own.engine, own.samples[position], explained, place, own._in_flight[position]),
            )

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
        return failed_row(self.engine, self.samples[position], status, error, self._in_flight.get(position))


def seed_of(sample_id: str) -> int:
    """A number that stands for the sample in random draws: the same on any worker and in any shard."""
    return int.from_bytes(hashlib.sha256(sample_id.encode("utf-8", "surrogateescape")).digest()[:8])
