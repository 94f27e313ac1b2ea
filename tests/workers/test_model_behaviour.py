"""What a model does, by running it: what is harmless is said, each fault refused with its cause and what to write."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from heatlas.errors import ModelError
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.behaviour import plain_module, refuse_blocked_gradients
from heatlas.workers.models.checks import class_count
from heatlas.workers.models.load import ModelSpec, load_model
from torch import Tensor, nn
from torch.nn import functional

from ..support.classifier_nets import SIZE, Net, adapted, images


class Neighbours(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.norm(self.low(x)).relu()).relu().mean((2, 3)))


class OneByOne(Net):
    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.low(x).relu()).relu().mean((2, 3)).view(1, 8))


@pytest.mark.check(
    "model", "dropout that stays on, batch statistics, neighbours in the batch, a fixed batch size", "refused"
)
@pytest.mark.parametrize(
    ("net", "text"),
    [
        (Net(start=lambda x: functional.dropout(x, 0.5)), "another output each time for the same image"),
        (Neighbours(), "depends on its neighbours in the batch"),
        (Net(start=lambda x: x - x.mean(0, keepdim=True)), "depends on its neighbours in the batch"),
        (OneByOne(), "fails on 3 at once.*flatten"),
    ],
    ids=["dropout", "batch statistics", "batch mean", "view(1, ...)"],
)
def test_what_is_no_function_of_one_image_is_refused(net: nn.Module, text: str) -> None:
    with pytest.raises(ModelError, match=text):
        adapted(net)


@pytest.mark.check("model", "a model that writes into its input", "said")
@pytest.mark.parametrize(
    "write", [lambda x: x.sub_(0.5), lambda x: x.mul_(2), lambda x: x.clamp_(0.2)], ids=["sub_", "mul_", "clamp_"]
)
def test_a_model_that_writes_into_its_input_gets_a_copy(write: Callable[[Tensor], Tensor]) -> None:
    module, notes = adapted(Net(start=write))
    given = images()
    first = module(given)
    assert torch.equal(given, images())
    assert torch.equal(module(given), first)
    torch.testing.assert_close(first, Net().logits(write(images())))
    assert "handed a copy" in notes


@pytest.mark.check("model", "weights in half precision", "said")
@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_half_precision_is_computed_in_float32(kind: torch.dtype) -> None:
    module, notes = plain_module(Net().to(kind).eval())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert str(kind).removeprefix("torch.") in notes[0]
    module(images())


@pytest.mark.check("model", "a compiled model", "said")
def test_a_compiled_model_is_taken_apart() -> None:
    net = Net().eval()
    module, notes = plain_module(torch.compile(net))
    assert module is net
    assert "compiled" in notes[0]


def test_a_part_that_is_compiled_is_taken_apart() -> None:
    net = Net().eval()
    expected = net(images())
    original = net.low
    net.low = torch.compile(net.low)
    net.high.compile()
    module, notes = plain_module(net)
    assert module.low is original
    assert "compiled" in notes[0]
    torch.testing.assert_close(module(images()), expected)
    assert "_orig_mod" not in " ".join(module.state_dict())


class Frozen(Net):
    """A trunk without gradients, as in transfer learning."""

    def logits(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            x = self.low(x).relu()
        return self.head(self.high(x).relu().mean((2, 3)))


class Detached(Net):
    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.low(x).relu().detach()).relu().mean((2, 3)))


@pytest.mark.check("model", "`no_grad` or `detach` inside the trunk", "refused")
@pytest.mark.parametrize("net", [Frozen(), Detached()], ids=["no_grad", "detach"])
def test_a_layer_that_no_gradient_reaches_is_named(net: nn.Module) -> None:
    with pytest.raises(ModelError, match=r"reaches low: .*no_grad"):
        refuse_blocked_gradients(net.eval(), ["low", "high"], SIZE, "net")
    refuse_blocked_gradients(Net().eval(), ["low", "high"], SIZE, "net")


class Inference(Net):
    def logits(self, x: Tensor) -> Tensor:
        with torch.inference_mode():
            x = self.low(x).relu()
        return self.head(self.high(x).relu().mean((2, 3)))


@pytest.mark.check("model", "`inference_mode` inside the trunk", "refused")
def test_inference_mode_is_named() -> None:
    with pytest.raises(ModelError, match=r"torch.inference_mode\(\).*--method rise"):
        refuse_blocked_gradients(Inference().eval(), ["low", "high"], SIZE, "net")


def test_frozen_weights_alone_block_nothing() -> None:
    refuse_blocked_gradients(Net().requires_grad_(False).eval(), ["low", "high"], SIZE, "net")


class TwoInputs(Net):
    def forward(self, image: Tensor, age: Tensor) -> Tensor:
        return self.logits(image) + age


class OtherDevice(Net):
    def forward(self, image: Tensor) -> Tensor:
        raise RuntimeError(
            "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!"
        )


class OwnFault(Net):
    def forward(self, image: Tensor) -> Tensor:
        return {}["labels"]


class MixedFormats(Net):
    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image).double() @ torch.ones(4, 3)


class OtherSize(Net):
    def forward(self, image: Tensor) -> Tensor:
        return image.reshape(1, 3 * 7 * 7) @ torch.ones(3 * 7 * 7, 3)


class ChannelsLast(Net):
    def forward(self, image: Tensor) -> Tensor:
        return self.logits(image.permute(0, 3, 1, 2))


class Bytes(Net):
    def forward(self, image: Tensor) -> Tensor:
        if image.dtype != torch.uint8:
            raise TypeError("expected images of uint8")
        return self.logits(image / 255)


class TrainingNorm(Net):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(4)

    def train(self, mode: bool = True) -> TrainingNorm:
        return super().train(True)

    def forward(self, image: Tensor) -> Tensor:
        return self.norm(self.logits(image))


class Pair(Net):
    def forward(self, image: Tensor) -> dict[str, Tensor]:
        return {"logits": self.logits(image), "features": image}


@pytest.mark.check(
    "model", "two inputs, a device of its own, mixed number formats, another size, a fault of its own", "refused"
)
@pytest.mark.parametrize(
    ("net", "text"),
    [
        (TwoInputs(), "hands a model the image alone. Give the others in an adapter: class Adapter(nn.Module): "),
        (OtherDevice(), "do not name a device in its code"),
        (OwnFault(), "Its own code fails (KeyError)"),
        (MixedFormats(), "return model.float() from the factory"),
        (OtherSize(), "Set preprocess.size (and, for other channels"),
        (ChannelsLast(), "It takes (batch, height, width, channel): class Adapter(nn.Module): "),
        (Bytes(), "hands a model normalised float32, no bytes"),
        (TrainingNorm(), "A batch norm stays in training mode"),
        (Pair(), "return self.model(image)['logits']"),
        (Net(lambda x: (x, x)), "return self.model(image)[0]"),
    ],
    ids=["two inputs", "device", "own fault", "formats", "size", "channels last", "bytes", "training", "dict", "tuple"],
)
def test_a_model_that_does_not_run_is_told_its_cause(net: nn.Module, text: str) -> None:
    with pytest.raises(ModelError) as caught:
        class_count(net.eval(), Preprocess(size=(32, 32)), "net")
    assert text in str(caught.value)
    assert ("preprocess.size" in str(caught.value)) == isinstance(net, OtherSize), "advised for errors of shape alone"


@pytest.mark.check("input", "`transform_input` of Inception and GoogLeNet", "said")
def test_networks_that_normalise_their_input_themselves_say_so(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    model = torchvision.models.googlenet(weights=None, init_weights=False, aux_logits=False, num_classes=3)
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    loaded = load_model(ModelSpec(spec=f"torchvision:googlenet@{tmp_path}/weights.pth"))
    assert any("transform_input" in note for note in loaded.notes)
