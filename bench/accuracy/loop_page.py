"""The part of docs/loop.md that `python -m bench loop --page` writes: every figure and every sentence follows from the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import heatlas
import numpy as np
from heatlas.pipeline.demo.network import MEAN, STD
from heatlas.pipeline.features.cue_splits import FEWEST, SHARES
from heatlas.pipeline.verdict.counterfactual_sets import load_marks, with_mark, without_mark
from heatlas.pipeline.verdict.image_decisions import decided_images, load_images
from heatlas.pipeline.verdict.judge import Verdict
from heatlas.workers.models.load import ModelSpec, load_model
from PIL import Image

from ..page_part import machine, table, write_part
from .loop_sets import SIZE, LoopSet

PARTS: Mapping[str, str] = {"shapes": "loop", "tiles": "loop-tiles"}
"""Names of the parts of the page, and of the folders of a run."""
RULES: Mapping[str, tuple[int, str]] = {
    "shapes": (0, "a line on the side of harm stands against *better*"),
    "tiles": (1, "*better* takes a line that measures what the decisions ask for"),
}
"""The seed of the run after which a rule of the verdict was made, and the rule."""


@dataclass(frozen=True)
class LoopResult:
    """What a run measured."""

    chosen: LoopSet
    counts: Mapping[str, int]
    """Images by split."""
    seed: int
    accused: Mapping[str, int]
    """Rows of the shortcut queue by class."""
    right: Mapping[str, tuple[int, int]]
    """By marked class: images predicted right, with and without the mark."""
    confirmed: Sequence[str]
    """What `heatlas intervene` says of each mark."""
    spread: Sequence[Sequence[str]]
    verdicts: Sequence[tuple[str, str, Verdict]]
    """Recipe, what the verdict should say, and the verdict."""
    seconds: float


def write_page(page: Path, result: LoopResult, decisions: int) -> None:
    """The results between the markers of the page."""
    chosen = result.chosen
    rows = [row for verdict in result.verdicts for row in verdict_rows(*verdict)]
    command = (
        f"python -m bench loop{'' if chosen.name == 'shapes' else f' --data {chosen.name}'} --seed {result.seed} --page"
    )
    text = [
        f"{result.counts['train']} training and {result.counts['test']} test images, three seeds; {chosen.title}; {result.seconds / 60:.0f} minutes in all.", "",
        f"- **Found** by `curate --probe`, rows of the shortcut queue by class: {', '.join(f'{name}: {count}' for name, count in result.accused.items()) or 'none'}.",
        *(f"- **Confirmed**: {line}" for line in result.confirmed), "",
        f"Spread from at most {decisions} decisions per mark:", "",
        *table(("mark of", "F1 of images with it", "mask IoU", "spread to", "true"), result.spread), "",
        *table(("repair", "line", "before, by seed", "after, by seed", "after - before (95 %)", "verdict", "single pairs of seeds"), rows), "",
        *found_sentences(result), *verdict_sentences(result), "",
        f"`{command}`, {machine()}; not measured on a GPU.",
    ]  # fmt: skip
    write_part(page, PARTS[chosen.name], "\n".join(text))


def found_sentences(result: LoopResult) -> list[str]:
    """Which marks the queue lists, which classes it accuses wrongly, and why it misses what it misses."""
    marked = result.chosen.marked
    listed, wrong = (
        [name for name in marked if name in result.accused],
        [name for name in result.accused if name not in marked],
    )
    lines = [
        f"Of the {len(marked)} marked {'class' if len(marked) == 1 else 'classes'} the queue lists {_names(listed)}"
        + (f", and {_names(wrong)}, which carries no mark." if wrong else " and no other class.")
    ]
    for name in marked:
        with_it, without_it = result.right[name]
        if name in result.accused:
            continue
        share = with_it / max(1, with_it + without_it)
        if without_it < FEWEST or share > SHARES[1]:
            lines.append(
                f"It cannot see that of {name}: the search compares images of a class that are predicted right, and needs {FEWEST} of either kind and "
                f"at most {100 * SHARES[1]:.0f} % of one; of the {with_it + without_it} here {with_it} carry the mark and {without_it} do not."
            )
        else:
            lines.append(
                f"It misses that of {name}, although of the images predicted right {with_it} carry the mark and {without_it} do not."
            )
    return lines


def verdict_sentences(result: LoopResult) -> list[str]:
    """Whether the verdicts were right, as a whole and in single pairs of seeds."""
    lines = []
    for recipe, expected, verdict in result.verdicts:
        right = verdict.word in expected
        lines.append(f"{recipe} is called {verdict.word}" + ("." if right else f", and **expected was {expected}**."))
        if recipe == "sham":
            words = [word for line in verdict.lines if line.judged for word in line.pair_words]
            lines.append(
                f"Judged by images alone, single pairs of seeds call {words.count('better')} of the sham's {len(words)} values better and "
                f"{words.count('worse')} worse: that is what several seeds are for."
            )
    seed, rule = RULES[result.chosen.name]
    lines.append(
        f"The rule that {rule} (`The verdict` above) was made after a run on these very images, in which the sham was called better; it needs a run "
        "with another `--seed`."
        if result.seed == seed
        else f"Images, networks and sham are others than those of `--seed {seed}`, after which the rule was made that {rule}."
    )
    return lines


def _names(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names) or "none"


def verdict_rows(recipe: str, expected: str, verdict: Verdict) -> list[list[str]]:
    """The judged lines of a verdict, with the values of every seed."""
    rows = [[f"**{recipe}**", "whole", "", "", "", f"**{verdict.word}** (expected {expected})", ""]]
    for line in verdict.lines:
        if line.judged:
            measured = line.measured
            seeds = [
                " ".join(f"{value:.2f}" for value in values) for values in (measured.first_seeds, measured.second_seeds)
            ]
            pairs = ", ".join(f"{line.pair_words.count(word)} {word}" for word in dict.fromkeys(line.pair_words))
            change = f"{measured.difference:+.2f} ({measured.low:+.2f} to {measured.high:+.2f})"
            rows.append(["", line.name, *seeds, change, line.word, pairs])
    return rows


def draw_pictures(chosen: LoopSet, store: str, weights: str, to: Path) -> None:
    """A row per mark: an image that carries it, the mask that was spread, the mark removed; an image of another class, and the mark pasted into it."""
    images, reader = decided_images(heatlas.open(store))
    model = load_model(ModelSpec(spec=f"{chosen.model}@{weights}"))
    test = [image for identity, image in images.items() if identity.startswith("test")]
    marks, _ = load_marks(images, [image.sample.id for image in test], reader, model.preprocess)
    lines = []
    for label, mark in marks.items():
        carriers = [image for image in test if image.mark == label and image.region is not None]
        carrier = next((image for image in carriers if image.spread), None) or next(iter(carriers), None)
        other = next((image for image in test if image.mark is None and image.label not in (label, None)), None)
        if carrier is None or other is None:
            continue
        with_it, without_it = (load_images([image], reader, model.preprocess) for image in (carrier, other))
        outlined = with_it.inputs.clone()
        outlined[0, :, ~with_it.regions[0]] *= 0.25
        lines.append(
            [with_it.inputs, outlined, without_mark(with_it, marks), without_it.inputs, with_mark(without_it, mark)]
        )
    sheet = Image.new("RGB", (5 * (SIZE + 6) + 6, len(lines) * (SIZE + 6) + 6), "white")
    for row, tiles in enumerate(lines):
        for place, tile in enumerate(tiles):
            pixels = tile[0].permute(1, 2, 0).numpy() * np.array(STD) + np.array(MEAN)
            picture = Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))
            sheet.paste(picture, (6 + place * (SIZE + 6), 6 + row * (SIZE + 6)))
    sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).quantize(128).save(to, optimize=True)
