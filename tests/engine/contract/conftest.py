"""Images for every method."""

from __future__ import annotations

import pytest
from torch import Tensor

from ...support.contract_methods import (
    SIZE,
)
from ...support.oracle_nets import images_like


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(5, 3, SIZE, seed=1)
