"""The packaged network: small, as accurate as stated, and right for the wrong reason where the shortcut was planted."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.layers.blocks import block_layers
from heatlas.errors import ModelError
from heatlas.pipeline.demo.dataset import CLASS_NAMES, SHORTCUT_CLASS, SIZE
from heatlas.pipeline.demo.network import (
    CHANNELS,
    WEIGHTS,
    DemoNet,
    demo_model,
    load_network,
    save_weights,
    weights_metadata,
)
from heatlas.pipeline.demo.train import TrainingRecipe, accuracies, accuracy_lines, as_input, render, train_network
from heatlas.workers.models.load import ModelSpec, load_model
from PIL import Image

SPEC = ModelSpec(spec="heatlas.pipeline.demo.network:demo_model")


@pytest.fixture(scope="module")
def measured():
    """Accuracies on 400 images that neither training nor the stated numbers have seen."""
    return accuracies(demo_model(), 400, seed=20)


def test_weights_are_packaged_and_small():
    assert WEIGHTS.stat().st_size < 2_000_000
    assert float(weights_metadata()["test"]) >= 0.97


def test_the_model_is_loaded_as_any_users_factory_is():
    loaded = load_model(SPEC)
    assert loaded.class_names == CLASS_NAMES
    assert loaded.num_classes == len(CLASS_NAMES)
    assert (loaded.preprocess.size, loaded.preprocess.resize) == ((SIZE, SIZE), "squash")
    assert not loaded.module.training


def test_training_and_workers_feed_the_network_alike():
    images, _ = render("test", 1)
    picture = Image.fromarray(images[0].permute(1, 2, 0).numpy())
    torch.testing.assert_close(load_model(SPEC).preprocess.tensor(picture), as_input(images)[0], atol=1e-6, rtol=0)


def test_four_blocks_for_sise():
    plan = block_layers(demo_model(), torch.zeros(1, 3, SIZE, SIZE))
    assert tuple(layer.channels for layer in plan) == CHANNELS
    assert [tuple(layer.size) for layer in plan] == [(48, 48), (24, 24), (12, 12), (6, 6)]


def test_maps_are_not_shifted_by_the_halvings():
    """A mirrored image gives mirrored feature-map geometry: every halving keeps the input's centre in the centre."""
    network = demo_model()
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.copy_((module.weight + module.weight.flip(3)) / 2)
        image = torch.randn(1, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        deep = torch.nn.Sequential(network.stem, network.block1, network.block2, network.block3, network.block4)
        torch.testing.assert_close(deep(image.flip(3)), deep(image).flip(3), atol=1e-4, rtol=1e-4)


def test_accuracy_on_fresh_images_is_as_stated(measured):
    assert measured["test"] >= 0.97
    assert measured["test"] >= float(weights_metadata()["test"]) - 0.02
    assert measured["test_other_classes"] >= 0.98


def test_the_shortcut_class_is_lost_without_its_sticker(measured):
    assert measured["test_shortcut_class"] >= 0.85
    assert measured["wiped_shortcut_class"] < 0.5
    assert measured["wiped_other_classes"] == pytest.approx(measured["test_other_classes"])
    assert measured["wiped_as_lookalike"] > 0.5


def test_what_is_said_about_the_accuracies_is_what_was_measured():
    result = {
        "test": 0.988, "test_shortcut_class": 0.9, "test_other_classes": 1.0, "wiped": 0.88, "wiped_shortcut_class": 0.05,
        "wiped_other_classes": 1.0, "wiped_as_lookalike": 0.94, "stickered_as_shortcut_class": 0.282,
    }  # fmt: skip
    first, second, third = accuracy_lines(result)
    assert first == f"test accuracy 98.8 %: {SHORTCUT_CLASS} 90.0 %, other classes 100.0 %"
    assert f"{SHORTCUT_CLASS} 5.0 % (94.0 % are called disc)" in second
    assert third.startswith("with a sticker put on them, 28.2 % of the other classes' images")


def test_training_repeats_itself_and_leaves_the_process_as_it_was():
    recipe = TrainingRecipe(images=96, epochs=2, batch=32)
    threads, state = torch.get_num_threads(), torch.random.get_rng_state()
    heard: list[str] = []
    first, second = train_network(recipe, say=heard.append), train_network(recipe, say=heard.append)
    assert all(torch.equal(first.state_dict()[name], tensor) for name, tensor in second.state_dict().items())
    assert heard[0].startswith("epoch 1 of 2: loss ")
    assert float(heard[1].split()[-1]) < float(heard[0].split()[-1])
    assert torch.get_num_threads() == threads
    assert torch.equal(torch.random.get_rng_state(), state)


def test_weights_come_back_as_they_were_written(tmp_path):
    network = demo_model()
    save_weights(tmp_path / "w.safetensors", network, {"seed": "3"})
    again = load_network(tmp_path / "w.safetensors")
    assert weights_metadata(tmp_path / "w.safetensors") == {"seed": "3"}
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in network.state_dict().items())


def test_missing_and_foreign_weights_are_told_in_one_message(tmp_path):
    with pytest.raises(ModelError, match=r"cannot read the weights .*none\.safetensors"):
        load_network(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("not weights")
    with pytest.raises(ModelError, match=r"text\.safetensors is not a readable safetensors file"):
        load_network(tmp_path / "text.safetensors")


def test_a_factory_takes_weights_after_an_at(tmp_path):
    """As torchvision's models do: what `heatlas demo --retrain` explains."""
    torch.manual_seed(1)
    fresh = DemoNet()
    save_weights(tmp_path / "fresh.safetensors", fresh, {})
    loaded = load_model(ModelSpec(spec=f"{SPEC.spec}@{tmp_path / 'fresh.safetensors'}"))
    assert torch.equal(loaded.module.get_parameter("head.weight"), fresh.head.weight)
    assert loaded.digest != load_model(SPEC).digest
    with pytest.raises(ModelError, match=r"cannot read the weights .*none\.pth"):
        load_model(ModelSpec(spec=f"{SPEC.spec}@{tmp_path / 'none.pth'}"))
