"""What a training came to, for programs and in words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..text import counted


@dataclass(frozen=True)
class TrainingResult:
    """What was written."""

    out: str
    method: str
    training_images: int
    holdout_images: int
    skipped: int
    epochs: int
    """That were trained."""
    best_epoch: int
    stopped_early: bool
    holdout_loss: float
    agreement: Mapping[str, float]
    """Of a student with its teacher on the held-out images; empty without a teacher."""
    digest: str
    fidelity: Mapping[str, float] = field(default_factory=dict)
    """Of an explainer network to the classifier on the held-out images; empty for heads."""

    def summary(self) -> str:
        """For people."""
        early = ", stopped early" if self.stopped_early else ""
        lines = [
            f"{self.out}: {self.method}, {self.training_images:,} training images, epoch {self.best_epoch} of {self.epochs}{early}, "
            f"held-out loss {self.holdout_loss:.4g} on {self.holdout_images:,} images"
        ]
        if self.skipped:
            lines.append(
                f"{counted(self.skipped, 'image')} could not be read and {'was' if self.skipped == 1 else 'were'} left out"
            )
        if self.agreement:
            lines.append(agreement_text(self.agreement))
        if self.fidelity:
            lines.append(fidelity_text(self.fidelity))
        if not self.agreement:
            lines.append(
                "how far its maps are from exact ones on your data, and whether they beat the mean map of the class: `heatlas explain ... --verify 200`"
            )
        return "\n".join(lines)


def agreement_text(agreement: Mapping[str, float]) -> str:
    """A student beside the mean map of the class, in words."""
    student, mean = (
        f"Spearman {agreement[f'{name}_spearman']:.3f}, weighted Jaccard {agreement[f'{name}_jaccard']:.3f}"
        for name in ("student", "class_mean")
    )
    better = agreement["student_spearman"] > agreement["class_mean_spearman"]
    verdict = "" if better else "; the student is no better than the mean map: do not use it for single images"
    return (
        f"agreement with the teacher on {agreement['images']:.0f} held-out images: {student}; the mean map of the class: {mean}; nearer on "
        f"{agreement['ahead_of_class_mean']:.0%} of the images{verdict}{metrics_text(agreement)}"
    )


def metrics_text(agreement: Mapping[str, float]) -> str:
    """A line about each metric that was measured."""
    lines = ""
    for name, words in (("insertion_auc", "insertion (area under the curve)"), ("ebpg", "energy on the object (EBPG)")):
        if agreement.get(f"{name}_images"):
            student, teacher, mean = (agreement[f"{of}_{name}"] for of in ("student", "teacher", "class_mean"))
            lines += (
                f"\n{words} on {agreement[f'{name}_images']:.0f} held-out images: student {student:.3f}, teacher {teacher:.3f}, "
                f"mean map of the class {mean:.3f}"
            )
    return lines


def fidelity_text(fidelity: Mapping[str, float]) -> str:
    """How true an explainer network is to its classifier, in words."""
    dead = f", {fidelity['dead_filters']:.0f} dead" if fidelity["dead_filters"] else ""
    return (
        f"on {fidelity['images']:.0f} held-out images the rebuilt features give the classifier's class {fidelity['same_class']:.0%} of the time, relative "
        f"squared error {fidelity['relative_error']:.3f}; p = {fidelity['share_of_parts']:.3f} passes through parts; "
        f"{fidelity['filters']:.0f} filters{dead}"
    )
