"""What an edge model costs, as people read it in a terminal."""

from __future__ import annotations

from typing import Any

from ...engine.agreement import CHANCE_IOU
from ..text import counted
from .backends import BACKENDS
from .edge_model import EdgeReport

TITLES = {
    "spearman": "rank correlation",
    "iou": "IoU of the strongest 20 %",
    "wasserstein": "distance of the mass (0 is equal)",
}
_CLASSES = 20
MANY_CHANGED = 0.1
"""Share of the images from which a changed prediction is told."""
FEW_CALIBRATE = 16
"""Images below which calibration is told to be thin."""


def edge_text(report: EdgeReport) -> str:
    """Size, speed, accuracy, agreement and drift by class."""
    facts = report.facts
    latency, title = facts["latency"], BACKENDS[facts["backend"]].title
    lines = [
        f"{facts['model']}: {_parameters(facts)}; {facts['float_bytes'] / 1e6:.2f} MB as float32 {title}, {facts['int8_bytes'] / 1e6:.2f} MB as "
        f"int8 ({100 * facts['size_share']:.1f} % of that)",
        f"one image on {facts['cpu']}, {counted(facts['threads'], 'thread')}, median (95th percentile): "
        + ", ".join(f"{title} {1e3 * latency[name]['median']:.2f} ms ({1e3 * latency[name]['p95']:.2f})"
                    for name, title in (("torch", "PyTorch"), ("float", f"{title} float32"), ("int8", f"{title} int8"))),
        accuracy_line(facts),
        f"predictions stay for {facts['same_prediction']} of {counted(facts['images'], 'image')}; confidence moves by "
        f"{_figure(facts['confidence_change'])} on average; {counted(facts['calibration_images'], 'other image')} calibrated",
        "maps of both from the same masks | of the base model with itself under other masks (noise):",
        *(f"  {title:34} {_figure(facts['agreement'][name]):>7} | {_figure(facts['noise'][name])}" for name, title in TITLES.items()),
    ]  # fmt: skip
    if facts["lost_images"]:
        lines.insert(
            4,
            f"{counted(facts['lost_images'], 'image')} of the run cannot be found or read any more and {'is' if facts['lost_images'] == 1 else 'are'} left out",
        )
    if facts["d_ebpg"] is not None:
        lines.append(f"  share on the object moves by {facts['d_ebpg']:+.4f} on average")
    lines.append(
        f"drifted: {facts['drifted']} of {counted(facts['images'], 'image')} ({100 * facts['drift_share']:.1f} %): the same prediction, IoU "
        f"below {facts['noise_floor_iou']:.3f}, where 5 % of the noise lies; they are the queue edge_drift"
        if facts["judged"]
        else "drift: not known, because every map of the base model gives all pixels the same value; take more --masks, or a method and images "
        "that the confidence depends on"
    )
    lines += _notes(facts)
    for record in facts["classes"][:_CLASSES]:
        lines.append(
            f"  {record['name']}: {record['drifted']} of {record['images']} drifted, IoU {_figure(record['agreement']['iou'])} | "
            f"{_figure(record['noise']['iou'])}"
        )
    if len(facts["classes"]) > _CLASSES:
        lines.append(f"  ... {len(facts['classes']) - _CLASSES} more classes in edge.json")
    return "\n".join(lines)


def _notes(facts: dict[str, Any]) -> list[str]:
    """What makes the numbers less than they seem."""
    notes, changed = [], facts["images"] - facts["same_prediction"]
    if facts["edge_not_finite"]:
        notes.append(
            f"the edge model's output is not finite for {counted(facts['edge_not_finite'], 'image')}, which count as drifted: do not use it"
        )
    if changed > MANY_CHANGED * facts["images"]:
        notes.append(
            f"the prediction changed for {counted(changed, 'image')}, which is no drift; --max-changed is the gate for it"
        )
    if facts["calibration_images"] < FEW_CALIBRATE:
        notes.append(
            f"{counted(facts['calibration_images'], 'image')} showed the ranges of activations, and 100 or more are usual: what others exceed is cut off"
        )
    floor = facts["noise_floor_iou"]
    if floor is not None and floor <= CHANCE_IOU:
        notes.append(
            f"the noise floor is no higher than the IoU of unrelated maps ({CHANCE_IOU:.3f}), so drift can hardly be seen here: take more --masks"
        )
    if facts["judged"] < facts["images"]:
        notes.append(
            f"{counted(facts['images'] - facts['judged'], 'map')} of the base model give all pixels the same value and cannot drift"
        )
    return [f"note: {text}" for text in notes]


def accuracy_line(facts: dict[str, Any]) -> str:
    """Accuracy, or of dense models mean IoU, of both with intervals."""
    dense = facts["task"] == "segmentation"
    if not facts["labelled"]:
        return "IoU with the truth: nothing is marked" if dense else "accuracy: no image has a label"
    base, edge, change = facts["accuracy"]["base"], facts["accuracy"]["edge"], facts["change"]
    name, unit = ("mean IoU with what is marked", "marked image") if dense else ("accuracy", "labelled image")
    test = "" if dense else f"; McNemar p {facts['mcnemar_p']:.3f}"
    pixels = f"; {100 * facts['same_pixels']:.1f} % of the pixels keep their class" if dense else ""
    return (
        f"{name} of {counted(facts['labelled'], unit)}: {_percent(base)}, edge {_percent(edge)}; change {100 * change['mean']:+.1f} points "
        f"({100 * change['interval'][0]:+.1f} to {100 * change['interval'][1]:+.1f}){test}{pixels}"
    )


def _parameters(facts: dict[str, Any]) -> str:
    if facts["pruned_share"] is None:
        return f"{facts['parameters']:,} parameters"
    tuned = "fine-tuned" if facts["fine_tuned"] else "not fine-tuned"
    return f"{facts['parameters']:,} parameters, {facts['edge_parameters']:,} after pruning ({tuned})"


def _percent(share: dict[str, Any]) -> str:
    low, high = (100 * end for end in share["interval"])
    return f"{100 * share['mean']:.1f} % ({low:.1f} to {high:.1f})"


def _figure(value: float | None) -> str:
    return "none" if value is None else f"{value:.3f}"
