"""The last layer of a classifier: where it is, and fitting another one to its features."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ...errors import ModelError

STEPS = 200


def find_head(model: nn.Module, images: Float[Tensor, "image channel height width"]) -> nn.Linear:
    """The linear layer whose output the model returns.

    Args:
        model: A classifier, in eval mode.
        images: Some inputs.

    Raises:
        ModelError: If there is none, so that its last layer cannot be replaced.
    """
    calls: list[tuple[nn.Linear, Tensor]] = []

    def note(module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear) and given[0].ndim == 2:
            calls.append((module, output.detach().clone()))

    hooks = [layer.register_forward_hook(note) for layer in model.modules() if isinstance(layer, nn.Linear)]
    try:
        with torch.no_grad():
            logits = model(images)
    finally:
        for hook in hooks:
            hook.remove()
    heads = [layer for layer, output in calls if output.shape == logits.shape and torch.equal(output, logits)]
    if not heads:
        raise ModelError(
            "the model does not return the output of a linear layer, so its last layer cannot be replaced; use a recipe that trains "
            "(patchmix, rrr, relabel, drop)"
        )
    return heads[-1]


@torch.no_grad()
def head_features(
    model: nn.Module, head: nn.Linear, images: Float[Tensor, "image channel height width"], batch: int = 64
) -> Float[Tensor, "image feature"]:
    """What the head is given, float32, on the CPU."""
    device = head.weight.device
    kept: list[Tensor] = []
    hook = head.register_forward_hook(lambda module, given, output: kept.append(given[0].detach().float().cpu()))
    try:
        for part in images.split(batch):
            model(part.to(device))
    finally:
        hook.remove()
    return torch.cat(kept) if kept else torch.empty(0, head.in_features)


def fit_head(
    features: Float[Tensor, "image feature"], labels: Int[Tensor, " image"], classes: int, l2: float
) -> tuple[Float[Tensor, "class feature"], Float[Tensor, " class"]]:
    """Multinomial logistic regression on standardised features, folded back into weight and bias for the features as they are.

    Args:
        features: At least one row.
        labels: Class indices.
        classes: How many there are.
        l2: Half its multiple of the squared weights is added to the mean cross-entropy; above 0.
    """
    values = features.double()
    mean, spread = values.mean(dim=0), values.std(dim=0, correction=0).clamp(min=1e-6)
    scaled = (values - mean) / spread
    weight = torch.zeros(classes, features.shape[1], dtype=torch.double, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.double, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=STEPS, line_search_fn="strong_wolfe", tolerance_grad=1e-7)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(scaled @ weight.T + bias, labels) + l2 / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.inference_mode(False), torch.enable_grad():
        optimizer.step(loss)
    with torch.no_grad():
        folded = weight / spread
        return folded.float(), (bias - folded @ mean).float()


def projected_head(
    weight: Float[Tensor, "class feature"],
    bias: Float[Tensor, " class"],
    directions: Float[Tensor, "direction feature"],
    reference: Float[Tensor, " feature"],
) -> tuple[Float[Tensor, "class feature"], Float[Tensor, " class"]]:
    """The head of features x - V (V'x - V'z): projective class artifact compensation (P-ClArC) as another linear layer.

    Source: Anders et al., Finding and removing Clever Hans, Information Fusion 2022, section 3.2.

    Args:
        weight: Of the head.
        bias: Of the head.
        directions: Those along which the mark moves features; made orthonormal here.
        reference: z, what the features have along them afterwards: the mean without the mark.
    """
    basis = torch.linalg.qr(directions.double().T).Q
    along = weight.double() @ basis
    return (weight - along @ basis.T).float(), (bias + along @ (basis.T @ reference.double())).float()


def main_directions(differences: Float[Tensor, "pair feature"], count: int) -> Float[Tensor, "direction feature"]:
    """The mean difference and, beyond it, the main directions of what it leaves; each of length 1.

    Args:
        differences: Features with the mark minus those without it.
        count: How many, at least 1; fewer where there are fewer pairs.
    """
    mean = F.normalize(differences.double().mean(dim=0), dim=0)
    rest = differences.double() - (differences.double() @ mean)[:, None] * mean
    others = torch.linalg.svd(rest, full_matrices=False).Vh[: max(0, min(count, len(differences)) - 1)]
    return torch.cat([mean[None], others]).float()


def component_direction(
    parts: Float[Tensor, "image feature"], contributions: Float[Tensor, " image"]
) -> Float[Tensor, " feature"]:
    """The direction of length 1 among a class's weighted features along which they vary most with given contributions.

    For the model whose principal component made the contributions it is that component; for another one it is the same cue in its features.
    Source: Neuhaus et al., Spurious Features Everywhere, ICCV 2023, section 5.

    Args:
        parts: Features times the class's weights.
        contributions: Of a component to the class's logit, of the same images.
    """
    values, alphas = parts.double(), contributions.double()
    return F.normalize((alphas - alphas.mean()) @ (values - values.mean(dim=0)), dim=0).float()


def head_without_components(
    weight: Float[Tensor, " feature"],
    directions: Float[Tensor, "direction feature"],
    levels: Float[Tensor, "direction feature"],
) -> tuple[Float[Tensor, " feature"], Float[Tensor, ""]]:
    """Weights of a class, and what to add to its bias, so that its logit no longer moves along directions of its weighted features.

    With p = w * x the logit sum(p) + b becomes sum(p - V V'p) + V'1 . c + b: linear, where SpuFix (Neuhaus et al., ICCV 2023) takes away
    what exceeds the mean, max(0, .), and so is no layer.

    Args:
        weight: Of the class.
        directions: Made orthonormal here.
        levels: Weighted features at which each direction is held.
    """
    basis = torch.linalg.qr(directions.double().T).Q
    # the level along each direction given, in terms of the orthonormal ones
    along = torch.linalg.lstsq(directions.double() @ basis, (directions.double() * levels.double()).sum(dim=1)).solution
    lost = basis @ basis.sum(dim=0)
    return (weight.double() * (1 - lost)).float(), (along * basis.sum(dim=0)).sum().float()
