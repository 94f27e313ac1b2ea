"""How near a student's maps are to its teacher's on images that it was not trained on, and what the mean map of the class would have got."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ...engine.metrics.ranking import spearman
from .training_spec import TeacherMap


class MeanMaps:
    """The mean of the teacher's maps, of each class and of all: what knows nothing of an image but its class."""

    def __init__(self, maps: Iterable[TeacherMap]):
        by_class: dict[int, list[np.ndarray]] = defaultdict(list)
        for entry in maps:
            by_class[entry.target].append(entry.map.astype(np.float32))
        everything = [map for several in by_class.values() for map in several]
        self._whole = np.mean(everything, axis=0)
        self._of_class = {target: np.mean(several, axis=0) for target, several in by_class.items()}

    def of(self, target: int) -> np.ndarray:
        """The class's mean map; that of all maps where the class has none."""
        return self._of_class.get(target, self._whole)


@dataclass
class Agreement:
    """Spearman's correlation and weighted Jaccard index with the teacher, and metrics of the maps, collected image by image."""

    values: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def add(self, student: Tensor, means: Tensor, teacher: Tensor) -> None:
        """Maps `(batch, h, w)` in [0, 1] of one size."""
        for name, maps in (("student", student), ("class_mean", means)):
            for value in spearman(maps.flatten(1), teacher.flatten(1)).tolist():
                self.values[f"{name}_spearman"].append(value)
            self.values[f"{name}_jaccard"] += weighted_jaccard(maps, teacher).tolist()

    def add_metrics(self, metrics: Mapping[str, float]) -> None:
        """Metrics of the maps of one image, by name."""
        for name, value in metrics.items():
            self.values[name].append(value)

    def summary(self) -> Mapping[str, float]:
        """Means over the images, those without a value left out; how many there were; and with how many the student was nearer."""
        if not self.values:
            return {}
        means = {name: float(np.nanmean(values)) for name, values in self.values.items()}
        ahead = np.array(self.values["student_spearman"]) > np.array(self.values["class_mean_spearman"])
        counts = {f"{name}_images": float(len(self.values[f"student_{name}"])) for name in ("insertion_auc", "ebpg")}
        return {**means, **counts, "images": float(len(ahead)), "ahead_of_class_mean": float(ahead.mean())}


def weighted_jaccard(first: Tensor, second: Tensor) -> Tensor:
    """Sum of pixelwise minima over sum of maxima for each pair `(batch, h, w)`; 1 where both are all 0."""
    above = torch.maximum(first, second).sum(dim=(1, 2))
    ratio = torch.minimum(first, second).sum(dim=(1, 2)) / torch.where(above == 0, 1, above)
    return torch.where(above == 0, 1, ratio)


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps `(batch, h, w)`, bilinear."""
    return F.interpolate(maps[:, None], size=size, mode="bilinear", align_corners=False)[:, 0]
