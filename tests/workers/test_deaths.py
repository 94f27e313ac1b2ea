"""What Ray's exceptions mean: the list is pinned, so that a new Ray with a new exception is noticed."""

from __future__ import annotations

import inspect

import pytest
from heatlas.workers.ray.failure_kinds import VERDICTS, death_text, verdict_of
from ray import exceptions
from ray.core.generated.common_pb2 import ActorDiedErrorContext

NOT_FROM_ACTORS = {
    "ActorAlreadyExistsError",
    "ActorHandleNotFoundError",
    "CrossLanguageError",
    "GetTimeoutError",
    "ObjectRefStreamEndOfStreamError",
    "OufOfBandObjectRefSerializationException",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RayCgraphCapacityExceeded",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayDirectTransportError",
    "RayError",
    "StreamingGeneratorReplayInconsistentError",
    "UserCodeException",
}
"""Raised by other calls, other features of Ray, or covered by their base class."""


def test_every_exception_of_ray_is_accounted_for():
    result = {
        name for name, kind in vars(exceptions).items() if inspect.isclass(kind) and issubclass(kind, exceptions.RayError)
    }  # fmt: skip
    assert result == set(VERDICTS) | NOT_FROM_ACTORS


def test_deaths_are_no_one_class_tree():
    """Why they are listed: no base class short of RayError covers them."""
    kinds = [
        exceptions.RayActorError,
        exceptions.NodeDiedError,
        exceptions.WorkerCrashedError,
        exceptions.OutOfMemoryError,
    ]
    assert not any(issubclass(kind, other) for kind in kinds for other in kinds if kind is not other)


def died(text: str) -> exceptions.ActorDiedError:
    """As Ray builds it from its own report."""
    return exceptions.ActorDiedError(ActorDiedErrorContext(error_message=text, actor_id=b"a" * 16))


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (died("Worker exit type: SYSTEM_ERROR ... to prevent node deaths by resource contention"), "crash"),
        (died("The actor died because its node has died. Node Id: 12ab"), "infrastructure"),
        (exceptions.RayActorError(error_msg="gone", preempted=True), "infrastructure"),
        (exceptions.ActorUnavailableError("try later", None), "doubtful"),
        (exceptions.NodeDiedError("lost"), "infrastructure"),
        (exceptions.OutOfMemoryError("killed"), "crash"),
        (exceptions.WorkerCrashedError(), "crash"),
        (exceptions.ActorUnschedulableError("no room"), "infrastructure"),
        (exceptions.RuntimeEnvSetupError("no pip"), "crash"),
        (exceptions.RayTaskError("run", "traceback", ValueError("x")), "failed"),
        (exceptions.RayTaskError("run", "t", ValueError("x")).as_instanceof_cause(), "failed"),
        (exceptions.RaySystemError(RuntimeError("x")), "infrastructure"),
    ],
)
def test_verdicts(error, verdict):
    assert verdict_of(error) == verdict


def test_text_of_a_memory_kill_is_its_first_line():
    first = "1 worker(s) were killed due to the node running low on memory. It had 7.00GB of 23.54GB."
    assert death_text(exceptions.OutOfMemoryError(f"{first}\n- objects errored: 0")) == first


def test_text_is_short():
    text = death_text(died("Worker exit detail: connection error\n" + "y" * 900))
    assert text == "The actor died unexpectedly before finishing this task. Worker exit detail: connection error"
