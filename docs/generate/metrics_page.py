"""Writes docs/metrics.md: every metric's one definition, what it tells, what it costs, and what others mean by the name.

    python -m docs.generate metrics

Definitions come from the registry; what they say and do not say, and the table of libraries, are written here by hand, each line
of the latter read in the library's own source.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from heatlas.engine.metrics import METRIC_PRESETS, METRICS
from heatlas.engine.metrics.chance_maps import CHANCE_MAPS, chance_metrics
from heatlas.engine.metrics.protocol import Metric
from heatlas.engine.metrics.sanity import RANDOM_MODEL_SPEARMAN

PAGE = Path(__file__).parents[1] / "metrics.md"
HEADER = """<!-- Made by `python -m docs.generate metrics`; do not edit, run it again. -->
# Metrics

Every column of numbers has one written definition with an id, `name/version`; a change of formula is a new version. Values are per
image, p is the softmax probability of the explained class in float32, S the stored map, x the network's input. Pixels are ranked
with ties broken in row-major order, so "the top 15 %" is always exactly round(0.15 x height x width) pixels. Where a value is not
defined (a map that is the same everywhere, an empty ground truth, p = 0 under a fraction) the column is null, never 0 and never
NaN. A data set's score is the mean over the images that have one. Random draws belong to the run's seed and the image's id.

## Cost

Forwards per image beside the map's own; metrics that read the same forwards share them. An explanation is as dear as the image's.

| preset | metrics | forwards | further explanations, at most |
|---|---|---|---|
"""
SAYS = {
    "drop_pct": "How much of the probability is lost when only the top pixels stay. Not whether they lie on the object; black surroundings are themselves unusual input.",
    "increase": "Whether the top pixels alone convince the model more than the image. One bit per image: read its mean.",
    "average_gain_pct": "How much of the missing probability the top pixels win. 0 for most images: read it beside `drop_pct`.",
    "insertion_auc": "How early the score appears on a blurred image. High also where blur alone leaves the class recognisable.",
    "deletion_auc": "How early the score disappears. Low also for scattered pixels that break the input rather than the evidence.",
    "road": "Like deletion, with the holes filled in so that their shape tells nothing. 0 is what a random order gets.",
    "entropy": "How evenly the mass is spread. Nothing about where; a sharp wrong map does well.",
    "gini": "How few pixels hold the mass. Nothing about where.",
    "complexity_l1": "How much of the image the map lights up. Depends on the map's scale: compare only maps scaled alike.",
    "coherency": "Whether explaining what the map shows gives the map again. A map that never changes scores 1.",
    "adcc": "One number from drop, coherency and complexity, so that none is won at the cost of another. Inherits each one's weakness.",
    "max_sensitivity": "How far the map moves under noise that nobody sees. A constant explanation would be perfect; SISE's Otsu gates make it jump.",
    "infidelity": "Whether the map's mass in a square predicts what removing the square costs. Ten squares per image: noisy alone, usable as a mean.",
    "single_deletion_rho": "Whether the map orders 16 parts as hiding each of them does. Of a network that was never shown images with a part hidden, hiding one is unusual input, and the order says little about the map: fine-tune first (`python -m bench single_deletion` does, and shows the difference).",
    "ebpg": "Share of the map's mass on the object. Grows with the object; the object's share of the image is what chance gets.",
    "miou": "Overlap of the top 20 % with the object. Cannot reach 1 unless the object covers 20 %.",
    "bbox": "Precision at the object's size. The object's share of the image is what chance gets.",
    "iou_half": "Overlap of the strong part with the object. The strong part's size follows the map's shape: one sharp peak makes it tiny.",
    "bbox_iou_half": "As `iou_half` of the boxes around both. One far pixel above half the maximum stretches the box over the image.",
    "ins_iou": "How early the segmentation of the object appears on a blurred image. Hard pixels: a class that wins nowhere counts 0.",
    "del_iou": "How early the segmentation of the object breaks. Low also for scattered pixels that break the input.",
    "outside_context": "How much of a class rests on pixels of other classes, as the model itself sees them. Not whether it should; the background is left out.",
    "context_share": "How much of it rests on the one class that `context_class` names.",
    "context_class": 'Which other class a class is explained with: counted by target it is a table of "explains c with c\'". A name, not a quantity: no mean is printed.',
    "pointing_hit": "Whether the maximum lies on or near the object. Says nothing of the rest of the map.",
    "relevance_rank_accuracy": "As `bbox`, under the name of another literature.",
    "border_share": "Mass at the edges: watermarks, padding, background.",
    "centroid_x": "Where the mass lies, left to right.",
    "centroid_y": "Where the mass lies, top to bottom.",
    "spread": "How far the mass lies from its centre.",
    "n_components": "Into how many regions the strong part falls.",
    "top_area": "How large the strong part is.",
    "layer_agreement": "Whether low and high blocks rank pixels alike.",
    "label_overlap": "For a misclassified image: whether label and prediction are seen in the same place. Ties count: where both maps are mostly zero, part of the overlap is row-major order.",
}
LIBRARIES = (
    ("`deletion_auc`, `insertion_auc`", "RISE (authors' code)", "The same area; insertion's blur pads with zeros, ours replicates the edge, so ours does not darken borders; steps of a fixed number of pixels, ours 20 steps."),
    ("`deletion_auc`", "Quantus 0.6.0 `PixelFlipping`", "Trapezoids of width 1: the value grows with the number of steps. It calls `numpy.trapz`, which NumPy 2.4 no longer has."),
    ("`road`", "pytorch-grad-cam 1.5.7 `ROADCombined`", "The same imputation and combination. Its mask is `map < percentile`, so tied pixels go together: where the percentile is the tied value, nothing is kept. The noise is unseeded. It scores whatever target function it is given."),
    ("`road`", "Quantus 0.6.0 `ROAD`", "The share of images still classified as the label, most relevant first only. Reads the first batch only. Ranks the values of all channels, which with three channels indexes beyond the image."),
    ("`adcc`", "Poppi et al. (authors' code)", "The published repository returns 3 * (1/a + 1/b + 1/c), not the harmonic mean of the paper, 3 / (1/a + 1/b + 1/c)."),
    ("`coherency`, `complexity_l1`", "pytorch-grad-cam 1.5.7", "The same formulas. Its `ARCC` puts ROAD in the place of the drop."),
    ("`drop_pct`", "pytorch-grad-cam 1.5.7 `DropInConfidence`", "p - p', not divided by p, on the softly masked input x * S."),
    ("`max_sensitivity`", "captum 0.9.0 `sensitivity_max`", "The same value for the same draws; draws from the global generator. Where the map is all zero it divides by 1."),
    ("`max_sensitivity`", "Quantus 0.6.0", "Draws after which the prediction changes can be left out as NaN, which the maximum then ignores or not, as set."),
    ("`infidelity`", "captum 0.9.0 `infidelity(normalize=True)`", "The same value for the same squares. By default it does not scale the map, so that a map in [0, 1] is judged by its unit."),
    ("`infidelity`", "Quantus 0.6.0", "Starts each patch from the image with the patches before it already replaced; no scaling."),
    ("`pointing_hit`", "TorchRay", "The same rule (squared distance < 15^2) for one given point; the score is the mean over classes of each class's accuracy."),
    ("`pointing_hit`", "Quantus 0.6.0 `PointingGame`", "No tolerance; any of several tied maxima may hit, so a constant map hits; an empty ground truth is a hit (NaN written to a boolean array)."),
    ("`entropy`, `gini`", "Quantus 0.6.0 `Complexity`, `Sparseness`", "The same, up to 1e-7 that Sparseness adds to each pixel."),
    ("`relevance_rank_accuracy`, `ebpg`", "Quantus 0.6.0 `RelevanceRankAccuracy`, `RelevanceMassAccuracy`", "The same for maps without negative values and without ties."),
)  # fmt: skip


def main() -> None:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    print(f"wrote {PAGE}")


def page() -> str:
    parts = [HEADER + "\n".join(preset_row(*preset) for preset in METRIC_PRESETS.items())]
    for needs, title in (
        ("model", "## Needs the model"), ("map", "## Needs only the map"), ("truth", "## Needs ground truth (boxes or masks)"),
    ):  # fmt: skip
        parts.append(title)
        parts += [section(metric) for metric in METRICS.values() if metric.needs == needs]
    parts.append(
        f"## Of a whole run\n\n### `{RANDOM_MODEL_SPEARMAN}`\n\nSpearman's correlation over the pixels of the map and of the map "
        "of a model with every weight drawn anew, same class. Range -1 to 1, nearer 0 is better. On a sample of a run: one more "
        "explanation per image. Adebayo et al., NeurIPS 2018.\n\nSays whether the map depends on what was learnt. A low value does "
        "not say that the map is right."
    )
    parts.append(chance_section())
    parts.append("## What others mean by the name\n\n| here | there | difference |\n|---|---|---|\n" + "\n".join(
        f"| {ours} | {library} | {difference} |" for ours, library, difference in LIBRARIES
    ))  # fmt: skip
    return "\n\n".join(parts) + "\n"


def chance_section() -> str:
    names = [metric.name for metric in chance_metrics(METRICS.values())]
    lines = "\n".join(f"- `{name}`: {(draw.__doc__ or '').split(chr(10))[0]}" for name, draw in CHANCE_MAPS.items())
    return (
        "## Chance baselines\n\nWhat maps get that know nothing of the model, measured by the same forwards on the same images: on 32 of a run "
        "(`--chance-maps N`), the same ones in every run over the same ids, whatever the order or the workers. They stand in the column "
        "`floors` of these rows (`floors.random.drop_pct`), so they are in no mean over a metric's own column.\n\n"
        f"{lines}\n\nNot measured are metrics that ask a method for further maps or for its block maps: "
        + ", ".join(f"`{name}`" for name in METRICS if name not in names)
        + ".\n\n`heatlas summary OUT` prints them beside the scores; `heatlas.open(OUT).compare('random')` tests the difference in pairs."
    )


def preset_row(name: str, metrics: Iterable[str]) -> str:
    chosen = [METRICS[metric] for metric in metrics]
    probes = {probe.name: probe.count for metric in chosen for probe in metric.probes}
    extra = {request.name: request.count for metric in chosen for request in metric.explains}
    return f"| `{name}` | {len(chosen)} | {sum(probes.values())} | {sum(extra.values())} |"


def section(metric: Metric) -> str:
    better = {"higher": "higher is better", "lower": "lower is better", "neither": "neither end is better"}[
        metric.better
    ]
    low, high = (f"{end:g}".replace("inf", "unbounded") for end in metric.range)
    cost = f"{metric.forwards} forwards" + (
        f", {metric.explanations} explanations at most" if metric.explanations else ""
    )
    facts = [
        f"{metric.unit}, {low} to {high}, {better}", f"baseline: {metric.baseline}", f"cost: {cost}", f"source: {metric.source}",
    ]  # fmt: skip
    more = " ".join(
        line.strip() for line in (metric.measure.__doc__ or "").split("Raises:")[0].strip().split("\n")[1:]
    ).strip()
    text = f"### `{metric.definition}`\n\n`{metric.formula}`\n\n" + "\n".join(f"- {fact}" for fact in facts)
    return text + (f"\n\n{more}" if more else "") + f"\n\n{SAYS[metric.name]}"
