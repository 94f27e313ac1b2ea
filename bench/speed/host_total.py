"""CPU milliseconds of an image beside the network's forwards, all stages together: a program that also runs in an earlier tree of heatlas.

    PYTHONPATH=PARENT_OF_THE_TREE python bench/speed/host_total.py IMAGES

Prints a list in JSON, one number for each of `CASES`. `python -m bench host_work --before COMMIT` runs it in both trees.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import torch
from torch import Tensor, nn

SIDE, CLASSES = 224, 1000
CHANNELS = (16, 24, 32, 96, 160)
CASES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("grad_cam", "", {}), ("grad_cam", "standard", {}), ("rise", "", {"masks": 200}), ("sise", "", {}), ("sise", "paper", {}),
    ("sise", "", {"budget": "balanced"}), ("sise", "", {"budget": "fast"}),
)  # fmt: skip


class FreeNetwork(nn.Module):
    """Five blocks of a pooling and a convolution of single pixels, and a linear head: 1 % of MobileNetV2's products."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        pairs = zip((3, *CHANNELS), CHANNELS, strict=False)
        self.blocks = nn.Sequential(
            *(nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(*pair, kernel_size=1), nn.ReLU()) for pair in pairs)
        )
        self.head = nn.Linear(CHANNELS[-1], CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x).mean((2, 3)))


def random_images(count: int) -> Tensor:
    """The same for every tree."""
    return torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def session_of(method: str, metrics: str, options: dict[str, Any], model: nn.Module) -> Any:
    """As a worker makes it, in the tree that is imported."""
    from heatlas.engine.methods import registry
    from heatlas.engine.metrics import spelt_out
    from heatlas.engine.scoring.scoring_options import Scoring
    from heatlas.engine.session import ExplainSession

    own = dict(options)
    scoring = Scoring(batch_size=64, **({"budget": own.pop("budget")} if "budget" in own else {}))
    make = getattr(registry, "make_explainer", None)
    if make is None:  # where it was in the first release
        from heatlas.engine.methods.build_explainer import make_explainer as make  # pyright: ignore[reportMissingImports]
    explainer = make(method, model, registry.find_method(method).settings(**own), scoring)
    return ExplainSession(explainer, spelt_out([metrics] if metrics else []))


def total_milliseconds(method: str, metrics: str, options: dict[str, Any], images: Tensor) -> float:
    """Of this process's CPUs, for each image."""
    model, forwards = FreeNetwork().eval(), [0.0]
    session = session_of(method, metrics, options, model)
    session.push(0, images[0])
    session.finish()

    def begin(module: nn.Module, given: Any) -> None:
        forwards[0] -= time.process_time()

    def end(module: nn.Module, given: Any, output: Any) -> None:
        forwards[0] += time.process_time()

    model.register_forward_pre_hook(begin)
    model.register_forward_hook(end)
    begun = time.process_time()
    for key, image in enumerate(images):
        session.push(key, image)
    session.finish()
    return 1000 * (time.process_time() - begun - forwards[0]) / len(images)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps([total_milliseconds(*case, random_images(int(sys.argv[1]))) for case in CASES]))
