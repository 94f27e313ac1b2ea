"""What a method declares is what it does: costs, extras, settings, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from heatlas.engine.method_fit import check_fit
from heatlas.engine.methods.batch_method import BatchMethod
from heatlas.engine.methods.registry import bind_method, find_method, make_explainer, settings_class
from heatlas.engine.metrics import spelt_out
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import ExplainSession
from heatlas.errors import ModelError, SettingsError
from torch import Tensor, nn

from ...support.contract_methods import (
    NAMES,
    PACKED,
    SHORT,
    SIZE,
    bound,
    cnn,
    last_linear,
    model_for,
    trained,
    transformer,
    untrained,
)
from ...support.oracle_nets import images_like

CHOSEN_BY = {"bee_select": ("drop_pct", "increase", "average_gain_pct")}
"""Metrics that cannot evaluate a method's maps, because they choose them, with the settings here."""


NEEDS_A_FILE = {"feature_cam"}
"""With their defaults they ask for a file that heatlas does not bring."""


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
