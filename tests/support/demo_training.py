"""The demo's network and some of its training images as files, for tests of trained explainers."""

from __future__ import annotations

from pathlib import Path

from heatlas.pipeline.demo import dataset
from heatlas.pipeline.settings.load import load_settings
from heatlas.pipeline.settings.run import Settings
from PIL import Image

MODEL = "heatlas.pipeline.demo.network:demo_model"


def draw_training_images(folder: Path, count: int, start: int = 0) -> Path:
    """`count` images of the demo's training part in this folder, from one of them on."""
    for number in range(start, start + count):
        sample = dataset.demo_sample("train", number)
        Image.fromarray(sample.image).save(folder / f"{sample.id}.png")
    return folder


def run_settings(images: Path, out: Path, **changes: object) -> Settings:
    """The demo's network on these images, in this process."""
    return load_settings({"model": MODEL, "data": str(images), "out": str(out), "workers": 0, **changes})
