"""Report the planted shortcut of the demo: a table per class, then sentences computed from it.

"Correct" and "off-object" mean here what they mean in the report and in every queue: by the labels given, against the chance baseline of the row.
What only generated data knows, the true labels and the sticker, is told in other words. The sentences follow the numbers: a network that looked at the octagons would be reported as one that does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from .dataset import CLASS_NAMES, SHORTCUT_CLASS


@dataclass(frozen=True, slots=True)
class SeenImage:
    """One explained image beside the truth about it."""

    id: str
    label: str
    """As given; 3 % are wrong."""
    true_label: str
    prediction: str
    ebpg: float
    """Share of the map's mass on the object, in [0, 1]."""
    bbox: float
    """Share of the object's area that the map's strongest pixels hit, in [0, 1]."""
    chance: float
    """EBPG of a random map: measured on the image, else the mean of its label."""
    sticker: bool

    @property
    def correct(self) -> bool:
        return self.prediction == self.label

    @property
    def off_object(self) -> bool:
        """Correct, off-object: less of the map lies on the object than of a random map."""
        return self.correct and self.ebpg < self.chance


@dataclass(frozen=True, slots=True)
class Group:
    """Means over some images."""

    name: str
    images: int
    correct: int
    off_object: int
    ebpg: float
    bbox: float
    chance: float

    @property
    def accuracy(self) -> float:
        return self.correct / self.images

    @property
    def off_object_share(self) -> float:
        """Share of the correct predictions that are off-object."""
        return self.off_object / self.correct if self.correct else 0.0


def group(name: str, seen: Sequence[SeenImage]) -> Group | None:
    """The means over `seen`; None for no images."""
    if not seen:
        return None

    def mean(value: Callable[[SeenImage], float]) -> float:
        return sum(map(value, seen)) / len(seen)

    correct, off_object = sum(image.correct for image in seen), sum(image.off_object for image in seen)
    ebpg, bbox, chance = (
        mean(lambda image: image.ebpg),
        mean(lambda image: image.bbox),
        mean(lambda image: image.chance),
    )
    return Group(name, len(seen), correct, off_object, ebpg, bbox, chance)


def class_groups(seen: Sequence[SeenImage]) -> list[Group]:
    """One group per class that is some image's label, lowest mean EBPG first."""
    groups = [group(name, [image for image in seen if image.label == name]) for name in CLASS_NAMES]
    return sorted((row for row in groups if row is not None), key=lambda row: row.ebpg)


def findings_text(seen: Sequence[SeenImage]) -> str:
    """A table per class and the story it tells, in plain words."""
    return "\n".join([*table_lines(class_groups(seen)), "", *story_lines(seen)])


def table_lines(groups: Iterable[Group]) -> list[str]:
    """The groups as a table in plain text."""
    head = (
        f"{'class':<10}{'images':>7}{'accuracy':>10}{'EBPG':>7}{'random map':>12}{'Bbox':>7}{'correct, off-object':>21}"
    )
    rows = [
        f"{row.name:<10}{row.images:>7}{percent(row.accuracy):>10}{row.ebpg:>7.2f}{row.chance:>12.2f}{row.bbox:>7.2f}"
        f"{f'{row.off_object} of {row.correct}':>21}"
        for row in groups
    ]
    return [head, *rows]


def story_lines(seen: Sequence[SeenImage]) -> list[str]:
    """What the sticker did to its class, judged from the numbers."""
    members = [image for image in seen if image.label == SHORTCUT_CLASS]
    whole = group(SHORTCUT_CLASS, members)
    others = group("the other classes", [image for image in seen if image.label != SHORTCUT_CLASS])
    if whole is None or others is None:
        return [f"There are too few images to compare the class {SHORTCUT_CLASS} with the others; explain at least 8."]
    return [
        *_planted_lines(seen),
        _accuracy_line(whole, others),
        *_look_lines(whole, others, seen),
    ]


def _planted_lines(seen: Sequence[SeenImage]) -> list[str]:
    """What is in the images, which only generated data knows."""
    shown = [image for image in seen if image.true_label == SHORTCUT_CLASS]
    inside = sum(image.sticker for image in shown)
    elsewhere = sum(image.sticker for image in seen) - inside
    wrong = sum(image.label != image.true_label for image in seen)
    return [
        f"Planted: {inside} of the {len(shown)} images that show an {SHORTCUT_CLASS} carry a small bar-code sticker in the lower left corner; "
        f"{elsewhere or 'none'} of the other images {'does' if elsewhere in (0, 1) else 'do'}.",
        f"{wrong} of {len(seen)} labels are wrong, which counts against right predictions; the prediction is what the image shows on "
        f"{sum(image.prediction == image.true_label for image in seen)} of {len(seen)}.",
    ]


def _accuracy_line(whole: Group, others: Group) -> str:
    return (
        f"By accuracy alone the class looks {'fine' if whole.accuracy >= 0.9 else 'weak'}: {whole.name} "
        f"{percent(whole.accuracy)}, the other classes {percent(others.accuracy)}."
    )


def _look_lines(whole: Group, others: Group, seen: Sequence[SeenImage]) -> list[str]:
    """The comparison of the maps: class against classes, images with the sticker against images without, and the verdict."""
    lines = [
        f"The maps: of the attribution for {whole.name}, {percent(whole.ebpg)} lies on the object (mean EBPG), where a random "
        f"map has {percent(whole.chance)} and the other classes have {percent(others.ebpg)}."
    ]
    shown = [image for image in seen if image.true_label == SHORTCUT_CLASS]
    marked, bare = ([image for image in shown if image.sticker is sticker] for sticker in (True, False))
    if marked and bare:
        lines.append(f"With the sticker: {_called(marked)}. Without it: {_called(bare)}.")
    lines.append(
        f"Correct, off-object (less of the map on the object than of a random map): {whole.off_object} of {whole.correct} correct predictions "
        f"for {whole.name} ({percent(whole.off_object_share)}), {others.off_object} of {others.correct} for the other classes "
        f"({percent(others.off_object_share)})."
    )
    return [*lines, _verdict(whole, others)]


def _called(seen: Sequence[SeenImage]) -> str:
    """Mean EBPG of images that show the shortcut class, and what they are called."""
    own = sum(image.prediction == SHORTCUT_CLASS for image in seen)
    others = Counter(image.prediction for image in seen if image.prediction != SHORTCUT_CLASS).most_common()
    named = "".join(f", {count} {name}" for name, count in others)
    mean = sum(image.ebpg for image in seen) / len(seen)
    return f"mean EBPG {mean:.2f}, {own} of {len(seen)} called {SHORTCUT_CLASS}{named}"


def _verdict(whole: Group, others: Group) -> str:
    if whole.ebpg < whole.chance and whole.off_object_share > 0.5 and others.off_object_share < 0.5:
        return f"So the network knows the sticker, not the {whole.name}: right for the wrong reason, and only the maps show it."
    if whole.ebpg < others.ebpg:
        return f"So the maps of {whole.name} lie less on the object than those of the other classes, but not clearly beside it."
    return f"So the sticker left no trace in the maps: {whole.name} is located as well as the other classes."


def percent(share: float) -> str:
    """A share as whole percent, never rounding something to nothing."""
    value = 100 * share
    return f"{value:.1f} %" if 0 < value < 1 or 99 < value < 100 else f"{value:.0f} %"
