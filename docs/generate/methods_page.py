"""Writes docs/methods.md and a page for each method from the registry and docs/method-notes.md: `python -m docs.generate methods`."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from heatlas.engine.methods.cams import CAMS
from heatlas.engine.methods.protocol import Method
from heatlas.engine.methods.registry import built_in, find_method
from heatlas.pipeline.cli.method_table import STATUSES

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "methods.md"
PAGES = ROOT / "docs" / "methods"
NOTES = ROOT / "docs" / "method-notes.md"
MADE = "<!-- Made by `python -m docs.generate methods`; do not edit, run it again. -->"
EXAMPLE = ROOT / "docs" / "example_method"
ARCHITECTURES = {"cnn": "CNN", "vit": "ViT with a class token", "any": "any"}
RESOLUTIONS = {"input": "pixels", "layer": "cells of a layer", "patch": "patches", "grid": "a grid of its own"}
HEADER = """<!-- Made by `python -m docs.generate methods`; do not edit, run it again. -->
# Methods

    heatlas methods                                  # the table; --names, --json
    heatlas explain ... --method rise --rise.masks 8000
    heatlas explain --help                           # the settings of every method

Store, metrics, chance baselines, `--sanity`, resuming and all guarantees are the same for every method. A run has one method; its settings, and no other
method's, belong to the run's fingerprint, so that a run resumed with others is refused. Two methods on the same images are two
runs, which `heatlas compare` compares. A model that a method cannot explain is refused before anything is written, with the methods that fit.
`layer_agreement` compares SISE's block maps and is null with other methods. Each method has a page with its settings, its columns, and how it departs from its paper or its released code
(all of the latter in [method-notes.md](method-notes.md)). What their metrics are stands in [evaluation.md](evaluation.md), how much of a map hangs on what the model learnt in [randomised-models.md](randomised-models.md).

    import heatlas
    found = heatlas.explainer("score_cam", model).explain(images, targets=[207, 281])
    found.maps, found.statuses, found.extras, found.n_forwards

Passes are forwards (F) and backwards (B) of the model per image and class with default settings, K the number of masks. Methods
whose own passes do not show the logits of the image (`integrated_gradients`, `ucag`, `fovex`, `consensus`, `bee_select`, `expected_gradients`) take one more forward, which finds the predicted class. `n_forwards` and `n_backwards` in the store
count all passes of a row, its metrics included.
"""
PASSES = {
    "sise": "1F 1B + K F, K maps of all blocks",
    "ada_sise": "1F 1B + K F, K fewer maps",
    "sise_plus": "1F 1B + K F, K maps of all blocks",
    "score_cam": "1F + K F, K maps of the layer",
}
MEASURED = {
    "ada_sise": "On 300 photographs with MobileNetV2 it takes 209 forwards an image, where SISE at mu = 0 takes 661 (means, [evaluation.md](evaluation.md)).",
}
"""Counts that took no timing; what maps are worth stands in docs/evaluation.md."""
OWN = """## A method of your own

A method is one file: a class with its settings, its declaration and its algorithm. A package brings it by an entry point of the group
`heatlas.methods` whose module registers it. Command lines import that module for the settings, so it takes torch from
`heatlas.engine.lazy_torch`: `heatlas explain --help` stays fast. Names of heatlas's own methods are taken.
The package must be installed wherever workers run. This one, [example_method](example_method/pyproject.toml), is what the tests install:
"""
CONTRACT = """What `maps` promises, and `tests/engine/contract` checks of every method here:

- Maps at the input's size, float32, in [0, 1]; constant where an image gives no map, NaN where it breaks. heatlas makes the statuses
  `constant_map` and `non_finite` of them; no row ever holds a NaN.
- A row does not depend on the other images of its batch. Batches always have the same size (`images` in the declaration, 8, or the run's
  `--batch-size` or its largest shard where that is smaller); the last is filled up with copies.
- Whatever is random is drawn from `seeds`, which stand for the images, and from nothing else; a setting `seed` is the run's `--seed`.
- The model is in eval mode and is left as it came. Passes of a method that needs gradients are float32 whatever `--precision` says
  (true float32, without TF32); those of others run under autocast.
- `cost` is what is spent: the passes that a hook on the last layer counts.
- `extras` are the columns that the declaration names, one number or numbers of a fixed shape for each image.
  `extra_shapes(image)` tells the shapes; without it a run explains one empty image to find them.
- A method whose own passes show the logits sets `reads_logits = True`, hands them out in `MethodMaps` and takes -1 for the predicted class: one
  forward then serves prediction and explanation.
- `ModelError` from `bind` refuses a model; `SettingsError` from `check`, which sees the settings alone, a value.

A method that is no function of a batch implements `explain_image`, a generator: it yields requests (`Rows` of a batch, `Score`s of masks,
several conversations `Together`) and is sent the replies, while a scheduler fills batches with the requests of all images in flight
(`engine/requests.py`). `engine/methods/sise.py` and, by way of `MaskMethod`, `rise.py` are written so.
"""


def main() -> None:
    PAGE.write_text(page())
    PAGES.mkdir(exist_ok=True)
    for name in built_in():
        (PAGES / f"{name}.md").write_text(method_page(find_method(name)))
    print(f"wrote {PAGE} and {len(built_in())} pages of {PAGES}")


def page() -> str:
    methods = [find_method(name) for name in built_in()]
    head = "| method | models | passes | needs | map is made of | source |\n|---|---|---|---|---|---|\n"
    parts = [HEADER + "\n" + head + "\n".join(map(line, methods)), OWN + example(), CONTRACT.rstrip()]
    return "\n\n".join(parts) + "\n"


def method_page(method: Method) -> str:
    """What the registry declares, then what docs/method-notes.md says of it."""
    flags = f"    heatlas explain --model MODEL --data DATA --out OUT --method {method.name}"
    facts = [
        f"Models: {ARCHITECTURES[method.architecture]}. Passes for an image and a class: {passes(method)}. The map is made of {RESOLUTIONS[method.resolution]}."
    ]
    if method.trained:
        facts.append("It needs an explainer that `heatlas train` made ([training.md](../training.md)).")
    own = {"sise": "[sise.md](../sise.md)", "ada_sise": "[sise.md](../sise.md)", "sise_plus": "[sise.md](../sise.md)"}
    if method.name in own:
        facts.append(f"How it is implemented stands in {own[method.name]}.")
    body = from_folder(section(method).partition("\n\n")[2])
    parts = [MADE, f"# {method.name}", flags, body, " ".join(facts), *notes_of(method.name)]
    return "\n\n".join(parts) + "\n"


def notes_of(name: str) -> list[str]:
    """The sections of docs/method-notes.md whose heading names the method."""
    sections = re.split(r"^## ", NOTES.read_text(), flags=re.MULTILINE)[1:]
    texts = [text.partition("\n")[2] for text in sections if f"`{name}`" in text.partition("\n")[0]]
    plain = [re.sub("<!--.*?-->\\n*", "", text).strip() for text in texts]
    return [f"## Notes\n\n{from_folder(text)}" for text in plain]


def from_folder(text: str) -> str:
    """Links as they are from a page of docs/methods."""
    return re.sub(r"\]\((?=#)", "](../method-notes.md", re.sub(r"\]\((?!https?:|#|\.\./)", "](../", text))


def line(method: Method) -> str:
    needs = [*(["gradients"] if method.gradients else []), *(["[training](training.md)"] if method.trained else [])]
    cells = (
        f"[`{method.name}`](methods/{method.name}.md)", ARCHITECTURES[method.architecture], passes(method), ", ".join(needs) or "-",
        RESOLUTIONS[method.resolution], method.source,
    )  # fmt: skip
    return f"| {' | '.join(cells)} |"


def passes(method: Method) -> str:
    cost = method.cost(method.settings())
    if cost is None:
        return PASSES[method.name]
    return " ".join(f"{count}{kind}" for count, kind in ((cost.forwards, "F"), (cost.backwards, "B")) if count)


def section(method: Method) -> str:
    told = inspect.getdoc(importlib.import_module(method.explainer.__module__))
    if method.name in CAMS:
        told = "\n\n".join(filter(None, (inspect.getdoc(method.explainer), inspect.getdoc(CAMS[method.name].weigh))))
    facts = [f"Source: {method.source} ({STATUSES[method.status]})."]
    if method.completed:
        facts.append(f"Ours: {method.completed}.")
    if method.stochastic:
        facts.append("Draws from the run's seed and the image's id.")
    text = f"## {method.name}\n\n{method.summary[:1].upper()}{method.summary[1:]}. {' '.join(facts)}"
    if method.name not in ("sise", "ada_sise") and told:
        text += f"\n\n{told}"
    if method.name in MEASURED:
        text += f" {MEASURED[method.name]}"
    settings = [setting for setting in dataclasses.fields(method.settings) if setting.name != "seed"]
    if settings:
        hints = get_type_hints(method.settings)
        rows = [
            f"| `--{method.name.replace('_', '-')}.{setting.name.replace('_', '-')}` | {kind(hints[setting.name])} | {default(setting)} | {setting.metadata['help']} |"
            for setting in settings
        ]
        text += "\n\n| setting | type | default | |\n|---|---|---|---|\n" + "\n".join(rows)
    if method.extras:
        text += "\n\n" + "\n".join(f"- Column `{name}`: {meaning}." for name, meaning in method.extras.items())
    return text


def kind(hint: Any) -> str:
    """A type in words."""
    if get_origin(hint) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(hint))
    if type(None) in get_args(hint):
        return kind(next(choice for choice in get_args(hint) if choice is not type(None)))
    if get_origin(hint) is tuple:
        return "names"
    return {bool: "yes or no", int: "whole number", float: "number", str: "text"}[hint]


def default(setting: dataclasses.Field[Any]) -> str:
    value = setting.default
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return ", ".join(f"`{choice}`" for choice in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"`{value:.4g}`" if isinstance(value, float) else f"`{value}`"


def example() -> str:
    groups = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]["entry-points"]
    points = [text for group, ones in groups.items() for text in points_of(group, ones)]
    shown = [("pyproject.toml", "toml", "\n".join(points).strip())]
    shown += [
        (f"plain_gradient/{name}", "python", (EXAMPLE / "plain_gradient" / name).read_text().strip())
        for name in ("saliency.py",)
    ]
    return "\n".join(f"\n`{name}`:\n\n```{language}\n{text}\n```" for name, language, text in shown)


def points_of(group: str, ones: dict[str, str]) -> Iterable[str]:
    return ["", f'[project.entry-points."{group}"]', *(f'{name} = "{value}"' for name, value in ones.items())]
