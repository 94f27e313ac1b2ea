"""Train with the user's own function: it is given a manifest, starting weights, a place and a seed, and gives weights."""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from ...errors import HeatlasError, RunError, UsageError
from ...workers.images.preprocess import Preprocess
from ...workers.models.behaviour import own_module
from ...workers.models.factory import import_user_module, module_attribute
from ...workers.models.load import LoadedModel
from ...workers.models.weights import fit, read_weights
from ..decisions.rle import decode_mask
from ..verdict.image_decisions import DecidedImage
from .marked_batches import removed_and_pasted
from .recipes import FixSettings
from .training_images import TrainingSet

COLUMNS: tuple[str, ...] = ("id", "uri", "label", "shortcut_mask", "changed_from")
Trainer = Callable[[str, str | None, str, int], Any]
CHUNK = 256


def user_trainer(name: str) -> Trainer:
    """The function `package.module:fit`. Importing it runs its code.

    Raises:
        UsageError: If it is no name of a function.
        ModelError: If it cannot be imported.
    """
    module, colon, function = name.partition(":")
    if not (module and colon and function):
        raise UsageError(f"--trainer {name!r} is not package.module:function")
    trainer = module_attribute(import_user_module(module), function, module)
    if not callable(trainer):
        raise UsageError(f"--trainer {name} is a {type(trainer).__name__}, not a function to call")
    return trainer


def write_training_manifest(
    folder: Path, data: TrainingSet, settings: FixSettings, preprocess: Preprocess, class_names: tuple[str, ...]
) -> str:
    """Write `manifest.csv` into a local folder: id, uri, label, shortcut_mask (PNG, in pixels of the upright image), changed_from.

    For patchmix it also lists changed copies of the images, PNGs of the network's input size, each with the id of its original in
    `changed_from`: of every image that carries a mark one without it, of the others one each with a mark of another class.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    for image, label in zip(data.loaded.images, data.labels.tolist(), strict=True):
        mask = _write_mask(folder, image)
        rows.append(
            {"id": image.sample.id, "uri": image.sample.uri, "label": class_names[label] if class_names else str(label),
             "shortcut_mask": mask, "changed_from": ""}
        )  # fmt: skip
    if settings.recipe == "patchmix":
        random = np.random.default_rng(settings.first_seed)
        for start in range(0, len(data), CHUNK):
            places = np.arange(start, min(start + CHUNK, len(data)))
            part = data.loaded.taken(places)
            changed = removed_and_pasted(part, data.marks, 1.0, random)
            for place, before, after in zip(places, part.inputs, changed, strict=True):
                if not torch.equal(before, after):
                    rows.append(
                        {**rows[place], **_write_copy(folder, rows[place], after, preprocess), "shortcut_mask": ""}
                    )
    with open(folder / "manifest.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)
    return str(folder / "manifest.csv")


def train_by_user(
    trainer: Trainer, name: str, manifest: str, model: LoadedModel, folder: Path, settings: FixSettings, seed: int
) -> dict[str, Tensor]:
    """Call the trainer and read the weights that it gives.

    Raises:
        RunError: If it raises, gives no weights, or weights that are not finite.
        ModelError: If its weights do not fit the model.
    """
    initial, module = None, own_module(model.module)
    if not settings.from_scratch:
        initial = str(folder / "init.safetensors")
        save_file(
            {key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}, initial
        )
    out = folder / f"trained-{seed}.safetensors"
    out.unlink(missing_ok=True)  # of a call that was cut off: it must not pass for this one's
    try:
        returned = trainer(manifest, initial, str(out), seed)
    except HeatlasError:
        raise
    except Exception as error:
        raise RunError(f"--trainer {name} failed with seed {seed}: {type(error).__name__}: {error}") from error
    if returned is None and not out.exists():
        raise RunError(f"--trainer {name} wrote no weights to {out} and gave no path of any; let it do either")
    if not (returned is None or isinstance(returned, str | os.PathLike)):
        raise RunError(
            f"--trainer {name} gave a {type(returned).__name__}; let it give the path of its weights, or write them to `out` and give None"
        )
    place = str(out) if returned is None else str(os.fspath(returned))
    fit(module, read_weights(place).tensors, place)
    state = {key: value.detach().cpu().clone().contiguous() for key, value in module.state_dict().items()}
    if broken := [
        key for key, value in state.items() if value.is_floating_point() and not bool(value.isfinite().all())
    ]:
        raise RunError(f"--trainer {name} diverged with seed {seed}: {broken[0]} holds numbers that are not finite")
    return state


def _write_mask(folder: Path, image: DecidedImage) -> str:
    if image.region is None:
        return ""
    name = f"masks/{_digest(image.sample.id)}.png"
    (folder / "masks").mkdir(exist_ok=True)
    Image.fromarray(decode_mask(image.region).astype(np.uint8) * 255).save(folder / name)
    return name


def _write_copy(folder: Path, row: dict[str, str], inputs: Tensor, preprocess: Preprocess) -> dict[str, str]:
    if preprocess.channels not in (1, 3):
        raise UsageError("recipe patchmix with --trainer writes changed copies as PNG, for images of 1 or 3 channels")
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in (preprocess.mean, preprocess.std))
    pixels = ((inputs * std + mean).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    if preprocess.channel_order == "bgr":
        pixels = pixels[..., ::-1]
    name = f"changed/{_digest(row['id'])}.png"
    (folder / "changed").mkdir(exist_ok=True)
    Image.fromarray(np.ascontiguousarray(pixels.squeeze())).save(folder / name)
    return {"id": f"{row['id']}-changed", "uri": str((folder / name).resolve()), "changed_from": row["id"]}


def _digest(identity: str) -> str:
    return hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()[:20]
