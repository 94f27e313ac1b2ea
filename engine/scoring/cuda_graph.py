"""A forward recorded once as a CUDA graph and launched in one piece: for networks whose kernels are shorter than their launches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..layers.outputs import logits_of

WARM_UPS = 3
"""Forwards before the recording, in which libraries choose their kernels and take their workspaces."""


@dataclass(frozen=True, eq=False)
class Recording:
    """A graph with the memory that it reads and writes."""

    graph: Any
    inputs: Tensor
    logits: Tensor


class RecordedForward:
    """Calls a model by a CUDA graph of its forward, recorded for the shape of the inputs and recorded anew for another.

    A graph repeats what the recording did, whatever the values are; who uses it compares its logits with the model's.

    Args:
        model: In eval mode, on a CUDA device.
    """

    def __init__(self, model: nn.Module):
        self.model = model
        self._recording: Recording | None = None

    def __call__(self, inputs: Tensor) -> Tensor:
        """Logits of `inputs` `(batch, channel, height, width)`.

        Raises:
            RuntimeError: Where there is no CUDA device, or the forward cannot be recorded.
        """
        if inputs.device.type != "cuda":
            raise RuntimeError(f"a CUDA graph needs a CUDA device, and the inputs are on {inputs.device.type}")
        if self._recording is None or self._recording.inputs.shape != inputs.shape:
            self._recording = None  # before the new one takes its memory
            self._recording = self._record(inputs)
        self._recording.inputs.copy_(inputs)
        self._recording.graph.replay()
        return self._recording.logits.clone()

    def _record(self, inputs: Tensor) -> Recording:
        device, kept = inputs.device, inputs.clone()
        dtype = torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else None
        # without autocast's cache, whose casts of weights would be freed under the graph
        with torch.autocast("cuda", dtype=dtype, enabled=dtype is not None, cache_enabled=False):
            beside = torch.cuda.Stream(device)
            beside.wait_stream(torch.cuda.current_stream(device))
            with torch.cuda.stream(beside):
                for _ in range(WARM_UPS):
                    self.model(kept)
            torch.cuda.current_stream(device).wait_stream(beside)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                logits = logits_of(self.model(kept))
        return Recording(graph, kept, logits)
