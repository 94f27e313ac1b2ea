"""The size of the gradient of the target's logit at every pixel (Simonyan et al., ICLR workshops 2014)."""

import torch
from heatlas.engine.methods.protocol import Cost, MethodMaps, method

from .settings import GradientSettings


class PlainGradient:
    def __init__(self, model, settings):
        self.model, self.settings = model, settings

    def explain(self, images, targets, seeds):
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            chosen = self.model(images).gather(1, targets[:, None]).sum()
            gradient = torch.autograd.grad(chosen, images)[0]
        size = gradient.abs().amax(dim=1).float() ** self.settings.power
        maps = size / size.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
        return MethodMaps(maps, Cost(1, 1), {"gradient_norm": gradient.float().flatten(1).norm(dim=1)})


@method(
    name="plain_gradient",
    summary="size of the logit's gradient at every pixel",
    source="Simonyan et al., ICLR workshops 2014",
    architecture="any",
    settings=GradientSettings,
    cost=lambda settings: Cost(1, 1),
    gradients=True,
    resolution="input",
    extras={"gradient_norm": "length of the whole gradient"},
)
def build(model, settings):
    return PlainGradient(model, settings)
