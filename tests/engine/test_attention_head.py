"""The attention head of T-TAME and P-TAME: sizes of the specification, rows equal to whole maps, losses by hand."""

from __future__ import annotations

import math

import pytest
import torch
from heatlas.engine.training.attention_head import AttentionHead, head_size
from heatlas.engine.training.feature_reader import FeatureReader
from heatlas.engine.training.mask_losses import (
    MaskLossWeights,
    area_loss,
    fill_of,
    imitation_loss,
    mask_loss,
    masked_images,
    pearson,
    variation_loss,
)
from heatlas.errors import ModelError, SettingsError
from torch import nn
from torchvision.models import get_model
from torchvision.models.vision_transformer import VisionTransformer

CHANNELS = {"vgg16": (256, 512, 512), "resnet50": (512, 1024, 2048), "vit_b_16": (768, 768, 768)}
MILLIONS = {"vgg16": 1.87, "resnet50": 9.10, "vit_b_16": 4.08}


@pytest.mark.parametrize("network", CHANNELS)
def test_the_head_has_as_many_weights_as_the_specification_counts(network: str) -> None:
    head = AttentionHead(CHANNELS[network], 1000)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(MILLIONS[network], abs=0.005)


def test_p_tames_head_on_resnet18_has_as_many_weights_as_the_specification_counts() -> None:
    head = AttentionHead((64, 128, 256, 512), 1000, bias=False)
    assert sum(p.numel() for p in head.parameters()) / 1e6 == pytest.approx(1.31, abs=0.005)
    assert head_size((56, 56)) == (56, 56)
    assert head_size((112, 56)) == (56, 28)


def features(batch: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, width, side, side, generator=generator) for width, side in ((4, 8), (6, 4), (8, 2))]


@pytest.mark.parametrize("shared_row", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_rows_are_those_of_the_whole_maps(bias: bool, shared_row: bool) -> None:
    torch.manual_seed(1)
    head = AttentionHead((4, 6, 8), 5, bias=bias, shared_row=shared_row).eval()
    if shared_row:
        nn.init.normal_(head.fusion.weight)
    targets = torch.tensor([4, 0, 2])
    whole = head(features()).detach()
    assert whole.shape == (3, 5, 8, 8)
    assert torch.allclose(head.rows(features(), targets), whole[torch.arange(3), targets], atol=1e-5)
    assert torch.allclose(head.cross_rows(features(), targets), whole[:, targets], atol=1e-5)
    shares = head.layer_shares()
    assert shares.shape == (3,)
    assert float(shares.sum()) == pytest.approx(1)


def test_a_branch_is_the_formula_of_the_paper() -> None:
    torch.manual_seed(1)
    head = AttentionHead((2,), 2).eval()
    [maps] = [torch.randn(1, 2, 3, 3)]
    convolution, norm = head.branches[0]
    for i in range(3):
        for j in range(3):
            cell = convolution.weight[:, :, 0, 0] @ maps[0, :, i, j] + convolution.bias
            cell = (cell - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias
            expected = torch.relu(cell + maps[0, :, i, j])
            assert torch.allclose(head.fused_features([maps])[0, :, i, j], expected, atol=1e-6)


def test_a_shared_row_is_every_class_s_map_at_first() -> None:
    head = AttentionHead((4, 6, 8), 5, shared_row=True).eval()
    whole = head(features()).detach()
    assert torch.equal(whole[:, :1].expand_as(whole), whole)
    assert float(whole.std()) > 0


@pytest.mark.parametrize(("channels", "classes"), [((), 3), ((0, 4), 3), ((4,), 1)])
def test_numbers_out_of_range_are_refused(channels: tuple[int, ...], classes: int) -> None:
    with pytest.raises(SettingsError, match="attention head needs"):
        AttentionHead(channels, classes)


def test_area_and_variation_by_hand() -> None:
    mask = torch.tensor([[[0.0, 1.0], [0.0, 1.0]]], dtype=torch.float64)
    assert float(area_loss(mask, 0.5)) == pytest.approx((2 * 0.0005**0.5 + 2 * 1.0005**0.5) / 4)
    assert float(variation_loss(mask, 0.0)) == pytest.approx(16 * 2)
    assert float(variation_loss(mask, 0.3)) == pytest.approx(16 * (2 + 0.3 * 2))


def test_the_variation_is_the_paper_s_sum_at_its_batch_size() -> None:
    masks = torch.rand(32, 32, 7, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    total = 0.0
    for mask in masks.flatten(0, 1):
        total += float(((mask[1:] - mask[:-1]) ** 2).sum() + ((mask[:, 1:] - mask[:, :-1]) ** 2).sum())
        cells = [mask[i, j] for i in range(7) for j in range(7) if i in (0, 6) or j in (0, 6)]
        total += 0.3 * float(sum(cell**2 for cell in cells))
    assert float(variation_loss(masks, 0.3)) == pytest.approx(total / (2 * 32))


def test_the_loss_is_the_weighted_sum_of_its_terms_and_its_area_counts_all_classes() -> None:
    own, crossed = torch.rand(2, 4, 4), torch.rand(2, 2, 4, 4)
    logits, targets = torch.randn(2, 3), torch.tensor([0, 2])
    loss = mask_loss(own, crossed, logits, targets, MaskLossWeights())
    expected = 1.5 * loss.cross_entropy + 2 * loss.area + 0.01 * loss.variation
    assert torch.allclose(loss.total, expected)
    assert torch.allclose(loss.area, area_loss(crossed, 0.3))
    assert torch.allclose(loss.cross_entropy, nn.functional.cross_entropy(logits, targets))


def test_where_classes_do_not_exclude_each_other_the_target_s_own_logit_is_kept() -> None:
    """Beside the binary cross-entropy written out; other classes' logits do not matter."""
    own, crossed, targets = torch.rand(2, 4, 4), torch.rand(2, 2, 4, 4), torch.tensor([1, 0])
    logits, seen = torch.tensor([[9.0, 2.0, -1.0], [-0.5, 3.0, 8.0]]), torch.tensor([True, False])
    loss = mask_loss(own, crossed, logits, targets, MaskLossWeights(), seen)
    probability = [1 / (1 + math.exp(-2.0)), 1 / (1 + math.exp(0.5))]
    wanted = -(math.log(probability[0]) + math.log(1 - probability[1])) / 2
    assert loss.cross_entropy.item() == pytest.approx(wanted, abs=1e-6)
    other = torch.where(torch.nn.functional.one_hot(targets, 3).bool(), logits, torch.zeros(()))
    assert mask_loss(own, crossed, other, targets, MaskLossWeights(), seen).cross_entropy == loss.cross_entropy


@pytest.mark.parametrize("field", ["cross_entropy", "area", "variation", "border"])
def test_negative_weights_are_refused(field: str) -> None:
    with pytest.raises(SettingsError, match=f"{field} must be at least 0, got -1"):
        MaskLossWeights(**{field: -1.0})
    with pytest.raises(SettingsError, match="power must be above 0"):
        MaskLossWeights(power=0.0)


def test_a_masked_image_is_normalise_of_the_mask_times_the_pixels() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.1])
    images = (pixels - mean[:, None, None]) / std[:, None, None]
    masks = torch.rand(2, 8, 8)
    masked = masked_images(images, masks, fill_of(images, "black", -mean / std))
    expected = (masks[:, None] * pixels - mean[:, None, None]) / std[:, None, None]
    assert torch.allclose(masked, expected, atol=1e-5)


def test_other_fills_leave_the_image_where_the_mask_is_one() -> None:
    images = torch.rand(1, 3, 64, 64)
    for kind in ("black", "mean", "blur"):
        fill = fill_of(images, kind, torch.zeros(3))
        assert fill.shape == images.shape
        assert torch.allclose(masked_images(images, torch.ones(1, 4, 4), fill), images, atol=1e-6)
    assert float(fill_of(images, "blur", torch.zeros(3)).var()) < float(images.var()) / 10
    with pytest.raises(SettingsError, match="fill must be black, blur or mean, got 'grey'"):
        fill_of(images, "grey", torch.zeros(3))  # pyright: ignore[reportArgumentType]


def test_a_student_is_at_its_best_when_it_gives_the_teacher_s_map() -> None:
    teacher = torch.rand(2, 6, 6).clamp(0.05, 0.95)
    same = imitation_loss(torch.logit(teacher), teacher)
    other = imitation_loss(torch.logit(teacher.flip(1)), teacher)
    assert float(same) < float(other)
    assert torch.allclose(pearson(teacher, 3 * teacher + 1), torch.ones(2), atol=1e-5)
    assert torch.equal(pearson(torch.ones(1, 2, 2), torch.rand(1, 2, 2)), torch.zeros(1))


def test_layers_of_a_cnn_and_of_a_transformer_are_found() -> None:
    resnet = get_model("resnet18", weights=None)
    reader = FeatureReader(resnet, torch.zeros(3, 64, 64))
    assert reader.names == ("layer2", "layer3", "layer4")
    assert reader.channels == (128, 256, 512)
    vit = VisionTransformer(32, 8, 4, 2, 16, 32, num_classes=5)
    reader = FeatureReader(vit, torch.zeros(3, 32, 32))
    assert [name.rpartition("_")[2] for name in reader.names] == ["1", "2", "3"]
    logits, maps = reader(torch.zeros(2, 3, 32, 32))
    assert logits.shape == (2, 5)
    assert [tuple(value.shape) for value in maps] == [(2, 16, 4, 4)] * 3


def test_tokens_lie_where_their_patches_are() -> None:
    vit = VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5).eval()
    image = torch.zeros(1, 3, 32, 32)
    reader = FeatureReader(vit, image[0], ["encoder.dropout"])
    changed = image.clone()
    changed[:, :, 8:16, 24:32] = 1  # the patch in row 1, column 3
    difference = (reader(changed)[1][0] - reader(image)[1][0]).abs().sum(dim=1)[0]
    assert difference.nonzero().tolist() == [[1, 3]]


def test_reading_leaves_the_model_as_it_came() -> None:
    model = get_model("resnet18", weights=None).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    FeatureReader(model, torch.zeros(3, 64, 64))(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert not any(module._forward_hooks for module in model.modules())


def test_layers_that_cannot_be_read_are_refused_with_their_names() -> None:
    model = get_model("resnet18", weights=None)
    with pytest.raises(ModelError, match="no module 'layer5'; did you mean 'layer"):
        FeatureReader(model, torch.zeros(3, 64, 64), ["layer5"])
    with pytest.raises(ModelError, match=r"layer fc gives \(1, 1000\)"):
        FeatureReader(model, torch.zeros(3, 64, 64), ["fc"])
    with pytest.raises(ModelError, match="neither maps that shrink"):
        FeatureReader(nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), torch.zeros(3, 4, 4))
