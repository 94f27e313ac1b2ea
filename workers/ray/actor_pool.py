"""The actors of a run and the references in flight: the policy's orders become Ray calls, Ray's answers become events."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from ..events import ShardFailed, WorkerDied, WorkerEvent, WorkerPlaced
from ..samples import Sample, Shard
from .actors import actor_class
from .failure_kinds import death_text, verdict_of

PINGS = 3
"""An unreachable actor is asked so often whether it died or its node did; each question takes Ray about two seconds."""


@dataclass(slots=True, eq=False)
class _Member:
    handle: Any
    waiting: Any
    """What Ray will answer next: a reference, or a stream of them."""
    streaming: bool = False
    pid: int = 0
    host: str = ""
    pings: int = 0
    doubt: str = ""


class ActorPool:
    """All actors of one run; leaves none behind.

    Args:
        arguments: Of `ShardWorker`.
        gpus: GPUs per actor; may be a fraction.
        cpus: CPUs per actor.
    """

    def __init__(self, arguments: Sequence[Any], *, gpus: float, cpus: float):
        self._actor = actor_class(gpus=gpus, cpus=cpus)
        self._arguments = arguments
        self._members: dict[int, _Member] = {}

    def spawn(self, worker: int) -> None:
        """Create an actor; when it answers it is asked to build its model."""
        handle = self._actor.remote(*self._arguments)
        self._members[worker] = _Member(handle, handle.place.remote())

    def dispatch(
        self,
        worker: int,
        shard: Shard,
        samples: Sequence[Sample],
        quarantine: frozenset[int],
        careful: bool,
        leave_open: bool = False,
    ) -> None:
        """Give the worker a shard; with `leave_open` its last images are in flight when the next order is due.

        Backpressure of one object makes a worker wait until its event has been read here, before it touches the image.
        Without it all unread events are lost when the process dies [measured], and a breadcrumb could name the wrong image.
        """
        member = self._members[worker]
        run = member.handle.run.options(num_returns="streaming", _generator_backpressure_num_objects=1)
        member.waiting, member.streaming = run.remote(shard, samples, quarantine, careful, leave_open), True

    def complete(self, worker: int) -> None:
        """Have the worker complete the shard that it left open."""
        member = self._members[worker]
        complete = member.handle.complete.options(num_returns="streaming", _generator_backpressure_num_objects=1)
        member.waiting, member.streaming = complete.remote(), True

    def kill(self, worker: int) -> None:
        """End the worker's process, whatever state it is in."""
        import ray

        member = self._members.pop(worker, None)
        if member is None:
            return
        with suppress(Exception):
            ray.kill(member.handle, no_restart=True)

    def close(self) -> None:
        """Kill every actor."""
        for worker in list(self._members):
            self.kill(worker)

    def events(self, timeout: float) -> Iterator[tuple[int, WorkerEvent]]:
        """Wait at most `timeout` seconds for something to happen, then give everything that has."""
        import ray

        owners = {id(member.waiting): name for name, member in self._members.items() if member.waiting is not None}
        waiting = [member.waiting for member in self._members.values() if member.waiting is not None]
        if not waiting:
            time.sleep(timeout)
            return
        ready, _ = ray.wait(waiting, num_returns=1, timeout=timeout, fetch_local=True)
        if ready:
            ready, _ = ray.wait(waiting, num_returns=len(waiting), timeout=0)
        for reference in ready:
            worker = owners[id(reference)]
            if worker not in self._members:
                continue
            event = self._fetch(self._members[worker])
            if event is not None:
                if isinstance(event, WorkerDied):
                    self.kill(worker)
                yield worker, event

    def _fetch(self, member: _Member) -> WorkerEvent | None:
        import ray

        try:
            answer: Any = ray.get(next(member.waiting) if member.streaming else member.waiting, timeout=60)
        except StopIteration:
            member.waiting, member.streaming = None, False
            return None
        except Exception as error:
            return self._judge(member, error)
        if member.streaming:
            return answer
        member.waiting = None
        if member.pings:
            return WorkerDied("infrastructure", member.doubt)
        if isinstance(answer, WorkerPlaced):
            member.pid, member.host = answer.pid, answer.host
            member.waiting = member.handle.start.remote()
        return answer

    def _judge(self, member: _Member, error: Exception) -> WorkerEvent | None:
        verdict = verdict_of(error)
        if verdict == "failed":
            return (
                ShardFailed("error", death_text(error)) if member.streaming else WorkerDied("crash", death_text(error))
            )
        if verdict != "doubtful":
            return WorkerDied("crash" if verdict == "crash" else "infrastructure", death_text(error))
        if member.pings == PINGS:
            return WorkerDied("infrastructure", member.doubt)
        member.pings += 1
        member.doubt = member.doubt or death_text(error)
        member.waiting, member.streaming = member.handle.place.remote(), False
        return None

    def kill_hard(self, worker: int) -> None:
        """Kill a worker that may not even answer Ray: a stopped process would keep its GPU for ever."""
        member = self._members.get(worker)
        self.kill(worker)
        if member and member.pid and member.host == socket.gethostname():
            with suppress(ProcessLookupError, PermissionError):
                os.kill(member.pid, signal.SIGKILL)
