"""One training step of an attention head over a frozen classifier: images in, loss out."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..layers.eval_mode import in_eval_mode
from ..layers.outputs import logits_of
from .attention_head import AttentionHead
from .auxiliary import AuxiliaryReader
from .feature_reader import FeatureReader
from .head_settings import HeadSettings
from .mask_losses import MaskLossWeights, fill_of, imitation_loss, mask_loss, masked_images


class HeadStep(nn.Module):
    """The loss of a batch as a function of the head's weights, for an optimiser or for torch's data-parallel wrapper.

    The classifier is no part of its parameters, runs in eval mode and is left bit-identical, batch norms' statistics included.

    Args:
        head: What is trained.
        reader: Over the classifier, or over it and an auxiliary network.
        settings: Weights of the losses.
        black: A black pixel as network input, one number per channel.
    """

    def __init__(
        self, head: AttentionHead, reader: FeatureReader | AuxiliaryReader, settings: HeadSettings, black: Tensor
    ):
        super().__init__()
        self.head = head
        self._outside: tuple[FeatureReader | AuxiliaryReader, Tensor] = (reader, black)
        self._settings = settings
        self._weights = MaskLossWeights(
            settings.cross_entropy, settings.area, settings.variation, settings.power, settings.border
        )

    def forward(
        self,
        images: Float[Tensor, "batch channel height width"],
        targets: Int[Tensor, " batch"] | None = None,
        teacher: Float[Tensor, "batch h w"] | None = None,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms, unweighted.

        Args:
            images: Network input.
            targets: Classes of the teacher's maps; the predicted ones without a teacher.
            teacher: Another method's maps, which the head imitates; without them it learns from the classifier.
        """
        reader, black = self._outside
        logits, features = reader(images)
        if teacher is not None and targets is not None:
            loss = imitation_loss(self.head.rows(features, targets), teacher)
            return loss, {"imitation": loss.detach()}
        targets = logits.argmax(dim=1)
        crossed = self.head.cross_rows(features, targets).sigmoid()
        own = crossed[torch.arange(len(images)), torch.arange(len(images))]
        masked = masked_images(images, own, fill_of(images, self._settings.fill, black))  # pyright: ignore[reportArgumentType]
        with in_eval_mode(reader.model):
            masked_logits = logits_of(reader.model(masked))
        seen = logits.gather(1, targets[:, None]).squeeze(1) > 0 if self._settings.confidence == "sigmoid" else None
        loss = mask_loss(own, crossed, masked_logits, targets, self._weights, seen)
        terms = {"cross_entropy": loss.cross_entropy, "area": loss.area, "variation": loss.variation}
        return loss.total, terms


def frozen(model: nn.Module) -> nn.Module:
    """The model without gradients of its own; those of its input still flow."""
    return model.eval().requires_grad_(False)


def head_optimiser(
    head: nn.Module, settings: HeadSettings, steps: int, *, release: str = "ttame"
) -> tuple[torch.optim.Optimizer, Any]:
    """The optimiser and its one-cycle schedule.

    Args:
        head: What is trained.
        settings: Rates.
        steps: Of the whole training.
        release: Whose habits: T-TAME's decays everything but biases, P-TAME's decays these, too, and its AdamW is AMSGrad's.
    """
    biases = [parameter for name, parameter in head.named_parameters() if name.rpartition(".")[2] == "bias"]
    others = [parameter for name, parameter in head.named_parameters() if name.rpartition(".")[2] != "bias"]
    groups = [
        {"params": others, "weight_decay": settings.weight_decay},
        {"params": biases, "weight_decay": settings.weight_decay if release == "ptame" else 0.0},
    ]
    rate = settings.learning_rate
    optimiser: torch.optim.Optimizer = (
        torch.optim.SGD(groups, lr=rate, momentum=0.9, nesterov=True)
        if settings.optimiser == "sgd"
        else torch.optim.AdamW(groups, lr=rate, amsgrad=release == "ptame")
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=max(steps, 2))
    return optimiser, schedule
