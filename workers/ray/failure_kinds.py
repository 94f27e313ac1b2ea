"""What Ray's exceptions say about a worker. They are no one class tree, so they stand here by name; a test holds the list."""

from __future__ import annotations

import re
from typing import Literal

from ...errors import shortened

Verdict = Literal["crash", "infrastructure", "doubtful", "failed"]
"""`crash`: the process died of what it did. `infrastructure`: node or connection lost. `doubtful`: unreachable, ask again.
`failed`: the call raised, the process lives."""

_DEATH_TEXT_LENGTH = 400
"""Characters."""
VERDICTS: dict[str, Verdict] = {
    "ActorDiedError": "crash",
    "RayActorError": "crash",
    "WorkerCrashedError": "crash",
    "OutOfMemoryError": "crash",
    "RuntimeEnvSetupError": "crash",
    "AsyncioActorExit": "crash",
    "ActorUnavailableError": "doubtful",
    "RayTaskError": "failed",
    "TaskCancelledError": "infrastructure",
    "NodeDiedError": "infrastructure",
    "LocalRayletDiedError": "infrastructure",
    "ActorUnschedulableError": "infrastructure",
    "TaskUnschedulableError": "infrastructure",
    "ActorPlacementGroupRemoved": "infrastructure",
    "TaskPlacementGroupRemoved": "infrastructure",
    "ObjectLostError": "infrastructure",
    "ObjectFetchTimedOutError": "infrastructure",
    "ObjectFreedError": "infrastructure",
    "ObjectReconstructionFailedError": "infrastructure",
    "ReferenceCountingAssertionError": "infrastructure",
    "OwnerDiedError": "infrastructure",
    "ObjectStoreFullError": "infrastructure",
    "OutOfDiskError": "infrastructure",
    "RpcError": "infrastructure",
    "RaySystemError": "infrastructure",
    "AuthenticationError": "infrastructure",
    "UnserializableException": "failed",
}
_NODE_LOST = re.compile(
    r"node (has )?(died|been (drained|terminated|preempted))|node is dead|node was (terminated|lost)", re.I
)

_TELLING = re.compile(r"exit detail|\b\w*(Error|Exception)\b")


def verdict_of(error: BaseException) -> Verdict:
    """What `error`, raised by `ray.get` on a call of an actor, says; an unknown Ray error never blames an image."""
    if getattr(error, "preempted", False) or (type(error).__name__ != "RayTaskError" and _node_lost(error)):
        return "infrastructure"
    for kind in type(error).__mro__:
        if kind.__name__ in VERDICTS:
            return VERDICTS[kind.__name__]
    return "infrastructure"


def _node_lost(error: BaseException) -> bool:
    names = {kind.__name__ for kind in type(error).__mro__}
    return "RayActorError" in names and _NODE_LOST.search(str(error)) is not None


def death_text(error: BaseException) -> str:
    """The first telling line of Ray's long message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = next((line for line in lines if _TELLING.search(line)), None)
    text = lines[0] if lines else type(error).__name__
    if telling and telling != text:
        text = f"{text} {telling}"
    return shortened(text, _DEATH_TEXT_LENGTH)
