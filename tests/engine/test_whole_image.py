"""What a model says of a whole image: names of torchvision's own feature layers are the oracle."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from heatlas.engine.explainer import Explainer
from heatlas.engine.explanation import Explanation
from heatlas.engine.methods.protocol import METHODS as DECLARED
from heatlas.engine.methods.registry import bind_method
from heatlas.engine.scoring.confidence import SEGMENTATION, SIGMOID, SOFTMAX
from heatlas.engine.scoring.whole_image import MOST_LISTED_WHOLE, class_overview
from heatlas.engine.session import ExplainSession, OverviewWanted
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

METHODS = ("sise", "grad_cam", "layer_cam", "refine_cam", "integrated_gradients", "occlusion", "rise",
           "fovex", "consensus", "lafam", "agf")  # fmt: skip
QUICK: dict[str, dict] = {
    "rise": {"masks": 8}, "integrated_gradients": {"steps": 2}, "occlusion": {"positions": 2},
    "fovex": {"fixations": 1, "steps": 2}, "consensus": {"of": ("grad_cam", "layer_cam")},
    "sise": {"mu": 0.9},
}  # fmt: skip
IMAGE = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("name", "node"),
    [
        ("resnet18", "flatten"),
        ("mobilenet_v3_small", "classifier.2"),
        ("densenet121", "flatten"),
        ("shufflenet_v2_x0_5", "mean"),
    ],
)
def test_features_are_torchvision_s_penultimate_layer(name, node):
    torch.manual_seed(0)
    model = getattr(models, name)().eval()
    overview = class_overview(model, SOFTMAX, IMAGE)
    with torch.inference_mode():
        expected = create_feature_extractor(model, [node])(IMAGE[None])[node][0]
    assert overview.features is not None
    torch.testing.assert_close(overview.features, expected)


def test_confidences_rank_and_hold_the_label():
    torch.manual_seed(0)
    model = models.resnet18(num_classes=MOST_LISTED_WHOLE + 1).eval()
    with torch.inference_mode():
        logits = model(IMAGE[None])[0]
    for confidence, expected in ((SOFTMAX, logits.softmax(0)), (SIGMOID, logits.sigmoid())):
        overview = class_overview(model, confidence, IMAGE, label=77, top_k=3)
        values, places = expected.topk(3)
        assert [index for index, _ in overview.top] == places.tolist()
        assert [value for _, value in overview.top] == pytest.approx(values.tolist())
        assert overview.label_confidence == pytest.approx(float(expected[77]))


def test_few_classes_are_all_listed_and_a_label_that_is_none_has_no_confidence():
    model = models.resnet18(num_classes=4).eval()
    overview = class_overview(model, SOFTMAX, IMAGE, label=4, top_k=1)
    assert sorted(index for index, _ in overview.top) == [0, 1, 2, 3]
    assert sum(value for _, value in overview.top) == pytest.approx(1)
    assert overview.label_confidence is None


def test_a_dense_model_with_an_auxiliary_head():
    torch.manual_seed(0)
    model = models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=5, aux_loss=True).eval()
    seen = {}
    model.classifier[-1].register_forward_hook(lambda module, given, output: seen.update(given=given[0]))
    overview = class_overview(model, SEGMENTATION, IMAGE)
    assert overview.features is not None
    torch.testing.assert_close(overview.features, seen["given"][0].mean(dim=(1, 2)))
    assert len(overview.top) == 5


@pytest.mark.parametrize("name", METHODS)
def test_explanations_bring_the_overview_without_a_forward_of_its_own(name):
    """Every method of a plain CNN: the numbers are those of `class_overview`, the forwards those that it declares."""
    torch.manual_seed(0)
    model = models.resnet18(num_classes=6).eval()
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    explainer = bind_method(name, model, batch_size=8, **QUICK.get(name, {}))
    session = ExplainSession(explainer, overview=OverviewWanted(top_k=2))
    results = [result for key, image in enumerate(images) for result in session.push(key, image, label=key)]
    results += session.finish()
    bare = ExplainSession(explainer)
    plain = [result for key, image in enumerate(images) for result in bare.push(key, image)] + bare.finish()
    assert [result.n_forwards for result in results] == [result.n_forwards for result in plain]
    for key, (image, result) in enumerate(zip(images, results, strict=True)):
        expected = class_overview(model, SOFTMAX, image, label=key, top_k=2)
        assert result.overview is not None
        assert result.overview.features is not None
        torch.testing.assert_close(result.overview.features, expected.features, atol=1e-4, rtol=1e-3)
        assert [index for index, _ in result.overview.top] == [index for index, _ in expected.top]
        assert result.overview.label_confidence == pytest.approx(expected.label_confidence, abs=1e-4)
        assert result.prediction == result.overview.top[0][0]
    assert not [hook for module in model.modules() for hook in module._forward_hooks]


def test_masks_and_metrics_share_batches_whatever_is_kept():
    explainer = bind_method("sise", models.resnet18(num_classes=6).eval())
    assert explainer.noting(features=True).keeping(True).scorer is explainer.scorer


def test_a_method_that_keeps_no_output_costs_one_forward_more():
    class Told(Explainer):
        declared = replace(DECLARED["grad_cam"], name="told")

        def explain_image(self, image, target, seed):
            yield from ()
            return Explanation("ok", None, 1, 1, 0.5, 0.0, map=image[0].sigmoid(), n_forwards=0)

    model = models.resnet18(num_classes=6).eval()
    session = ExplainSession(Told(model), overview=OverviewWanted())
    [result] = [*session.push(0, IMAGE), *session.finish()]
    assert result.n_forwards == 1
    assert result.overview is not None
    assert len(result.overview.top) == 6


class Failing(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 3)

    def forward(self, images):
        self.first(images.mean(dim=(2, 3)))
        raise RuntimeError("in the middle")


def test_no_hook_stays_behind_a_failure():
    model = Failing().eval()
    with pytest.raises(RuntimeError, match="in the middle"):
        class_overview(model, SOFTMAX, IMAGE)
    assert not model.first._forward_hooks


def test_outputs_that_are_not_finite_list_nothing():
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4)).eval()
    nn.init.constant_(model[2].bias, float("nan"))
    overview = class_overview(model, SOFTMAX, IMAGE, label=1)
    assert (overview.top, overview.label_confidence) == ((), None)


def test_a_model_without_a_layer_that_gives_logits_has_no_features():
    class Bare(nn.Module):
        def forward(self, images):
            return images.mean(dim=(2, 3))

    assert class_overview(Bare(), SOFTMAX, IMAGE).features is None
