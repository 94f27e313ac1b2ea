"""The size of the gradient of the target's logit at every pixel (Simonyan et al., ICLR workshops 2014).

Torch comes from `lazy_torch`, so that `heatlas explain --help`, which reads the settings below, need not wait for it.
"""

from heatlas.engine.lazy_torch import torch
from heatlas.engine.methods.batch_method import BatchMethod, MethodMaps
from heatlas.engine.methods.protocol import Cost, method, require, setting


@method(
    name="plain_gradient",
    summary="size of the logit's gradient at every pixel",
    source="Simonyan et al., ICLR workshops 2014",
    architecture="any",
    cost=lambda settings: Cost(1, 1),
    gradients=True,
    resolution="input",
    extras={"gradient_norm": "length of the whole gradient"},
)
class PlainGradient(BatchMethod):
    power: float = setting(default=1.0, text="exponent of the gradient's size, above 0")

    def check(self) -> None:
        require(self.power > 0, f"power must be above 0, got {self.power}")

    def maps(self, images, targets, seeds):
        with torch.enable_grad():
            images = images.detach().requires_grad_()
            chosen = self.model(images).gather(1, targets[:, None]).sum()
            gradient = torch.autograd.grad(chosen, images)[0]
        size = gradient.abs().amax(dim=1).float() ** self.power
        maps = size / size.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)
        return MethodMaps(maps, Cost(1, 1), {"gradient_norm": gradient.float().flatten(1).norm(dim=1)})
