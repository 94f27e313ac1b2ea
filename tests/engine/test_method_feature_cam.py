"""Feature CAM: edges by hand and by a slow HED, the CAM under the edges, weights files, and what refuses it."""

from __future__ import annotations

from pathlib import Path

import pytest
import skimage.feature
import torch
import torch.nn.functional as F
from heatlas.engine.edges.canny import canny_edges
from heatlas.engine.edges.edge_map import scharr_edges
from heatlas.engine.edges.hed import HED, MEAN_BGR, STAGES, canonical_name, load_hed
from heatlas.engine.edges.luma import LUMA
from heatlas.engine.methods.cams import GradCAM
from heatlas.engine.methods.feature_cam import FeatureCAM
from heatlas.engine.methods.registry import bind_method
from heatlas.errors import ModelError, SettingsError
from safetensors.torch import save_file
from torch import Tensor, nn

from ..support.oracle_nets import images_like


def net() -> nn.Sequential:
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip
    nn.init.normal_(model[-1].weight)
    return model.eval()


def step_image(size: int = 32) -> Tensor:
    image = torch.zeros(1, 3, size, size)
    image[..., size // 2 :] = 1
    return image


def spread(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2), keepdim=True), maps.amax((1, 2), keepdim=True)
    return (maps - low) / (high - low)


@pytest.fixture
def images() -> Tensor:
    return images_like(2, 3, (24, 24), seed=3)


def test_a_step_s_edge_lies_on_the_step_and_a_flat_image_has_none() -> None:
    edges = scharr_edges(step_image())[0]
    assert bool((edges.argmax(dim=1) - 16).abs().max() <= 1)
    assert float(edges[:, :14].abs().max()) == float(edges[:, 18:].abs().max()) == 0
    assert not bool(scharr_edges(torch.full((1, 3, 8, 8), 0.3)).any())
    line = torch.zeros(1, 3, 64, 64)
    line[0, :, 3, 3] = 1  # edges of fewer pixels than one in a hundred
    assert float(scharr_edges(line).max()) == 1


def drawn_hed() -> HED:
    torch.manual_seed(0)
    network = HED().eval()
    for name, values in network.state_dict().items():
        if "score" in name or "fuse" in name:
            values.copy_(0.05 * torch.randn(values.shape))
    return network


def test_hed_is_vgg_with_five_side_outputs() -> None:
    """Written out once more, from the paper's figure."""
    network, image = drawn_hed(), torch.rand(1, 3, 37, 41, generator=torch.Generator().manual_seed(0))
    weights = network.state_dict()
    values = 255 * image[:, [2, 1, 0]] - torch.tensor(MEAN_BGR).view(1, 3, 1, 1)
    sides = []
    for stage, (_, count) in enumerate(STAGES, start=1):
        values = values if stage == 1 else F.max_pool2d(values, 2, ceil_mode=True)
        for number in range(1, count + 1):
            name = f"conv{stage}_{number}"
            values = F.conv2d(values, weights[f"{name}.weight"], weights[f"{name}.bias"], padding=1).relu()
        score = F.conv2d(values, weights[f"score_dsn{stage}.weight"], weights[f"score_dsn{stage}.bias"])
        sides.append(F.interpolate(score, size=(37, 41), mode="bilinear"))
    mixed = sum(weights["fuse.weight"][0, place, 0, 0] * side for place, side in enumerate(sides))
    torch.testing.assert_close(network(image), (mixed + weights["fuse.bias"]).sigmoid()[:, 0])


def test_hed_finds_a_step_with_weights_that_look_for_one(tmp_path: Path) -> None:
    """A first stage that takes horizontal differences, both signs, and side outputs that read it alone."""
    network = HED()
    for values in network.state_dict().values():
        values.zero_()
    weights = network.state_dict()
    for channel, sign in enumerate((1.0, -1.0)):
        weights["conv1_1.weight"][channel, :, 1, 0], weights["conv1_1.weight"][channel, :, 1, 2] = -sign, sign
        weights["conv1_2.weight"][channel, channel, 1, 1] = 1
    weights["score_dsn1.weight"][0, :2] = 0.01
    weights["fuse.weight"][0, 0] = 1
    weights["fuse.bias"] -= 5
    file = tmp_path / "hed.safetensors"
    save_file({name: values.contiguous() for name, values in weights.items()}, str(file))
    edges = load_hed(str(file))(step_image())[0, 2:-2]
    assert bool((edges[:, 2:-2].argmax(dim=1) + 2 - 16).abs().max() <= 2)
    assert float(edges[:, 16].min()) > 0.9
    assert float(edges[:, 4:12].max()) < 0.01


def test_weights_of_the_other_layout_are_the_same_network(tmp_path: Path) -> None:
    network, renamed = drawn_hed(), {}
    for name, values in network.state_dict().items():
        layer, _, kind = name.rpartition(".")
        if layer == "fuse":
            other = "moduleCombine.0"
        elif layer.startswith("score"):
            other = f"moduleScore{('One', 'Two', 'Three', 'Four', 'Five')[int(layer[-1]) - 1]}"
        else:
            stage, number = int(layer[4]), int(layer[6])
            place = 2 * (number - 1) + (stage > 1)
            other = f"moduleVgg{('One', 'Two', 'Three', 'Four', 'Five')[stage - 1]}.{place}"
        assert canonical_name(f"{other}.{kind}") == name
        renamed[f"{other}.{kind}"] = values
    torch.save(renamed, tmp_path / "hed.pth")
    image = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(load_hed(str(tmp_path / "hed.pth"))(image), network(image))


class Planted:
    def __reduce__(self) -> tuple:
        return (print, ("code of the file ran",))


def test_files_that_are_not_hed_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(ModelError, match=r"are no file; give one, or edges=sobel"):
        load_hed(str(tmp_path / "nowhere.pth"))
    torch.save({"conv1_1.weight": torch.zeros(64, 3, 3, 3)}, tmp_path / "part.pth")
    with pytest.raises(ModelError, match=r"lacks HED's weights conv1_1.bias, "):
        load_hed(str(tmp_path / "part.pth"))
    torch.save({name: values[:1] for name, values in HED().state_dict().items()}, tmp_path / "shapes.pth")
    with pytest.raises(ModelError, match=r"have other shapes than HED's"):
        load_hed(str(tmp_path / "shapes.pth"))
    torch.save(Planted(), tmp_path / "planted.pth")
    with pytest.raises(ModelError, match=r"cannot read the HED weights"):
        load_hed(str(tmp_path / "planted.pth"))
    assert "code of the file ran" not in capsys.readouterr().out


@pytest.mark.parametrize("seed", range(3))
def test_canny_is_scikit_image_s(seed: int) -> None:
    images = (images_like(2, 3, (40, 52), seed=seed) / 4 + 0.5).clamp(0, 1)
    ours = canny_edges(images)
    for image, edges in zip(images, ours, strict=True):
        luma = (image.permute(1, 2, 0).double() @ torch.tensor(LUMA).double()).numpy()
        expected = torch.from_numpy(
            skimage.feature.canny(luma, sigma=1, low_threshold=0.1, high_threshold=0.2, mode="nearest")
        )
        assert 0.01 < float(edges.mean()) < 0.5
        assert float((edges.bool() != expected).float().mean()) < 1e-3
    assert not canny_edges(torch.full((1, 3, 9, 9), 0.4)).any()
    assert bool((canny_edges(step_image())[0, 2:-2].nonzero()[:, 1] - 16).abs().max() <= 1)


def test_a_run_s_canny_is_the_cam_times_thin_lines(images: Tensor) -> None:
    method = FeatureCAM(net(), edges="canny")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (method.mean, method.std))
    edges = canny_edges((images * std + mean).clamp(0, 1))
    cam = spread(GradCAM(net()).explain(images, 1).maps)
    torch.testing.assert_close(method.explain(images, 1).maps, spread(cam * edges), rtol=1e-4, atol=1e-5)


def test_without_weights_the_error_names_them_and_the_other_way() -> None:
    with pytest.raises(ModelError, match=r"--feature-cam.hed-weights FILE\), or take --feature-cam.edges sobel"):
        FeatureCAM(net())
    for edges in ("sobel", "canny"):
        with pytest.raises(SettingsError, match=f"hed_weights has no effect with edges={edges}"):
            FeatureCAM(net(), edges=edges, hed_weights="hed.pth")


def edges_of(method: FeatureCAM, images: Tensor) -> Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (method.mean, method.std))
    return scharr_edges((images * std + mean).clamp(0, 1))


def test_it_is_the_min_maxed_cam_times_the_edges(images: Tensor) -> None:
    model = net()
    cam = spread(GradCAM(model).explain(images, 1).maps)
    for variant in ("edges", "soft", "edges_only"):
        method = FeatureCAM(model, edges="sobel", variant=variant)
        edges = edges_of(method, images)
        product = {"edges": cam * edges, "soft": cam * (0.3 + 0.7 * edges), "edges_only": edges}[variant]
        torch.testing.assert_close(method.explain(images, 1).maps, spread(product), rtol=1e-4, atol=1e-5)
        assert bool((product <= (1 if variant == "edges_only" else cam + 1e-6)).all())


def test_with_edges_everywhere_it_is_grad_cam(images: Tensor) -> None:
    model, method = net(), FeatureCAM(net(), edges="sobel")
    vars(method)["edge_source"] = lambda seen: torch.ones(len(seen), *seen.shape[2:])
    expected = spread(GradCAM(model).explain(images, 1).maps)
    torch.testing.assert_close(method.explain(images, 1).maps, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("third", ["edges", "masked"])
def test_fused_weighs_three_cams_by_their_confidence(third: str, images: Tensor) -> None:
    model = net()
    method = FeatureCAM(model, edges="sobel", variant="fused", third=third)
    edges = edges_of(method, images)[:, None]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (method.mean, method.std))
    seen = (images * std + mean).clamp(0, 1)
    last = edges.expand_as(seen) if third == "edges" else seen * edges
    inputs = [images, ((seen + 0.5 * edges).clamp(0, 1) - mean) / std, (last - mean) / std]
    cams = torch.stack([spread(GradCAM(model).explain(each, 1).maps) for each in inputs])
    with torch.no_grad():
        weights = torch.stack([model(each).softmax(1)[:, 1] for each in inputs])
    total = (cams * (weights / weights.sum(0))[:, :, None, None]).sum(0)
    result = method.explain(images, 1)
    torch.testing.assert_close(result.maps, spread(total * edges[:, 0]), rtol=1e-3, atol=1e-4)
    assert result.n_backwards == [3, 3]


def test_another_class_changes_the_map_and_not_the_edges(images: Tensor) -> None:
    model = net()
    method = FeatureCAM(model, edges="sobel")
    assert not torch.equal(method.explain(images, 0).maps, method.explain(images, 1).maps)
    alone = FeatureCAM(model, edges="sobel", variant="edges_only")
    assert torch.equal(alone.explain(images, 0).maps, alone.explain(images, 1).maps)


def test_a_flat_image_gives_no_map() -> None:
    result = FeatureCAM(net(), edges="sobel").explain(torch.full((1, 3, 24, 24), 0.2))
    assert result.statuses == ["constant_map"]


def test_a_grey_image_is_seen_with_its_own_mean() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), *net()[1:]).eval()
    images = images_like(2, 1, (24, 24), seed=3)
    method = bind_method("feature_cam", model, edges="sobel", mean=(0.4,), std=(0.2,), variant="edges_only")
    expected = scharr_edges((0.2 * images + 0.4).clamp(0, 1).expand(-1, 3, -1, -1))
    torch.testing.assert_close(method.explain(images, 0).maps, spread(expected), rtol=1e-4, atol=1e-5)
    with pytest.raises(SettingsError, match="has no setting 'mean'"):
        bind_method("grad_cam", model, mean=(0.4,))
