"""What a model says of a whole image: names of torchvision's own feature layers are the oracle."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.scoring.confidence import SEGMENTATION, SIGMOID, SOFTMAX
from heatlas.engine.scoring.whole_image import MOST_LISTED_WHOLE, class_overview
from torch import nn
from torchvision import models
from torchvision.models.feature_extraction import create_feature_extractor

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
