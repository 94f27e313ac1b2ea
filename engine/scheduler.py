"""Serves the requests of conversations, many at a time, so that every batch is full whatever a single image asks for.

Nothing else knows about batches and order. A conversation goes on as soon as its request is answered; requests that fill no batch
wait for other images', until `flush`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch

from .requests import Batched, Request, Rows, Score, Steps
from .scoring.masked_scorer import Scorer
from .time_spent import WorkMeter

Result = TypeVar("Result")


@dataclass(eq=False)
class Conversation:
    """A generator of requests on its way."""

    steps: Steps[Any]
    then: Callable[[], None] | None = None
    """Called at its end."""
    result: Any = None
    done: bool = False


@dataclass
class Scheduler:
    """Drives conversations, see `requests`."""

    meter: WorkMeter = field(default_factory=WorkMeter)
    """Charged with everything that is done here."""
    _ready: deque[tuple[Conversation, Any]] = field(default_factory=deque)
    """With the reply that each goes on with."""
    _rows: dict[tuple[Any, ...], list[tuple[Conversation, Rows | Batched]]] = field(default_factory=dict)
    _scoring: list[tuple[Conversation, Score]] = field(default_factory=list)
    _scorers: dict[int, Scorer] = field(default_factory=dict)
    _open: dict[int, Conversation] = field(default_factory=dict)

    def start(self, steps: Steps[Any]) -> Conversation:
        """Take a conversation in; it begins with the next `advance`."""
        conversation = Conversation(steps)
        self._begin(conversation)
        return conversation

    def advance(self) -> None:
        """Let every conversation go on as far as full batches carry it."""
        with torch.inference_mode(False), torch.no_grad():
            self._advance()

    def flush(self) -> None:
        """Serve what waits, also where it fills no batch: rows before masks, because rows lead to masks."""
        with torch.inference_mode(False), torch.no_grad():
            if self._rows:
                for key in list(self._rows):
                    self._call(key)
            else:
                for scorer in self._scorers.values():
                    scorer.flush()
            self._advance()

    def finish(self) -> None:
        """Work until every conversation has ended."""
        self.advance()
        while self._open:
            self.flush()

    def reset(self) -> None:
        """End every conversation and forget what is queued."""
        for conversation in list(self._open.values()):
            conversation.steps.close()
        for scorer in self._scorers.values():
            scorer.reset()
        for waiting in (self._ready, self._rows, self._scoring, self._scorers, self._open):
            waiting.clear()

    def _begin(self, conversation: Conversation) -> None:
        self._open[id(conversation)] = conversation
        self._ready.append((conversation, None))

    def _advance(self) -> None:
        while True:
            while self._ready:
                self._resume(*self._ready.popleft())
            scored = [entry for entry in self._scoring if all(job.done for job in entry[1].jobs)]
            if not scored:
                return
            self._scoring = [entry for entry in self._scoring if not all(job.done for job in entry[1].jobs)]
            self._ready.extend((conversation, None) for conversation, _ in scored)

    def _resume(self, conversation: Conversation, reply: Any) -> None:
        try:
            with self.meter.at("method"):
                request = conversation.steps.send(reply)
        except StopIteration as end:
            conversation.result, conversation.done = end.value, True
            del self._open[id(conversation)]
            if conversation.then is not None:
                conversation.then()
        else:
            self._serve(conversation, request)

    def _serve(self, conversation: Conversation, request: Request) -> None:
        if isinstance(request, Rows):
            image = request.image
            self._wait((request.function, image.shape, image.dtype, image.device, request.limit), conversation, request)
        elif isinstance(request, Batched):
            self._wait((request.function, request.key, request.limit), conversation, request)
        elif isinstance(request, Score):
            self._scorers[id(request.scorer)] = request.scorer
            request.scorer.meter = self.meter
            with self.meter.at("masks"):
                request.scorer.submit(*request.jobs, like=request.image)
            self._scoring.append((conversation, request))
        else:
            self._branch(conversation, request.parts)

    def _wait(self, key: tuple[Any, ...], conversation: Conversation, request: Rows | Batched) -> None:
        waiting = self._rows.setdefault(key, [])
        waiting.append((conversation, request))
        if len(waiting) >= request.limit:
            self._call(key)

    def _call(self, key: tuple[Any, ...]) -> None:
        waiting = self._rows.pop(key)
        requests: list[Any] = [request for _, request in waiting]
        spare = requests[0].limit - len(requests)
        requests += requests[-1:] * spare
        is_pass = isinstance(requests[0], Rows)
        with self.meter.at("gradients" if is_pass else "metrics"):
            replies = self._replies(requests)
        self.meter.padded += spare if is_pass else 0
        self._ready.extend((conversation, replies[place]) for place, (conversation, _) in enumerate(waiting))

    @staticmethod
    def _replies(requests: Sequence[Any]) -> Sequence[Any]:
        if isinstance(requests[0], Batched):
            replies = requests[0].function([request.item for request in requests])
        else:
            images = torch.stack([request.image for request in requests])
            replies = requests[0].function(
                images, [request.target for request in requests], [request.seed for request in requests]
            )
        return replies

    def _branch(self, conversation: Conversation, parts: Sequence[Steps[Any]]) -> None:
        branches = [Conversation(steps) for steps in parts]

        def join() -> None:
            if all(branch.done for branch in branches):
                self._ready.append((conversation, [branch.result for branch in branches]))

        if not branches:
            self._ready.append((conversation, []))
        for branch in branches:
            branch.then = join
            self._begin(branch)


def run(steps: Steps[Result]) -> Result:
    """Hold one conversation to its end and return its result."""
    return run_all([steps])[0]


def run_all(parts: Iterable[Steps[Result]]) -> list[Result]:
    """Hold conversations that share batches to their ends, one begun after the other, and return their results in order."""
    scheduler = Scheduler()
    begun = []
    try:
        for steps in parts:
            begun.append(scheduler.start(steps))
            scheduler.advance()
        scheduler.finish()
    except BaseException:
        scheduler.reset()
        raise
    return [conversation.result for conversation in begun]
