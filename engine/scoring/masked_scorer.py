"""The one place where masked forwards happen, for maps and for metrics alike.

Work arrives as jobs (so many masked variants of one image for one target). Variants of all jobs in flight fill batches of a
fixed size, across the borders of layers and images, so that only the very last batch of a run is short, and that one is padded:
every forward has the same shape, and a variant's score does not depend on what else is in the batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of
from ..requests import Job
from ..time_spent import WorkMeter
from .fast_forward import ScoringForward
from .memory_errors import is_out_of_memory
from .object_scenes import object_scene
from .precision import pass_precision
from .scoring_options import Scoring

CPU_ROWS = 16
"""Rows of a forward on a CPU, where more are no faster: of the last batch only forwards that hold something are made."""


class Scorer:
    """Fills fixed-size batches with the variants of any number of jobs and scores them.

    A batch is one forward on an accelerator, and on a CPU several of `CPU_ROWS` rows: always of the same shape, so that a score does
    not depend on what else is scored.

    Args:
        model: Classifier of `(batch, channel, height, width)`; used in eval mode and given back as it was.
        options: Its batch is halved for good when the device runs out of memory. Scores are float32 whatever the precision.
    """

    def __init__(self, model: nn.Module, options: Scoring):
        self.model = model
        self.forward = ScoringForward(model, options.forward)
        self.confidence = options.confidence
        self.batch_size = options.batch_size
        self.micro_batch = options.batch_size
        self.precision = options.precision
        self.padded = 0
        """Rows so far that were computed and held nothing."""
        self.meter = WorkMeter()
        """Charged with the forwards."""
        self._inputs: Tensor | None = None
        self._targets: Tensor | None = None
        self._scenes: Tensor | None = None
        self._known: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._filled = 0
        self._segments: list[tuple[Job, int, int, int]] = []

    def submit(self, *jobs: Job, like: Tensor) -> None:
        """Queue jobs and run every batch that becomes full.

        Args:
            like: The network input `(channel, height, width)` whose variants the jobs make: tells shape, dtype, device, and the
                scene where the score compares with one.
        """
        scene = self.scene_of(like)
        inputs, targets, scenes = self._buffers(like, scene)
        for job in jobs:
            job.scores = torch.empty(job.count, dtype=torch.float64 if like.dtype == torch.float64 else torch.float32,
                                     device=like.device)  # fmt: skip
            job.waiting = job.count
        for job in jobs:
            start = 0
            while start < job.count:
                begin = self._filled
                stop = min(len(inputs), begin + job.count - start)
                with torch.no_grad():
                    job.fill(start, inputs[begin:stop])
                    targets[begin:stop] = job.target
                    if scenes is not None and scene is not None:
                        scenes[begin:stop] = object_scene(scene, job.target)
                self._segments.append((job, start, begin, stop))
                self._filled = stop
                start += stop - begin
                if stop == len(inputs):
                    self.flush()

    def flush(self) -> None:
        """Score what is queued, the last forward padded; afterwards every submitted job is done."""
        if not self._segments or self._inputs is None or self._targets is None:
            return
        segments, filled, self._segments, self._filled = self._segments, self._filled, [], 0
        with self.meter.at("forwards"):
            scores = self._forward(self._inputs, self._targets, self._scenes, filled)
        self.padded += len(scores) - filled
        self.meter.padded += len(scores) - filled
        for job, start, begin, stop in segments:
            job.scores[start : start + stop - begin] = scores[begin:stop]
            job.waiting -= stop - begin

    def reset(self) -> None:
        """Forget everything queued; jobs in flight will never be done."""
        self._segments, self._filled = [], 0

    def warm_up(self, like: Tensor, *, full: bool = False) -> int:
        """Score nothing, so that compiling, and what cannot be compiled, is over before the first image.

        Args:
            like: As for `submit`.
            full: A whole batch, where one forward is less.

        Returns:
            The rows that were computed.
        """
        inputs, targets, scenes = self._buffers(like, self.scene_of(like))
        return len(self._forward(inputs, targets, scenes, len(inputs) if full else 1))

    def remember(self, image: Tensor, output: Tensor) -> None:
        """Take note of the model's output for an unmasked image, so that its scene needs no further forward.

        Args:
            image: As it will be given as `like`: the same object.
            output: Without gradients, for this one image.
        """
        if self.confidence.scene is not None:
            self._known[image] = self.confidence.scene(output)

    def take_scene(self, image: Tensor, scene: Tensor) -> None:
        """As `remember`, with the scene itself: `(height, width)`, int16."""
        self._known[image] = scene

    def scene_of(self, image: Tensor) -> Tensor | None:
        """The class of every pixel of an unmasked image `(height, width)`; None where the score compares with none."""
        if self.confidence.scene is None:
            return None
        if image not in self._known:
            with in_eval_mode(self.model), torch.no_grad():
                self.remember(image, logits_of(self.model(image[None])))
        return self._known[image]

    def _buffers(self, like: Tensor, scene: Tensor | None) -> tuple[Tensor, Tensor, Tensor | None]:
        rows = self._forward_rows(like.device)
        shape = (-(-self.batch_size // rows) * rows, *like.shape)
        if (
            self._inputs is None
            or self._targets is None
            or (self._inputs.shape, self._inputs.device) != (shape, like.device)
        ):
            self.flush()
            self._inputs = self._targets = self._scenes = None
            try:
                inputs = torch.empty(
                    shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last
                ).zero_()
                self._targets = torch.zeros(shape[0], dtype=torch.long, device=like.device)
                self._scenes = None if scene is None else scene.new_zeros(shape[0], *scene.shape)
                self._inputs = inputs  # last: without it nothing of this stands
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch_size == 1:
                    raise
                self.batch_size = (self.batch_size + 1) // 2
                self.micro_batch = min(self.micro_batch, self.batch_size)
            if self._inputs is None or self._targets is None:
                return self._buffers(like, scene)
        return self._inputs, self._targets, self._scenes

    def _forward_rows(self, device: torch.device) -> int:
        return min(CPU_ROWS, self.micro_batch) if device.type == "cpu" else self.micro_batch

    def _forward(self, inputs: Tensor, targets: Tensor, scenes: Tensor | None, filled: int) -> Tensor:
        while True:
            rows = self._forward_rows(inputs.device)
            try:
                with in_eval_mode(self.model), torch.inference_mode(), pass_precision(self.precision, inputs.device):
                    return torch.cat([
                        self.confidence.value(
                            logits_of(self.forward(inputs[some])), targets[some], None if scenes is None else scenes[some]
                        )
                        for some in (slice(start, start + rows) for start in range(0, filled, rows))
                    ])  # fmt: skip
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.micro_batch == 1:
                    raise
                self.micro_batch = (self.micro_batch + 1) // 2
            if inputs.device.type == "cuda":
                torch.cuda.empty_cache()
