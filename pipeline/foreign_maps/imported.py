"""Maps of other tools as the workers get them: explanations that lack what the model says."""

from __future__ import annotations

from dataclasses import dataclass

from ...engine.explanation import Explanation
from ...errors import DataError, SampleError
from ...statuses import EXPLAIN_ERROR, LABEL_ERROR, NO_MAP, OK
from ...workers.images.preprocess import Preprocess
from ...workers.samples import Sample
from ...workers.targets import TargetRule, targets_of
from .map_index import MapIndex
from .unit_maps import unit_map


@dataclass(frozen=True)
class ImportedMaps:
    """Explanations by sample; see `StoredExplanations`. Picklable, so that it travels into actors."""

    index: MapIndex
    preprocess: Preprocess
    rule: TargetRule
    """Which class maps without a target of their own explain."""
    classes: int | None

    def of(self, sample: Sample) -> list[Explanation]:
        """One for each map of the image, without prediction and confidence.

        Raises:
            SampleError: With `no_map` where there is none, `label_error` where its class is not known, `explain_error` where the map
                cannot be read any more.
        """
        places = self.index.places.get(sample.id)
        if places is None:
            raise SampleError(NO_MAP, "no imported map is of this image")
        try:
            return [
                Explanation(
                    OK, None, None, self._target(sample) if place.target is None else place.target, None, None,
                    map=unit_map(self.index.raw(place), self.index.choices, self.preprocess),
                )
                for place in places
            ]  # fmt: skip
        except DataError as error:
            raise SampleError(EXPLAIN_ERROR, f"the map cannot be read any more: {error}") from error

    def _target(self, sample: Sample) -> int | None:
        targets = targets_of(self.rule, sample, None, self.classes)
        if len(targets) != 1:
            raise SampleError(LABEL_ERROR, f"the image has one map, but its target names {len(targets)} classes")
        return targets[0]
