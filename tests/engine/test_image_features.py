"""Features of a classifier: what its last linear layer is given, the same with the head and without, and what is no feature."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from heatlas.engine.features.image_features import features_of
from heatlas.errors import ModelError
from torch import Tensor, nn
from torch.nn.functional import normalize
from torchvision.models import mobilenet_v3_small

from ..support.feature_models import ENTRIES, SIZE, classifier, headless, with_head
from ..support.oracle_nets import images_like


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(5, 3, SIZE, seed=1)


class Vgg(nn.Module):
    """Linear layers and activations that work in place, in front of the last one."""

    def __init__(self) -> None:
        super().__init__()
        active = nn.ReLU(inplace=True)
        self.features = nn.Sequential(nn.Conv2d(3, 4, 3), active, nn.AdaptiveAvgPool2d(2), nn.Flatten())
        self.classifier = nn.Sequential(nn.Linear(16, 24), active, nn.Dropout(), nn.Linear(24, 24), active, nn.Dropout(), nn.Linear(24, 7))  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(self.features(images))


class Excited(nn.Module):
    """Squeeze and excitation by linear layers, in front of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.fc = nn.Conv2d(3, 12, 3), nn.Linear(12, 12), nn.Linear(12, 12)

    def forward(self, images: Tensor) -> Tensor:
        result = self.conv(images).relu()
        return self.fc((result * self.gate(result.mean((2, 3))).sigmoid()[:, :, None, None]).mean((2, 3)))


HEADS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "vit": (with_head, "heads"),
    "mobilenet": (lambda: mobilenet_v3_small(num_classes=1024), "classifier.3"),
    "vgg": (Vgg, "classifier.6"),
    "excited": (Excited, "fc"),
}


@pytest.mark.parametrize(("build", "head"), HEADS.values(), ids=list(HEADS))
def test_features_are_the_same_with_the_head_and_without(build: Callable[[], nn.Module], head: str) -> None:
    """Classes may be as many as features, so that a shape says nothing."""
    torch.manual_seed(0)
    model = build().eval()
    bare = copy.deepcopy(model)
    bare.set_submodule(head, nn.Identity())
    images = images_like(2, 3, SIZE, seed=1)
    with torch.no_grad():
        expected = bare(images)
        for entry in (model, bare):
            assert torch.equal(features_of(entry, images), expected)
            assert torch.equal(features_of(entry, images, refuse_scores=True), expected)
            with torch.inference_mode():
                assert torch.equal(features_of(entry, images), expected)
    assert all(not module._forward_hooks for module in (*model.modules(), *bare.modules()))


def test_features_of_a_model_that_had_no_head() -> None:
    images = images_like(2, 3, SIZE, seed=1)
    with torch.no_grad():
        assert torch.equal(features_of(headless(), images), headless()(images))


@pytest.mark.parametrize(
    "wrap", [lambda x: x.view(len(x), -1), lambda x: (x, 2 * x), lambda x: {"aux": 2 * x, "logits": x}]
)
def test_logits_may_be_wrapped(wrap: Callable[[Tensor], object]) -> None:
    class Wrapped(Vgg):
        def forward(self, images: Tensor) -> object:
            return wrap(super().forward(images))

    torch.manual_seed(0)
    model = Wrapped().eval()
    assert features_of(model, images_like(2, 3, SIZE, seed=1), refuse_scores=True).shape == (2, 24)


@pytest.mark.unchecked_types
@pytest.mark.parametrize("head", ["classifier.6", ""])
def test_compiled_features_are_the_same(head: str) -> None:
    torch.manual_seed(0)
    model = Vgg().eval()
    if not head:
        model.classifier[6] = nn.Identity()
    whole = classifier(model)
    compiled = torch.compile(whole, backend="eager", dynamic=False)
    images = images_like(2, 3, SIZE, seed=1)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            torch.testing.assert_close(compiled(images), whole(images))


AFTER: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(dim=1),
    "log_softmax": lambda x: x.log_softmax(dim=1),
    "sigmoid": lambda x: x.sigmoid(),
    "scale": lambda x: 30 * x,
    "scale in place": lambda x: x.mul_(30),
}


@pytest.mark.parametrize("after", AFTER.values(), ids=list(AFTER))
def test_scores_made_of_logits_are_no_features(after: Callable[[Tensor], Tensor]) -> None:
    class Scores(Vgg):
        def forward(self, images: Tensor) -> Tensor:
            return after(super().forward(images))

    torch.manual_seed(0)
    with pytest.raises(
        ModelError, match="returns not features but scores that it makes of its last linear layer's output"
    ):
        classifier(Scores().eval())


@pytest.mark.parametrize("after", [lambda x: normalize(x, dim=1), lambda x: x.tanh(), lambda x: x.relu_()])
def test_what_follows_a_projection_is_a_feature(after: Callable[[Tensor], Tensor]) -> None:
    class Projected(Vgg):
        def forward(self, images: Tensor) -> Tensor:
            return after(super().forward(images))

    torch.manual_seed(0)
    assert classifier(Projected().eval()).bank.features.shape == (ENTRIES, 7)
