"""What every registered method keeps to: one image or many, any order, a model left as it came, statuses, draws, passes, precision."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.explanation import Explanations
from heatlas.engine.layers.eval_mode import in_eval_mode
from heatlas.engine.method_fit import check_fit
from heatlas.engine.methods.batch_method import BatchMethod
from heatlas.engine.methods.registry import bind_method, entries, find_method, make_explainer, settings_class
from heatlas.engine.metrics import spelt_out
from heatlas.engine.metrics.ranking import spearman
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import ExplainSession
from heatlas.engine.training.attention_head import AttentionHead
from heatlas.engine.training.auxiliary import Auxiliary, AuxiliaryReader
from heatlas.engine.training.feature_reader import FeatureReader
from heatlas.engine.training.model_split import split_model
from heatlas.engine.training.part_network import PartNetwork
from heatlas.engine.training.trained_head import TrainedHead
from heatlas.engine.training.trained_parts import TrainedParts
from heatlas.errors import ModelError, SettingsError, TargetError
from torch import Tensor, nn
from torchvision.models import VisionTransformer

from ..support.oracle_nets import images_like

NAMES = list(entries())
SIZE = (24, 24)
CLASSES = 4
SHORT: dict[str, dict[str, Any]] = {
    "rise": {"masks": 60},
    "integrated_gradients": {"steps": 4},
    "occlusion": {"positions": 4},
    "bee": {"steps": 3, "draws": 1},
    "bee_select": {"steps": 3, "draws": 3, "metric": "drop_pct"},
    "feature_cam": {"edges": "sobel"},
    "expected_gradients": {"samples": 3},
    "lima": {"grid": 4, "pending": 3},
    "fovex": {"fixations": 2, "steps": 8, "step_size": 0.7},
    "consensus": {"of": ("grad_cam", "layer_cam", "occlusion")},
}
"""Settings that make a method cheap; every other has its defaults."""
DRAWN = [name for name in NAMES if find_method(name).stochastic]
PACKED = [name for name in NAMES if find_method(name).packed]
CLASS_BLIND = {"lafam"}
"""Their map is the same for every class: a baseline."""
CHAOTIC = {"fovex", "bee_select", "lima"}
"""A step follows the sign of a gradient, the best of several maps, or of several regions, so rounding leads elsewhere."""
CHOSEN_BY = {"bee_select": ("drop_pct", "increase", "average_gain_pct")}
"""Metrics that cannot evaluate a method's maps, because they choose them, with the settings here."""
NEEDS_A_FILE = {"feature_cam"}
"""With their defaults they ask for a file that heatlas does not bring."""
DRAWN_GRADIENTS = {"bee", "bee_select", "expected_gradients"}
"""Draws decide where gradients are taken: no gradient, no map."""


def cnn() -> nn.Module:
    torch.manual_seed(3)
    blocks: list[nn.Module] = []
    for before, after in ((3, 6), (6, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, CLASSES))
    nn.init.normal_(model[-1].weight)  # pyright: ignore[reportArgumentType]  (so that classes differ)
    return model.eval()


def transformer() -> nn.Module:
    torch.manual_seed(0)
    model = VisionTransformer(SIZE[0], 8, 2, 2, 16, 32, num_classes=CLASSES)
    nn.init.normal_(model.heads[0].weight)  # pyright: ignore[reportArgumentType]  (torchvision's starts at zero)
    return model.eval()


def model_for(name: str) -> nn.Module:
    return transformer() if find_method(name).architecture == "vit" else cnn()


def last_linear(model: nn.Module) -> nn.Linear:
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def bound(name: str, model: nn.Module, scoring: Scoring = Scoring(batch_size=16), **more: Any) -> Explainer:  # noqa: B008  (frozen)
    return trained(bind_method(name, model, scoring=scoring, **{**SHORT.get(name, {}), **more}))


def trained(explainer: Explainer) -> Explainer:
    """With a network of random weights, where the method needs a trained one."""
    if not explainer.declared.trained:
        return explainer
    return replace(explainer, trained=untrained(explainer.declared.name, explainer.model))  # pyright: ignore[reportCallIssue]


def untrained(name: str, model: nn.Module) -> TrainedHead | TrainedParts | None:
    """What `heatlas train` would have begun with; None for methods that need nothing."""
    if not find_method(name).trained:
        return None
    torch.manual_seed(5)
    with in_eval_mode(model):
        if name == "explainer_network":
            split = split_model(model, torch.zeros(3, *SIZE))
            network = PartNetwork(split)
            network.calibrate(split.read(images_like(5, 3, SIZE, seed=1))[0])
            return TrainedParts(network.state_dict(), split.layer, (2, 0, 1), (1.0, 1.0))
        auxiliary = Auxiliary(cnn(), torch.ones(3), torch.zeros(3)) if name == "ptame" else None
        example = torch.zeros(3, *SIZE)
        reader = FeatureReader(model, example) if auxiliary is None else AuxiliaryReader(model, auxiliary, example)
    head = AttentionHead(reader.channels, CLASSES).eval()
    return TrainedHead(head, reader.names, auxiliary=auxiliary)


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(5, 3, SIZE, seed=1)


@dataclass(frozen=True)
class Row:
    """One image's result, to be compared exactly."""

    map: Tensor
    rest: tuple[Any, ...]
    extras: dict[str, Tensor]

    @classmethod
    def of(cls, found: Explanations, place: int) -> Row:
        rest = (
            found.statuses[place], found.errors[place], int(found.targets[place]), int(found.predictions[place]),
            float(found.confidences[place]), found.n_forwards[place], found.n_backwards[place],
        )  # fmt: skip
        extras = {name: entry for name, values in found.extras.items() if (entry := values[place]) is not None}
        return cls(found.maps[place], rest, extras)

    def same(self, other: Row) -> None:
        """To the last bit."""
        assert self.rest == other.rest
        assert torch.equal(self.map, other.map)
        assert self.extras.keys() == other.extras.keys()
        assert all(torch.equal(extra, other.extras[name]) for name, extra in self.extras.items())

    def alike(self, other: Row) -> None:
        """But for the last bits, which a matrix product makes depend on the row's place in its batch."""
        assert [entry for entry in self.rest if not isinstance(entry, float)] == [
            entry for entry in other.rest if not isinstance(entry, float)
        ]
        torch.testing.assert_close(self.map, other.map, rtol=1e-3, atol=1e-4)
        torch.testing.assert_close(self.extras, other.extras, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_batch_is_its_images_one_by_one_in_any_order(name: str, images: Tensor) -> None:
    method, targets, seeds = bound(name, model_for(name)), [0, 1, 2, 3, 1], [7, 3, 9, 1, 4]
    whole = method.explain(images, targets, seeds=seeds)
    assert set(whole.statuses) == {"ok"}
    assert bool(((whole.maps >= 0) & (whole.maps <= 1)).all())
    back = method.explain(images.flip(0), targets[::-1], seeds=seeds[::-1])
    for place in range(5):
        alone = method.explain(images[place : place + 1], [targets[place]], seeds=[seeds[place]])
        Row.of(whole, place).alike(Row.of(alone, 0))
        Row.of(whole, place).alike(Row.of(back, 4 - place))


@pytest.mark.parametrize("name", NAMES)
def test_the_predicted_class_is_explained_unless_another_is_asked_for(name: str, images: Tensor) -> None:
    model = model_for(name)
    method = bound(name, model)
    with torch.no_grad():
        logits = model(images)
    result = method.explain(images)
    assert torch.equal(result.targets, logits.argmax(dim=1))
    assert torch.equal(result.predictions, result.targets)
    torch.testing.assert_close(result.confidences, logits.softmax(dim=1).amax(dim=1), rtol=1e-5, atol=1e-6)
    same = method.explain(images, result.targets)
    for place in range(len(images)):
        Row.of(result, place).alike(Row.of(same, place))
    other = method.explain(images, (result.targets + 1) % CLASSES)
    assert torch.equal(other.predictions, result.predictions)
    assert torch.equal(other.maps, result.maps) == (name in CLASS_BLIND)
    with pytest.raises(TargetError, match=f"from 0 to {CLASSES - 1}, got {CLASSES}"):
        method.explain(images, CLASSES)
    with pytest.raises(TargetError, match="got -1"):
        method.explain(images, -1)


@pytest.mark.parametrize("name", NAMES)
def test_the_model_is_left_as_it_came(name: str, images: Tensor) -> None:
    model = model_for(name)
    model.train()
    next(iter(model.children())).eval()
    frozen = next(iter(model.parameters()))
    frozen.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    flags = [module.training for module in model.modules()]
    wants = [parameter.requires_grad for parameter in model.parameters()]
    with torch.inference_mode():
        bound(name, model).explain(images[:2])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [module.training for module in model.modules()] == flags
    assert [parameter.requires_grad for parameter in model.parameters()] == wants
    assert all(parameter.grad is None for parameter in model.parameters())
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, kind) for module in model.modules() for kind in hooks)
    assert not any("forward" in vars(module) for module in model.modules())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_becomes_a_status(name: str, images: Tensor) -> None:
    model = model_for(name)
    last_linear(model).bias.data[0] = torch.nan
    result = bound(name, model).explain(images[:3])
    assert result.statuses == ["non_finite"] * 3
    assert all(result.errors)
    assert not bool(result.maps.any())
    assert bool(result.confidences.isfinite().all())
    assert all(value is None for values in result.extras.values() for value in values)


@pytest.mark.parametrize("name", NAMES)
def test_a_broken_image_does_not_touch_its_neighbours(name: str, images: Tensor) -> None:
    method = bound(name, model_for(name))
    broken = images[:3].clone()
    broken[1, 0, 0, 0] = torch.nan
    whole, result = method.explain(images[:3]), method.explain(broken)
    assert result.statuses == ["ok", "non_finite", "ok"]
    for place in (0, 2):
        Row.of(result, place).alike(Row.of(whole, place))


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_always_says_the_same_gives_no_nan(name: str, images: Tensor) -> None:
    model = model_for(name)
    last_linear(model).weight.data.zero_()
    if name == "daam":
        with pytest.raises(ModelError, match="do not depend on the class token"):
            bound(name, model).explain(images[:3])
        return
    result = bound(name, model).explain(images[:3])
    assert bool(result.maps.isfinite().all())
    if name in DRAWN and name not in DRAWN_GRADIENTS:  # what is drawn is not constant, whatever the model says
        assert set(result.statuses) == {"ok"}
    elif name not in CLASS_BLIND | {"score_cam"} and not find_method(name).trained:
        # score_cam: weights are all the same, and it shows the mean map; a trained head shows what the features are
        assert set(result.statuses) <= {"constant_map", "no_evidence"}
        assert not bool(result.maps.any())


@pytest.mark.parametrize("name", NAMES)
def test_draws_belong_to_the_seed_and_the_image(name: str, images: Tensor) -> None:
    model = model_for(name)
    entry = bound(name, model).explain(images[:2], [1, 2], seeds=[5, 6])
    torch.manual_seed(99)
    again = bound(name, model).explain(images[:2], [1, 2], seeds=[5, 6])
    other = bound(name, model).explain(images[:2], [1, 2], seeds=[6, 5])
    for place in range(2):
        Row.of(entry, place).same(Row.of(again, place))
    if name in DRAWN:
        assert not any(torch.equal(entry.maps[place], other.maps[place]) for place in range(2))
        seeded = bound(name, model, seed=1).explain(images[:2], [1, 2], seeds=[5, 6])
        assert not torch.equal(seeded.maps, entry.maps)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in CHAOTIC])
def test_half_precision_ranks_pixels_alike(name: str, images: Tensor) -> None:
    model, targets = model_for(name), [0, 1, 2, 3, 1]
    wide = bound(name, model).explain(images, targets)
    half = bound(name, model, Scoring(batch_size=16, precision="bf16")).explain(images, targets)
    assert half.statuses == wide.statuses
    assert half.maps.dtype == torch.float32
    agreement = spearman(wide.maps.flatten(1), half.maps.flatten(1))
    assert float(agreement.median()) > 0.9
    packed_or_forward_only = name in (*PACKED, "consensus") or not find_method(name).gradients
    assert torch.equal(wide.maps, half.maps) != packed_or_forward_only, (
        "passes with gradients are float32 in any precision"
    )


@dataclass
class Count:
    forwards: int = 0
    backwards: int = 0


@contextmanager
def counted(model: nn.Module) -> Iterator[Count]:
    """Rows that pass the model's last layer, and rows whose gradient comes back through it."""
    count = Count()

    def seen(module: nn.Module, given: Any, output: Tensor) -> None:
        count.forwards += len(output)
        if output.requires_grad:
            output.register_hook(returned)

    def returned(gradient: Tensor) -> None:
        count.backwards += len(gradient)

    handle = last_linear(model).register_forward_hook(seen)
    try:
        yield count
    finally:
        handle.remove()


@pytest.mark.parametrize("name", NAMES)
def test_the_declared_cost_is_what_is_spent(name: str, images: Tensor) -> None:
    model, settings = model_for(name), settings_class(name)(**SHORT.get(name, {}))
    declared, method = find_method(name).cost(settings), bound(name, model, Scoring(batch_size=1))
    method.explain(images[:1])  # finds its layers with a forward that belongs to no image
    with counted(model) as run:
        rows = method.explain(images[:2])
    assert (run.forwards, run.backwards) == (sum(rows.n_forwards), sum(rows.n_backwards))
    if declared is not None:  # the class is found by a forward of its own unless the method's own shows the logits
        shows_logits = isinstance(method, BatchMethod) and method.reads_logits
        extra = 0 if name in PACKED or find_method(name).trained or shows_logits else 1
        assert rows.n_forwards == [declared.forwards + extra] * 2
        assert rows.n_backwards == [declared.backwards] * 2
    if isinstance(method, BatchMethod):
        with counted(model) as direct:
            cost = method.maps(images[:2], torch.tensor([1, 2]), [5, 6]).cost
        assert (direct.forwards, direct.backwards) == (2 * cost.forwards, 2 * cost.backwards)
        assert cost == declared
    assert find_method(name).gradients == bool(run.backwards)


@pytest.mark.parametrize("name", NAMES)
def test_extras_have_the_shapes_that_a_run_is_told_beforehand(name: str, images: Tensor) -> None:
    model, settings = model_for(name), settings_class(name)(**SHORT.get(name, {}))
    shapes = check_fit(name, model, settings, images[0], trained=untrained(name, model)).extra_shapes
    result = bound(name, model).explain(images[:2])
    assert shapes.keys() == find_method(name).extras.keys() == result.extras.keys()
    for extra, values in result.extras.items():
        assert [tuple(value.shape) for value in values if value is not None] == [tuple(shapes[extra])] * 2


@pytest.mark.parametrize("name", NAMES)
def test_a_model_that_does_not_fit_is_refused_with_those_that_do(name: str, images: Tensor) -> None:
    architecture = find_method(name).architecture
    if architecture == "any":
        for model in (cnn(), transformer()):
            check_fit(name, model, settings_class(name)(**SHORT.get(name, {})), images[0])
        return
    other = transformer() if architecture == "cnn" else cnn()
    with pytest.raises(ModelError, match=f"method {name} cannot explain this model") as refusal:
        check_fit(name, other, settings_class(name)(), images[0])
    said = str(refusal.value).rpartition("methods that fit it: ")[2].partition(" (")[0].split(", ")
    fitting = ("any", {"cnn": "vit", "vit": "cnn"}[architecture])
    fit = {entry for entry in NAMES if find_method(entry).architecture in fitting and not find_method(entry).trained}
    assert set(said) == fit - NEEDS_A_FILE


@pytest.mark.parametrize("name", NAMES)
def test_settings_have_help_and_refuse_what_they_do_not_know(name: str) -> None:
    declared = settings_class(name)
    assert declared is find_method(name).settings
    for entry in declared.__dataclass_fields__.values():
        assert entry.metadata["help"]
    with pytest.raises(SettingsError, match=f"method {name} has no setting 'nonsense'"):
        bind_method(name, model_for(name), nonsense=1)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("sise", "ada_sise")])
def test_only_methods_that_can_leave_masks_out_take_a_budget(name: str) -> None:
    with pytest.raises(SettingsError, match=f"method {name} .* budget must be exact, got 'fast'"):
        bound(name, model_for(name), Scoring(budget="fast"))


@pytest.mark.parametrize("name", NAMES)
def test_every_metric_can_be_measured(name: str, images: Tensor) -> None:
    settings = settings_class(name)(**{**SHORT.get(name, {}), **({"masks": 10} if name == "rise" else {})})
    explainer = trained(make_explainer(name, model_for(name), settings, Scoring(batch_size=16)))
    metrics = [metric for metric in spelt_out(["full"]) if metric not in CHOSEN_BY.get(name, ())]
    session = ExplainSession(explainer, metrics, chance_below=100, sanity_below=100)
    truth = torch.zeros(SIZE, dtype=torch.bool)
    truth[4:12, 6:15] = True
    result = [*session.push(0, images[0], truth=truth, label=1, sample_seed=3), *session.finish()]
    assert [record.status for record in result] == ["ok"]
    absent = {metric for metric, value in result[0].metrics.items() if value is None}
    assert absent <= {"layer_agreement", "max_sensitivity", "label_overlap", "random_model_spearman"}
    assert ("layer_agreement" in absent) == (name not in ("sise", "ada_sise", "sise_plus"))
    assert result[0].chance is not None


def test_small_shards_are_not_filled_up():
    """A session that will see two images at most gives the method no more than two at once."""
    model, sizes = cnn(), []
    explainer = make_explainer("grad_cam", model, None, Scoring(images=2))
    handle = model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    session = ExplainSession(explainer)
    for key, image in enumerate(images_like(2, 3, SIZE, 0)):
        session.push(key, image)
    session.finish()
    handle.remove()
    assert sizes
    assert set(sizes) == {2}
    with pytest.raises(SettingsError, match="images must be at least 1, got 0"):
        Scoring(images=0)
