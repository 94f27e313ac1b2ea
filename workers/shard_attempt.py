"""One attempt at a shard: images in order, decoded ahead, pushed through the engine, a row for every one of them.

Every image is announced before anything touches it, also before a thread decodes it: if the process dies, the last
announcement names the suspects. With `ahead=0` there is only ever one.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from ..engine import statuses
from ..engine.errors import RunError, SampleError
from ..engine.session import Explained
from .decode import Prepared
from .engine_port import Engine
from .events import ImagesAlive
from .faults import DEVICE_FAULT_EXIT, describe, is_out_of_memory, may_be_device_fault
from .ports import SampleReader
from .shards import Row, Sample

Target = int | None
QUARANTINE_TEXT = "taken out: it was being worked on at three consecutive deaths of its worker process"


@dataclass(slots=True)
class Failure:
    """An exception of the engine, and whether the same images may be tried again with a smaller micro-batch."""

    status: str
    text: str
    again: bool = False


class ShardAttempt:
    """Turns the samples of one shard into rows.

    Args:
        engine: The model with its session, which must be empty.
        reader: Bytes by uri.
        samples: All samples of the shard; a position is an index into them.
        target: As in `WorkerSpec.target`.
        quarantine: Positions that get an error row and are not touched.
        exit_process: Called when the device is broken; a new process is the only cure.
    """

    def __init__(
        self,
        engine: Engine,
        reader: SampleReader,
        samples: Sequence[Sample],
        *,
        target: int | str,
        quarantine: Collection[int] = (),
        exit_process: Callable[[int], object] = os._exit,
    ):
        self.engine = engine
        self.reader = reader
        self.samples = samples
        self.target = target
        self.exit_process = exit_process
        self._rows: dict[int, Row] = {}
        self._alive: dict[int, None] = {}
        self._in_flight: dict[int, tuple[Prepared, Target]] = {}
        for position in quarantine:
            self._settle(position, self._failed(position, statuses.QUARANTINED, QUARANTINE_TEXT))

    @property
    def rows(self) -> list[Row]:
        """All rows by position.

        Raises:
            RuntimeError: If the engine lost an image.
        """
        lost = [sample.id for position, sample in enumerate(self.samples) if position not in self._rows]
        if lost:
            raise RuntimeError(f"the engine returned no result for {lost}")
        return [self._rows[position] for position in range(len(self.samples))]

    def work(self, ahead: int) -> Iterator[ImagesAlive]:
        """Explain everything, announcing each image first.

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
            yield self._announce(position)
            ready: Future[tuple[Prepared, Target]] = Future()
            try:
                ready.set_result(self._prepare(position))
            except Exception as error:
                ready.set_exception(error)
            yield from self._take(position, ready)
            yield from self._step(self.engine.session.finish)

    def _ahead(self, todo: deque[int], ahead: int) -> Iterator[ImagesAlive]:
        decoding: deque[tuple[int, Future[tuple[Prepared, Target]]]] = deque()
        pool = ThreadPoolExecutor(ahead, thread_name_prefix="decode")
        try:
            while todo or decoding:
                while todo and len(decoding) < ahead:
                    position = todo.popleft()
                    yield self._announce(position)
                    decoding.append((position, pool.submit(self._prepare, position)))
                yield from self._take(*decoding.popleft())
            if self._in_flight:
                yield self._heartbeat()
            yield from self._step(self.engine.session.finish)
        finally:
            pool.shutdown(cancel_futures=True)

    def _announce(self, position: int) -> ImagesAlive:
        self._alive.pop(position, None)
        self._alive[position] = None
        return self._heartbeat()

    def _heartbeat(self) -> ImagesAlive:
        return ImagesAlive(tuple(self._alive), len(self._rows))

    def _prepare(self, position: int) -> tuple[Prepared, Target]:
        sample = self.samples[position]
        target = self._target_of(sample)
        return self.engine.prepare(sample, self.reader), target

    def _target_of(self, sample: Sample) -> Target:
        if self.target == "predicted":
            return None
        if self.target != "label":
            return int(self.target)
        if sample.label is None:
            raise SampleError(
                statuses.LABEL_ERROR,
                "the sample has no label, or one that names no class of the model, but the target is 'label'",
            )
        classes = self.engine.num_classes
        if sample.label < 0 or (classes is not None and sample.label >= classes):
            allowed = "0 or more" if classes is None else f"between 0 and {classes - 1}"
            raise SampleError(
                statuses.LABEL_ERROR, f"label {sample.label} is no class of the model; it must be {allowed}"
            )
        return sample.label

    def _take(self, position: int, ready: Future[tuple[Prepared, Target]]) -> Iterator[ImagesAlive]:
        try:
            prepared, target = ready.result()
        except SampleError as error:
            self._settle(position, self._failed(position, error.status, error.text))
        except RunError:
            raise  # the store's fault and not the image's
        except Exception as error:
            self._settle(position, self._failed(position, statuses.DECODE_ERROR, describe(error)))
        else:
            self._in_flight[position] = prepared, target
            yield from self._step(lambda: self._push(position))

    def _push(self, position: int) -> Sequence[Explained]:
        prepared, target = self._in_flight[position]
        sample = self.samples[position]
        return self.engine.session.push(
            position,
            prepared.image,
            target=target,
            truth=prepared.truth,
            label=sample.label,
            sample_seed=seed_of(sample.id),
            given=prepared.given,
        )

    def _step(self, call: Callable[[], Sequence[Explained]]) -> Iterator[ImagesAlive]:
        """Do a step in which several images share batches; if it raises, find out whose fault it was."""
        failure = self._try(call)
        if failure is None:
            return
        suspects = list(self._in_flight)
        if len(suspects) == 1 and not failure.again:
            return self._settle(suspects[0], self._failed(suspects[0], failure.status, failure.text))
        for position in suspects:
            yield self._announce(position)
            self._alone(position)

    def _alone(self, position: int) -> None:
        """Explain one image with nothing else in flight, with less and less memory if need be."""
        while True:
            failure = self._try(lambda: [*self._push(position), *self.engine.session.finish()])
            if failure is None:
                return None
            if not failure.again:
                return self._settle(position, self._failed(position, failure.status, failure.text))

    def _try(self, call: Callable[[], Sequence[Explained]]) -> Failure | None:
        """Settle what `call` returns. Gives a failure as text: the exception's frames would hold the device's memory."""
        try:
            self._collect(call())
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

    def _collect(self, found: Sequence[Explained]) -> None:
        for one in found:
            self._settle(one.key, self._explained(one))

    def _settle(self, position: int, row: Row) -> None:
        self._rows[position] = row
        self._alive.pop(position, None)
        self._in_flight.pop(position, None)

    def _failed(self, position: int, status: str, error: str) -> Row:
        size = self._in_flight.get(position)
        height, width = (size[0].height, size[0].width) if size else (None, None)
        return Row(self.samples[position], status, error, height=height, width=width, device=self.engine.device)

    def _explained(self, one: Explained) -> Row:
        prepared, _ = self._in_flight[one.key]
        return Row(
            sample=self.samples[one.key],
            status=one.status,
            error=one.error,
            height=prepared.height,
            width=prepared.width,
            prediction=one.prediction,
            target=one.target,
            score=one.score,
            logit=one.logit,
            map=None if one.map is None else one.map.numpy(),
            metrics=dict(one.metrics),
            mask_counts=one.mask_counts,
            n_forwards=one.n_forwards,
            surrogate_error=one.surrogate_error,
            seconds=one.seconds,
            device=self.engine.device,
            floors=one.floors,
        )


def seed_of(sample_id: str) -> int:
    """A number that stands for the sample in random draws: the same on any worker and in any shard."""
    return int.from_bytes(hashlib.sha256(sample_id.encode("utf-8", "surrogateescape")).digest()[:8])


def count_statuses(rows: Sequence[Row]) -> dict[str, int]:
    """Rows by status."""
    return dict(Counter(row.status for row in rows))
