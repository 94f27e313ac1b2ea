"""Every error that heatlas raises on purpose.

    HeatlasError
    ├── UsageError                the request cannot be carried out as written: exit code 2
    │   ├── SettingsError             unknown or invalid setting
    │   ├── ModelError                unknown model, weights that do not fit, nothing loadable
    │   │   └── NoBlocksError             the model has no spatial hierarchy for SISE
    │   ├── TargetError               a class index out of range, a label that is not a class
    │   ├── DataError                 the data set cannot be listed or planned
    │   ├── RunMismatchError          the output directory belongs to another run
    │   └── NoRunError                a run was asked about where there is none
    ├── SampleError               one image only: becomes an error row with `status`
    └── RunError                  the run started and failed: exit code 1
        ├── WorkerStartError          workers cannot start
        ├── ShardsUndoneError         shards left undone, named
        ├── TooManyErrorsError        circuit breaker
        └── StorageError              the store cannot be read or written

Messages name the value, the allowed range and the remedy. Arguments go unchanged to `super().__init__`, so that pickle can
rebuild every error on the other side of a process border.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Literal


class HeatlasError(Exception):
    """Root of all errors raised on purpose; its text is meant for the user."""

    exit_code = 1


class UsageError(HeatlasError):
    """The request cannot be carried out as written."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown or has a value out of its range."""


class ModelError(UsageError):
    """The model is unknown or its weights do not fit."""


class NoBlocksError(ModelError):
    """The model has no spatial hierarchy from which SISE could take layers."""


class TargetError(UsageError):
    """The class to explain does not exist in the model."""


class DataError(UsageError):
    """The data set cannot be listed or planned."""


class RunMismatchError(UsageError):
    """The output directory belongs to a run with another fingerprint."""


class NoRunError(UsageError):
    """The directory that should hold a run holds none."""


class SampleError(HeatlasError):
    """One sample cannot be used; the run goes on and its row carries `status` and the text."""

    source_size: int | None = None
    """Bytes that were read of the image, where they could be."""
    source_hash: str | None = None
    """Their sha256 (hex)."""

    def __init__(self, status: str, text: str):
        super().__init__(status, text)
        self.status = status
        self.text = text

    def __str__(self) -> str:
        return self.text


class RunError(HeatlasError):
    """The run started and did not complete."""


class WorkerStartError(RunError):
    """Workers cannot start."""


class ShardsUndoneError(RunError):
    """Some shards were given up; they are named and the same command resumes them."""


class TooManyErrorsError(RunError):
    """More images failed than the circuit breaker allows."""


class StorageError(RunError):
    """The store cannot be read or written."""

    outage: Literal["", "passing", "permanent"] = ""
    """Whether the storage itself failed, after all retries: `permanent` where more of them would not help (full, read-only, no permission)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for a misspelt name: `; did you mean 'sise'?`, or nothing when no name is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def shortened(text: str, longest: int) -> str:
    """The text, cut to `longest` characters of which the last three are then dots."""
    return text if len(text) <= longest else text[: longest - 3] + "..."
