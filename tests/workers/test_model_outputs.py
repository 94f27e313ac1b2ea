"""What a model returns, by running it: each kind of output is read as the logits that it stands for, and said."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from heatlas.errors import ModelError
from heatlas.workers.models.behaviour import adapt_classifier
from heatlas.workers.models.checks import class_count
from heatlas.workers.models.load import ModelSpec, load_model
from torch import Tensor, nn

from ..support.classifier_nets import SIZE, Net, adapted, images


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
