"""A feature model with a bank is a classifier like any other: its votes recounted slowly, and what explains it."""

from __future__ import annotations

import copy
import math

import pytest
import timm
import torch
from heatlas.engine.features.bank_classifier import BankClassifier
from heatlas.engine.features.feature_bank import NO_VOTE, FeatureBank, build_bank
from heatlas.engine.features.image_features import features_of
from heatlas.engine.method_fit import check_fit
from heatlas.engine.methods.registry import bind_method, make_explainer, settings_class
from heatlas.engine.metrics import spelt_out
from heatlas.engine.metrics.sanity_check import randomised
from heatlas.engine.scoring.fast_forward import ScoringForward, StandInWarning
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.engine.session import ExplainSession
from heatlas.errors import ModelError, SettingsError
from timm.models.vision_transformer import VisionTransformer as TimmTransformer
from torch import Tensor, nn
from torch.nn.functional import normalize

from ..support.feature_models import CLASSES, EXTRA, SIZE, classifier, headless, with_head, without_heads
from ..support.oracle_nets import images_like

MODELS = {"timm, no head": headless, "torchvision, head": with_head, "torchvision, head taken off": without_heads}


def cnn() -> nn.Module:
    torch.manual_seed(3)
    blocks: list[nn.Module] = []
    for before, after in ((3, 6), (6, 8), (8, 10)):
        blocks += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*blocks[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return images_like(5, 3, SIZE, seed=1)


def slow_shares(model: BankClassifier, image: Tensor) -> list[float]:
    """Each class's share of the votes, entry by entry in float64."""
    with torch.no_grad():
        feature = features_of(model.model, image[None])[0].double()
    feature = (feature / feature.norm()).tolist()
    entries = [(sum(a * b for a, b in zip(feature, entry, strict=True)), label)
               for entry, label in zip(model.bank.features.tolist(), model.bank.labels.tolist(), strict=True)]  # fmt: skip
    votes = [0.0] * (CLASSES + EXTRA)
    for similarity, label in sorted(entries, reverse=True)[:20]:
        votes[label] += math.exp(similarity / 0.07)
    return [entry / sum(votes) for entry in votes]


@pytest.mark.parametrize("build", MODELS.values(), ids=list(MODELS))
def test_a_softmax_of_the_logits_is_the_share_of_votes(build, images: Tensor) -> None:
    model = classifier(build(), torch.float64)
    with torch.no_grad():
        logits = model(images.double())
        features = normalize(features_of(model.model, images.double()), dim=1)
    assert logits.shape == (5, CLASSES + EXTRA)
    assert bool(logits.isfinite().all())
    assert torch.equal(logits[:, -EXTRA], torch.full((5,), math.log(NO_VOTE), dtype=torch.float64))
    for row, image in zip(logits.softmax(dim=1), images.double(), strict=True):
        torch.testing.assert_close(row, torch.tensor(slow_shares(model, image), dtype=torch.float64))
    assert torch.equal(logits.argmax(dim=1), model.bank.classes(features))


def test_copies_share_the_bank_which_random_weights_do_not_change(images: Tensor) -> None:
    model = classifier(headless())
    before = model.bank.features.clone(), model.bank.labels.clone()
    random = randomised(model)
    assert random.bank is model.bank
    assert torch.equal(model.bank.features, before[0])
    assert torch.equal(model.bank.labels, before[1])
    with torch.no_grad():
        assert not torch.equal(random(images), model(images))


def test_batch_norms_are_not_folded_below_a_bank(images: Tensor) -> None:
    torch.manual_seed(0)
    model = classifier(
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    )
    with pytest.warns(StandInWarning, match="torch.fx cannot follow its forward"), torch.no_grad():
        assert torch.equal(ScoringForward(model, "fold_bn")(images), model(images))


def test_the_gradient_is_that_of_the_votes_summed_by_class() -> None:
    torch.manual_seed(0)
    bank = FeatureBank(normalize(torch.randn(30, 6, dtype=torch.float64), dim=1), torch.arange(30) % 3)
    features = normalize(torch.randn(4, 6, dtype=torch.float64), dim=1).requires_grad_()
    assert torch.autograd.gradcheck(bank, [features], eps=1e-7)


def test_it_is_the_same_each_time_alone_and_in_training_mode(images: Tensor) -> None:
    model = classifier(headless())
    with torch.no_grad():
        whole = model(images)
        assert torch.equal(model(images), whole)
        torch.testing.assert_close(torch.cat([model(image[None]) for image in images]), whole, rtol=1e-4, atol=1e-4)
        assert torch.equal(copy.deepcopy(model)(images), whole)
    model.train()
    assert model.model.training
    assert all(not module._forward_pre_hooks for module in model.modules())
    assert {"bank.features", "bank.labels"} <= model.state_dict().keys()
    assert [name for name, _ in model.named_parameters() if name.startswith("bank.")] == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_votes_are_counted_in_float32_whatever_the_autocast(dtype: torch.dtype, images: Tensor) -> None:
    model = classifier(headless())
    features = normalize(torch.randn(5, 16, generator=torch.manual_seed(0)), dim=1)
    with torch.no_grad():
        wide, votes = model(images), model.bank(features)
        with torch.autocast("cpu", dtype=dtype):
            half = model(images)
            assert torch.equal(model.bank(features), votes)
    assert half.dtype == torch.float32
    assert not torch.equal(half, wide)
    assert float((half.softmax(dim=1) - wide.softmax(dim=1)).abs().max()) < 0.2


def test_an_image_that_is_not_finite_is_told_apart(images: Tensor) -> None:
    broken = images.clone()
    broken[1, 0, 0, 0] = torch.nan
    result = bind_method("daam", classifier(headless())).explain(broken)
    assert result.statuses == ["ok", "non_finite", "ok", "ok", "ok"]


def test_a_class_without_a_neighbour_is_a_constant_map(images: Tensor) -> None:
    result = bind_method("daam", classifier(headless())).explain(images, [0, CLASSES, 1, CLASSES, 2])
    assert result.statuses == ["ok", "constant_map", "ok", "constant_map", "ok"]


@pytest.mark.parametrize("build", MODELS.values(), ids=list(MODELS))
def test_daam_explains_it_through_a_session(build, images: Tensor) -> None:
    model = classifier(build())
    with torch.no_grad():
        logits = model(images)
    method = bind_method("daam", model, scoring=Scoring(batch_size=16))
    result = method.explain(images)
    assert set(result.statuses) == {"ok"}
    assert torch.equal(result.predictions, logits.argmax(dim=1))
    torch.testing.assert_close(result.confidences, logits.softmax(dim=1).amax(dim=1))
    assert result.n_forwards == [1] * 5
    assert result.n_backwards == [1] * 5
    assert [tuple(entry.shape) for entry in result.extras["block_maps"] if entry is not None] == [(2, 3, 3)] * 5
    for place in range(5):
        alone = method.explain(images[place : place + 1])
        torch.testing.assert_close(alone.maps[0], result.maps[place], rtol=1e-3, atol=1e-4)
    assert check_fit("daam", model, settings_class("daam")(), images[0]).extra_shapes == {"block_maps": (2, 3, 3)}


def test_the_declared_passes_are_what_is_spent(images: Tensor) -> None:
    model = classifier(headless())
    passed = {"forwards": 0, "backwards": 0}

    def seen(module: nn.Module, given: object, output: Tensor) -> None:
        passed["forwards"] += len(output)
        if output.requires_grad:
            output.register_hook(returned)

    def returned(gradient: Tensor) -> None:
        passed["backwards"] += len(gradient)

    method = bind_method("daam", model, scoring=Scoring(batch_size=1))
    norm: nn.Module = model.model.norm  # pyright: ignore[reportAssignmentType]
    handle = norm.register_forward_hook(seen)
    rows = method.explain(images[:2])
    handle.remove()
    assert passed == {"forwards": sum(rows.n_forwards), "backwards": sum(rows.n_backwards)}


def test_a_model_that_averages_its_patches_is_refused(images: Tensor) -> None:
    torch.manual_seed(0)
    model = TimmTransformer(24, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0, global_pool="avg").eval()
    with pytest.raises(ModelError, match="the features do not depend on the class token"):
        bind_method("daam", classifier(model)).explain(images)
    with pytest.raises(ModelError, match="no self-attention that can be read"):
        bind_method("daam", classifier(cnn()))


def test_a_mean_of_two_heads_is_no_feature() -> None:
    torch.manual_seed(0)
    model = timm.create_model("deit_tiny_distilled_patch16_224", img_size=24, patch_size=8, num_classes=3, depth=2)
    with pytest.raises(ModelError, match="a mean of two heads"):
        classifier(model.eval())


def test_a_model_that_reads_another_token_is_refused(images: Tensor) -> None:
    class Distilled(TimmTransformer):
        def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
            return x[:, 1]

    torch.manual_seed(0)
    model = Distilled(24, 8, embed_dim=16, depth=2, num_heads=2, num_classes=0, reg_tokens=1).eval()
    with pytest.raises(
        ModelError, match=r"the features do not .*, or reads another token \(a distillation token, a register\)"
    ):
        bind_method("daam", classifier(model)).explain(images)


@pytest.mark.parametrize(
    ("name", "model", "more"),
    [
        ("rise", headless, {"masks": 20}),
        ("occlusion", headless, {"positions": 4}),
        ("integrated_gradients", headless, {"steps": 4}),
        ("fovex", headless, {"fixations": 2, "steps": 3}),
        ("sise", cnn, {}),
        ("grad_cam", cnn, {}),
        ("score_cam", cnn, {}),
    ],
)
def test_other_methods_take_it_like_any_classifier(name: str, model, more: dict, images: Tensor) -> None:
    whole = classifier(model())
    explainer = make_explainer(name, whole, settings_class(name)(**more), Scoring(batch_size=16))
    session = ExplainSession(explainer, spelt_out(["paper"]))
    truth = torch.zeros(SIZE, dtype=torch.bool)
    truth[4:12, 6:15] = True
    result = [*session.push(0, images[0], truth=truth, label=1, sample_seed=3), *session.finish()]
    with torch.no_grad():
        logits = whole(images[:1])[0]
    assert [record.status for record in result] == ["ok"]
    assert result[0].prediction == int(logits.argmax())
    assert result[0].confidence == pytest.approx(float(logits.softmax(dim=0).amax()), rel=1e-4)
    assert None not in [result[0].metrics[metric] for metric in ("drop_pct", "ebpg")]


def test_images_without_usable_features_are_left_out() -> None:
    class Means(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean(dim=(2, 3))

    entries = torch.ones(4, 3, 2, 2)
    entries[1], entries[2, 0, 0, 0] = 0, torch.nan
    bank = build_bank(Means(), [(entries, torch.tensor([0, 1, 2, 3]))])
    assert bank.labels.tolist() == [0, 3]
    with pytest.raises(SettingsError, match="at least one image whose features are finite and not all 0"):
        build_bank(Means(), [(entries[1:3], torch.tensor([0, 1]))])
    with pytest.raises(SettingsError, match="at least one image"):
        build_bank(Means(), [])


@pytest.mark.unchecked_types
@pytest.mark.parametrize(
    ("features", "labels", "count", "text"),
    [
        (torch.ones(3, 1), [0, 1], None, r"one label for each, at least one, got \(3, 1\) and \(2,\)"),
        (torch.ones(0, 1), [], None, "at least one, got"),
        (torch.ones(2, 1), [0, -1], None, "labels of at least 0"),
        (torch.full((2, 1), torch.nan), [0, 1], None, "finite features"),
        (torch.ones(2, 4), [0, 1], None, "features of length 1, got lengths from 2 to 2"),
        (torch.ones(2, 1), [0, 3], 3, "with the label 3 needs 4 to 1048576 classes, got 3"),
        (torch.ones(2, 1), [0, 1 << 40], None, "to 1048576 classes, got 1099511627777"),
    ],
    ids=["fewer labels", "nothing", "no class", "not finite", "not of length 1", "few classes", "a huge label"],
)
def test_a_bank_that_makes_no_sense_is_refused(
    features: Tensor, labels: list[int], count: int | None, text: str
) -> None:
    with pytest.raises(SettingsError, match=text):
        FeatureBank(features, torch.tensor(labels, dtype=torch.long), count)
