"""`hf:DIR_OR_NAME`: image classifiers and segmentation models of Hugging Face transformers; needs the extra `hf`.

A folder as `save_pretrained` writes it, or a name on the hub (downloaded once, then read from its cache; `HF_HUB_OFFLINE=1`
asks nobody). Code that a repository brings along is never run, and pickled weights are refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from ..images.own_processor import pixel_values, processor_text
from ..images.preprocess import Preprocess
from ..protocols import SampleReader
from .built_model import UNSTATED, FamilyModel
from .optional_package import require_package
from .processor_match import matched_preprocess, pixel_numbers
from .timm import preprocess_from_timm

GENERIC = "LABEL_"


class LogitsOnly(nn.Module):
    """The model's logits as a plain tensor."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        return self.model(pixel_values=images).logits


def load_hf(name: str, reader: SampleReader | None = None) -> FamilyModel:
    """Load model and image processor.

    Args:
        name: Folder or name on the hub.
        reader: Not used: transformers reads its own files.

    Raises:
        ModelError: When it is not there, is no image classifier or segmentation model, or its processor does what heatlas cannot.
    """
    transformers = require_package("transformers", "hf", f"hf:{name}")
    if "://" in name:
        raise ModelError(f"hf:{name} must be a local folder or a name on the hub; copy the folder here first")
    place = str(Path(name).expanduser()) if Path(name).expanduser().is_dir() else name
    config = _asked(lambda: transformers.AutoConfig.from_pretrained(place), name)
    kinds = config.architectures or []
    auto = transformers.AutoModelForImageClassification
    if any("Segmentation" in kind for kind in kinds):
        auto = transformers.AutoModelForSemanticSegmentation
    model, loaded = _asked(
        lambda: auto.from_pretrained(place, dtype=torch.float32, use_safetensors=True, output_loading_info=True), name
    )
    _refuse_random(loaded, name)
    preprocess, origin = _preprocess(transformers, place, name, config)
    multi_label = getattr(config, "problem_type", None) == "multi_label_classification"
    return FamilyModel(LogitsOnly(model), preprocess, _names(config), origin, _code(config), multi_label=multi_label)


def _refuse_random(loaded: Mapping[str, Any], name: str) -> None:
    """transformers fills what the file lacks with random numbers, such as the classifier of a backbone, and only warns."""
    lacking = sorted(loaded.get("missing_keys") or ())
    if lacking:
        more = f" and {len(lacking) - 3} more" if len(lacking) > 3 else ""
        raise ModelError(
            f"the weights of hf:{name} lack {', '.join(lacking[:3])}{more}, which would be random; give a folder with a trained "
            "classifier, or load the model in a Python factory and make a feature bank (`heatlas bank`)"
        )


def _code(config: Any) -> str:
    """Stands for the architecture: the configuration without what depends on where it lies and who wrote it."""
    said = {
        name: value for name, value in config.to_dict().items() if name[0] != "_" and name != "transformers_version"
    }
    return hashlib.sha256(json.dumps(said, sort_keys=True, default=str).encode()).hexdigest()


def _asked(call: Any, name: str) -> Any:
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return call()
    except Exception as error:  # transformers and the hub's client raise nearly anything
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ModelError(
            f"cannot load hf:{name}: {lines[0][:300]}; give a folder that save_pretrained wrote (config.json, model.safetensors, "
            "preprocessor_config.json), or a name on the hub with a connection"
        ) from error


def _names(config: Any) -> tuple[str, ...] | None:
    names = [str(config.id2label.get(index, f"{GENERIC}{index}")) for index in range(config.num_labels)]
    return None if all(name.startswith(GENERIC) for name in names) else tuple(names)


def _preprocess(transformers: Any, place: str, name: str, config: Any) -> tuple[Preprocess, str]:
    try:
        said, _ = transformers.image_processing_base.ImageProcessingMixin.get_image_processor_dict(place)
    except Exception:  # there is none
        said = None
    if said is None and config.model_type != "timm_wrapper":
        size = getattr(config, "image_size", None)
        side = size if isinstance(size, int) else 224
        return Preprocess(size=(side, side)), UNSTATED
    origin = f"{'preprocessor_config' if said is not None else 'config'}.json of {name}"
    processor = _asked(lambda: transformers.AutoImageProcessor.from_pretrained(place), name)
    try:
        return preprocess_from_processor(processor), origin
    except Exception as error:  # processors raise nearly anything
        raise ModelError(
            f"the image processor of hf:{name} does what heatlas cannot ({' '.join(str(error).split())[:300]}); load the model in a Python "
            "factory whose `preprocess` says how images become its input"
        ) from error


def preprocess_from_processor(processor: Any) -> Preprocess:
    """The `Preprocess` that equals an image processor of transformers.

    Raises:
        ValueError: For a processor that does something else; whatever else it raises on an image.
    """
    if (config := getattr(processor, "data_config", None)) is not None:  # timm's transforms in a wrapper
        return preprocess_from_timm(config)
    said = json.loads(processor.to_json_string())
    numbers = pixel_numbers({name: value for name, value in said.items() if "size" in name})
    share = said.get("crop_pct")
    if share:
        numbers += [int(number / share) for number in numbers]
    text = processor_text("hf", name=type(processor).__name__, settings=said)
    return matched_preprocess(lambda image: pixel_values(processor, image), numbers, text)
