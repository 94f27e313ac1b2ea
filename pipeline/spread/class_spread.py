"""Spread the decisions about one class to all its images: a probability each, and a region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Int

from ..decisions.upright_masks import image_sizes, upright_mask
from ..intervene.groups_of_rows import ExplainedRow
from .decided_rows import DecidedClass
from .image_features import BlockFeatureReader
from .label_spread import UNKNOWN, SpreadLabels, nearest_decided, principal_points, spread_calibrated
from .mark_detector import (
    SHAPES,
    MarkDetector,
    Region,
    detector_by_direction,
    detector_by_painting,
    hot_part,
    place_shape,
    settle_shape,
)

MOST_COLUMNS = 120
"""Decided images of either kind whose features are kept at every place."""
ROUNDS = 3
"""Times that a detector is learnt where few regions were painted: first from those, then from where it finds them again."""
Columns = Mapping[int, Float[np.ndarray, "feature h w"]]


@dataclass(frozen=True, eq=False)
class ClassSpread:
    """What spread in one class."""

    decided: DecidedClass
    labels: SpreadLabels
    read: Int[np.ndarray, " read"]
    """Numbers of the rows that could be read."""
    probability: Float[np.ndarray, " read"]
    """That the image carries the mark; 0 or 1 where people decided."""
    nearest: Int[np.ndarray, " read"]
    """Number of the decided row that each resembles most."""
    regions: dict[int, Region] = field(default_factory=dict)
    """Where the mark is, at input size, by row number; of rows that carry it."""
    how: str = "none"
    """`painted`, `direction` or `none`: how regions were found."""
    detector: MarkDetector | None = None


def spread_class(
    reader: BlockFeatureReader, decided: DecidedClass, *, neighbours: int, seed: int
) -> ClassSpread | None:
    """Spread; None where too few of the decided images can be read."""
    numbers, features = reader.points(decided.rows)
    read, labels = np.array(numbers, np.int64), decided.labels[numbers]
    if min((labels == 1).sum(), (labels == 0).sum()) < 2:
        return None
    points = principal_points(features, seed)
    wanted = _wanted(decided, read, labels)
    columns = {wanted[place]: values for place, values in reader.columns([decided.rows[number] for number in wanted])}
    painted = {number: region for number, region in painted_regions(reader, decided).items() if number in columns}
    marked, clean = ([number for number in columns if decided.labels[number] == label] for label in (1, 0))

    def evidence(
        usable: Bool[np.ndarray, " row"], asked: Int[np.ndarray, " asked"]
    ) -> Float[np.ndarray, " asked"] | None:
        able = set(read[usable].tolist())
        if not any(number in able for number in painted):
            able |= set(painted)  # painted once: the one picture that is judged by itself
        detector = _painted_detector(columns, painted, marked, clean, able, seed)
        return None if detector is None else _fits(reader, decided, detector, read[asked], columns)

    spread = spread_calibrated(points, labels, evidence, neighbours=neighbours, seed=seed)
    probability = np.where(labels == UNKNOWN, spread.probability, labels)
    nearest = read[nearest_decided(points, labels)]
    detector, how = _painted_detector(columns, painted, marked, clean, set(numbers), seed), "painted"
    if detector is None:
        detector, how = (
            detector_by_direction(
                [columns[number] for number in marked], [columns[number] for number in clean], seed=seed
            ),
            "direction",
        )
    if detector is None:
        return ClassSpread(decided, spread, read, probability, nearest)
    carrying = {int(number) for number in read[probability > 0.5]}
    examples = reader.images([decided.rows[number] for number in painted][: len(detector.shapes)])
    regions = _regions(reader, decided, detector, sorted(carrying), examples)
    regions.update(
        {number: region for number, region in painted_regions(reader, decided).items() if number in carrying}
    )
    return ClassSpread(decided, spread, read, probability, nearest, regions, how, detector)


def painted_regions(reader: BlockFeatureReader, decided: DecidedClass) -> dict[int, Region]:
    """What people painted, at input size, by row number; without what lies outside of what the network sees."""
    regions, sizes = {}, image_sizes(reader.atlas)
    for number, rle in decided.painted.items():
        identity = decided.rows[number].id
        mask = upright_mask(identity, rle, sizes.get(identity))
        region = reader.model.preprocess.geometry(*mask.shape).mask(mask)
        if region.any():
            regions[number] = region
    return regions


def fits_elsewhere(
    reader: BlockFeatureReader, detector: MarkDetector, rows: Sequence[ExplainedRow]
) -> dict[str, float]:
    """How well a painted mark fits in other images, by id."""
    return {
        rows[place].id: place_shape(detector.logits(columns.astype(np.float32)), detector.shapes)[1]
        for place, columns in reader.columns(rows)
    }


def _wanted(decided: DecidedClass, read: np.ndarray, labels: np.ndarray) -> list[int]:
    """Numbers of the decided rows whose hypercolumns are kept: painted ones first."""
    marked = sorted(read[labels == 1].tolist(), key=lambda number: number not in decided.painted)[:MOST_COLUMNS]
    return [*marked, *read[labels == 0].tolist()[:MOST_COLUMNS]]


def _painted_detector(
    columns: Columns,
    painted: Mapping[int, Region],
    marked: Sequence[int],
    clean: Sequence[int],
    able: set[int],
    seed: int,
) -> MarkDetector | None:
    """Learnt from painted images and, where few were painted, from where their regions are found again in other images that people decided on."""
    regions = {number: painted[number] for number in painted if number in able}
    if not regions:
        return None
    shapes = list(regions.values())[:SHAPES]
    without = [columns[number].astype(np.float32) for number in clean if number in able]
    detector = None
    for _ in range(ROUNDS if len(regions) < SHAPES else 1):
        numbers = list(regions)
        detector = detector_by_painting(
            [columns[number].astype(np.float32) for number in numbers],
            [regions[number] for number in numbers],
            without,
            seed=seed,
        )
        if detector is None:
            return None
        for number in marked:
            if number in able and number not in painted:
                regions[number] = place_shape(detector.logits(columns[number].astype(np.float32)), shapes)[0]
    return None if detector is None else replace(detector, shapes=tuple(shapes))


def _fits(
    reader: BlockFeatureReader, decided: DecidedClass, detector: MarkDetector, numbers: np.ndarray, columns: Columns
) -> np.ndarray:
    """How well the mark fits into each row."""
    missing = [int(number) for number in numbers if int(number) not in columns]
    fits = fits_elsewhere(reader, detector, [decided.rows[number] for number in missing])
    for number in numbers:
        if int(number) in columns:
            fits[decided.rows[number].id] = place_shape(
                detector.logits(columns[int(number)].astype(np.float32)), detector.shapes
            )[1]
    return np.array([fits[decided.rows[number].id] for number in numbers])


def _regions(
    reader: BlockFeatureReader,
    decided: DecidedClass,
    detector: MarkDetector,
    numbers: Sequence[int],
    examples: Sequence[np.ndarray],
) -> dict[int, Region]:
    """Where the mark is in rows that carry it; `examples` are the images in which the detector's shapes were painted."""
    size, regions = reader.model.preprocess.size, {}
    for place, columns, image in reader.columns_and_images([decided.rows[number] for number in numbers]):
        logits = detector.logits(columns.astype(np.float32))
        region = settle_shape(logits, detector.shapes, image, examples) if detector.shapes else hot_part(logits, size)
        if region.any():
            regions[numbers[place]] = region
    return regions
