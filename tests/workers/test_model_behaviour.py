"""What a model is, by running it: each kind of output is read rightly and said, each fault refused with its cause."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from heatlas.errors import ModelError
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.models.behaviour import adapt_classifier, plain_module, refuse_blocked_gradients
from heatlas.workers.models.checks import class_count
from heatlas.workers.models.load import ModelSpec, load_model
from torch import Tensor, nn
from torch.nn import functional

SIZE = Preprocess((16, 16), "squash")


class Net(nn.Module):
    """Two convolutions and a head; `end` makes of its logits what the model returns, `start` of its input what it sees."""

    def __init__(
        self,
        end: Callable[[Tensor], Tensor] = lambda x: x,
        classes: int = 4,
        start: Callable[[Tensor], Tensor] = lambda x: x,
    ):
        super().__init__()
        torch.manual_seed(1)
        self.low, self.high = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1, stride=2)
        self.head = nn.Linear(8, classes)
        self.end, self.start = end, start

    def logits(self, x: Tensor) -> Tensor:
        return self.head(self.high(self.low(x).relu()).relu().mean((2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.logits(self.start(x)))


def images(count: int = 5) -> Tensor:
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(7))


def adapted(net: nn.Module) -> tuple[nn.Module, str]:
    module, notes, _ = adapt_classifier(net.eval(), SIZE, "net")
    return module, " / ".join(notes)


def test_logits_are_left_alone() -> None:
    net = Net().eval()
    module, notes = adapted(net)
    assert module is net
    assert notes == ""


@pytest.mark.check("model", "softmax, log-softmax or `(batch, class, 1, 1)` at the end", "said")
@pytest.mark.parametrize(
    ("end", "note"),
    [
        (lambda x: x.softmax(1), "ends in a softmax"),
        (lambda x: x.log_softmax(1), "ends in a log-softmax"),
        (lambda x: x[..., None, None], "(batch, class, 1, 1)"),
    ],
    ids=["softmax", "log_softmax", "1x1"],
)
def test_the_same_confidence_whatever_the_last_layer_is(end: Callable[[Tensor], Tensor], note: str) -> None:
    module, notes = adapted(Net(end))
    expected = Net().logits(images()).softmax(1)
    torch.testing.assert_close(module(images()).softmax(1), expected)
    assert note in notes


@pytest.mark.check("model", "one logit", "said")
@pytest.mark.parametrize("end", [lambda x: x, lambda x: x[:, 0]], ids=["batch x 1", "batch"])
def test_one_logit_becomes_two_classes(end: Callable[[Tensor], Tensor]) -> None:
    module, notes = adapted(Net(end, classes=1))
    expected = torch.sigmoid(Net(classes=1).logits(images())[:, 0])
    torch.testing.assert_close(module(images()).softmax(1)[:, 1], expected)
    assert "class 1 against class 0" in notes


@pytest.mark.check(
    "model", "probabilities of a sigmoid at the end, of one output or several: their logits, multi-label", "said"
)
@pytest.mark.parametrize("end", [torch.sigmoid, lambda x: x.sigmoid()[..., None, None]], ids=["flat", "1x1"])
def test_probabilities_of_a_sigmoid_are_read_as_such(end: Callable[[Tensor], Tensor]) -> None:
    module, notes = adapted(Net(end))
    torch.testing.assert_close(module(images()), Net().logits(images()), atol=1e-4, rtol=1e-4)
    assert "ends in a sigmoid" in notes
    assert "multi-label" in notes


@pytest.mark.parametrize("end", [torch.sigmoid, lambda x: x.sigmoid().squeeze(1), lambda x: x.sigmoid().squeeze()])
def test_one_probability_becomes_two_classes(end: Callable[[Tensor], Tensor]) -> None:
    module, notes = adapted(Net(end, classes=1))
    expected = torch.sigmoid(Net(classes=1).logits(images())[:, 0])
    torch.testing.assert_close(module(images()).softmax(1)[:, 1], expected, atol=1e-5, rtol=1e-4)
    assert "that of class 1 against class 0; its logit is used" in notes


@pytest.mark.parametrize("end", [lambda x: x.relu(), lambda x: x.abs() / 100, lambda x: 1 / (1 + (-x).exp())])
def test_numbers_that_happen_to_lie_between_0_and_1_stay_logits_and_are_said(end: Callable[[Tensor], Tensor]) -> None:
    module, notes = adapted(Net(end))
    assert isinstance(module, Net)
    assert "if they are probabilities of a sigmoid" in notes


def test_a_scripted_model_that_ends_in_a_sigmoid() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Sigmoid())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.script(net)
    for module in (net, scripted):
        assert adapt_classifier(module.eval(), SIZE, "net")[2] == ("log_odds",)


class DenseNet(Net):
    """Gives every pixel its classes."""

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.high(self.low(x).relu()))


@pytest.mark.check("model", "softmax or log-softmax at the end of a dense model", "said")
@pytest.mark.parametrize(
    ("end", "note"),
    [(lambda x: x.softmax(1), "ends in a softmax"), (lambda x: x.log_softmax(1), "ends in a log-softmax")],
)
def test_dense_models_that_end_in_a_softmax(end: Callable[[Tensor], Tensor], note: str) -> None:
    module, notes = adapted(DenseNet(end))
    torch.testing.assert_close(module(images()).softmax(1), DenseNet()(images()).softmax(1))
    assert note in notes


@pytest.mark.check("model", "one output that is the same for every image; numbers that are no logits; a batch axis that is dropped", "refused")  # fmt: skip
def test_outputs_that_say_nothing_are_refused() -> None:
    with pytest.raises(ModelError, match="softmax over one output"):
        adapted(Net(lambda x: x.softmax(1), classes=1))
    for end, text in (
        (lambda x: x > 0, "numbers of the type torch.bool"),
        (lambda x: x.argmax(1), "numbers of the type torch.int64"),
        (lambda x: x.squeeze(), "drops the batch axis"),
    ):
        with pytest.raises(ModelError, match=text):
            class_count(Net(end).eval(), SIZE, "net")


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


MODULE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1))
"""


def test_a_loaded_model_is_adapted_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pooled_net.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    loaded = load_model(ModelSpec(spec="pooled_net:build", size=(16, 16)))
    assert (loaded.num_classes, loaded.dense) == (5, False)
    assert "5 classes of the whole image" in " ".join(loaded.notes)


@pytest.mark.check("model", "`problem_type` multi-label", "known")
def test_a_multi_label_model_of_hugging_face_has_sigmoid_confidence(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.ResNetConfig(
        embedding_size=8,
        hidden_sizes=[8, 8],
        depths=[1, 1],
        num_labels=3,
        layer_type="basic",
        problem_type="multi_label_classification",
    )
    transformers.ResNetForImageClassification(config).save_pretrained(tmp_path / "net")
    assert load_model(ModelSpec(spec=f"hf:{tmp_path / 'net'}", size=(32, 32))).multi_label


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


class Dense(nn.Module):
    """One number per pixel; `end` makes of it what the model returns."""

    def __init__(self, end: Callable[[Tensor], Tensor] = lambda x: x, classes: int = 1):
        super().__init__()
        torch.manual_seed(2)
        self.conv, self.end = nn.Conv2d(3, classes, 3, padding=1), end

    def forward(self, x: Tensor) -> Tensor:
        return self.end(5 * self.conv(x))


@pytest.mark.parametrize(
    ("end", "note"),
    [
        (lambda x: x, "one number per pixel, which is read as the logit"),
        (lambda x: x.sigmoid(), "taken for probabilities of a sigmoid"),
    ],
    ids=["logit", "sigmoid"],
)
def test_one_number_per_pixel_becomes_background_and_class(end: Callable[[Tensor], Tensor], note: str) -> None:
    module, notes = adapted(Dense(end))
    assert note in notes
    assert class_count(module, SIZE, "net") == (2, True)
    plain = Dense().eval()(images())[:, 0]
    torch.testing.assert_close(module(images()).softmax(1)[:, 1], plain.sigmoid(), atol=1e-4, rtol=0)
    assert torch.equal(module(images()).argmax(1) == 1, plain > 0)


@pytest.mark.parametrize("key", ["out", "logits"])
def test_a_dense_model_may_name_its_logits(key: str) -> None:
    assert class_count(Dense(lambda x: {key: x, "aux": x[:, :2]}, classes=4).eval(), SIZE, "net") == (4, True)
    for end in (lambda x: {"masks": x}, lambda x: (x, x)):
        with pytest.raises(ModelError, match="under the key 'out' or 'logits'"):
            class_count(Dense(end, classes=4).eval(), SIZE, "net")
    with pytest.raises(ModelError, match="where the model returns the tensor alone"):
        class_count(Dense(lambda x: {key: x}).eval(), SIZE, "net")
