"""T-TAME: an attention head, trained once for a frozen classifier, gives the map of any class in one forward pass.

Ntrougkas, Gkalelis, Mezaris, IEEE Access 2024 (and TAME, ICIP 2022). What differs from the release: the variation is a mean over maps, so
that its weight does not change with the batch size; branches are upsampled in one step, to at most 56 cells; images are those of the
model's own preprocessing, without random crops or flips. A student (`heatlas train ttame --teacher STORE`) and the row of weights that
classes share where there are few images of each are ours.
"""

from __future__ import annotations

from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING

from jaxtyping import Float

from ...errors import ModelError
from ..explainer import Explainer, class_tensor
from ..explanation import LOGIT_FACTS, Explanation, Logits, logit_facts, map_facts, predicted
from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import wide
from ..lazy_torch import torch
from ..requests import Steps
from ..transfer import to_host
from .normalise import spread, upsampled
from .protocol import Cost, method

if TYPE_CHECKING:
    from ..training.auxiliary import AuxiliaryReader
    from ..training.feature_reader import FeatureReader
    from ..training.trained_head import TrainedHead

    Reader = FeatureReader | AuxiliaryReader
else:
    Reader = object


@method(
    name="ttame",
    summary="a trained attention head: one forward pass, for any class; needs heatlas train",
    source="Ntrougkas et al., IEEE Access 2024",
    status="code",
    completed="variation as a mean; student of a teacher's maps; shared weights for rare classes",
    architecture="any",
    cost=lambda settings: Cost(1),
    trained=True,
    images=32,
)
class TTAME(Explainer):
    """T-TAME (Ntrougkas et al., IEEE Access 2024)."""

    trained: TrainedHead | None = field(default=None)
    """From `heatlas train`; nothing can be explained without."""

    @cached_property
    def _readers(self) -> dict[torch.Size, Reader]:
        return {}

    def reader_of(self, image: torch.Tensor) -> Reader:
        """What gives logits and features of images like this."""
        from ..training.feature_reader import FeatureReader

        return FeatureReader(self.model, image, None if self.trained is None else self.trained.layers)

    def explain_image(
        self, image: Float[torch.Tensor, "channel height width"], target: int | None, seed: int
    ) -> Steps[Explanation]:
        """One forward pass gives logits, features, and with them the map of the class."""
        return (yield self.rows_of(self._explained, image, target, seed))

    def _explained(self, images: torch.Tensor, targets: list[int | None], seeds: list[int]) -> list[Explanation]:
        if self.trained is None:
            name = self.declared.name
            raise ModelError(
                f"method {name} needs a trained explainer: make one with `heatlas train {name}`, name it with --explainer"
            )
        with in_eval_mode(self.model), torch.inference_mode(False), torch.no_grad():
            if images.shape[1:] not in self._readers:
                self._readers[images.shape[1:]] = self.reader_of(images[0])
            with self.own_precision(images.device), self.listening():
                logits, features = self._readers[images.shape[1:]](images)
            logits, asked = wide(logits), class_tensor(targets, images.device)
            chosen = torch.where(asked < 0, predicted(logits, self.confidence), asked)
            values = self.trained.values(features, chosen)
            maps = values if self.trained.activation == "sigmoid" else spread(values)
            maps = upsampled(maps, (images.shape[2], images.shape[3]))
            facts = to_host(torch.cat([logit_facts(logits, asked, self.confidence), map_facts(maps)], dim=1))
        wholes = self.whole_images(logits)
        return [
            Logits.read(row, target, wholes[place]).explanation(maps[place], facts=row[LOGIT_FACTS:])
            for place, (row, target) in enumerate(zip(facts, targets, strict=True))
        ]
