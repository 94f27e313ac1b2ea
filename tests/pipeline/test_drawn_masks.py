"""Segmentations against their definition: a pixel belongs to a polygon if its centre is inside; run lengths down the columns."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
from heatlas.errors import SampleError
from heatlas.pipeline.run_lengths import decompressed
from heatlas.pipeline.sources.reading.drawn_masks import draw_mask, polygon_mask, run_length_mask
from heatlas.statuses import TRUTH_ERROR
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from PIL import Image

WIDTH, HEIGHT = 9, 7


def inside(x: float, y: float, points: list[tuple[float, float]]) -> bool:
    """Even-odd by the textbook: edges crossed by the ray to the left."""
    crossed = 0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 <= y) != (y1 <= y):
            crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
            assume(abs(crossing - x) > 1e-9)  # nearer than that, floats decide
            crossed += crossing <= x
    return crossed % 2 == 1


corner = st.floats(-4, 13, allow_nan=False).map(lambda one: round(one, 2))


@settings(max_examples=200)
@given(st.lists(st.tuples(corner, corner), min_size=1, max_size=8))
def test_polygons_are_the_pixels_whose_centres_are_inside(points: list[tuple[float, float]]):
    mask = polygon_mask(np.array(points), WIDTH, HEIGHT)
    assert mask.shape == (HEIGHT, WIDTH)
    assert mask.tolist() == [[inside(x + 0.5, y + 0.5, points) for x in range(WIDTH)] for y in range(HEIGHT)]


def test_a_rectangle_on_pixel_borders_is_exactly_its_pixels():
    mask = polygon_mask(np.array([[2, 1], [5, 1], [5, 4], [2, 4]], float), WIDTH, HEIGHT)
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[1:4, 2:5] = True
    assert (mask == expected).all()


def compressed(runs: list[int]) -> str:
    """The other direction of `decompressed`, as COCO's C code has it."""
    text = ""
    for place, run in enumerate(runs):
        number = run - runs[place - 2] if place > 2 else run
        while True:
            bits, number = number & 31, number >> 5
            more = number != (-1 if bits & 16 else 0)
            text += chr(bits + (32 if more else 0) + 48)
            if not more:
                break
    return text


@given(st.lists(st.integers(0, 100_000), max_size=30))
def test_compressed_run_lengths_come_back(runs: list[int]):
    assert decompressed(compressed(runs)) == runs


def test_run_lengths_go_down_the_columns():
    expected = np.array([[0, 1, 0], [0, 1, 1]], bool)
    plain = {"size": [2, 3], "counts": [2, 2, 1, 1]}
    assert (run_length_mask(plain, 3, 2) == expected).all()
    assert (run_length_mask({**plain, "counts": compressed([2, 2, 1, 1])}, 3, 2) == expected).all()


PYCOCOTOOLS = (
    "016000000000n40RK000000000[1>XO000KB@>MB50003>`000000KB@>MB50003>`000000KB@>MB50003>`000000KB@>MB50003>`000000KB@>MB50003>`"
    "00[2BRM000000000n40RK00000M=g00000000WOC500000M=g00000000WO"
)
"""What `pycocotools.mask.encode` (2.0) made of the mask below."""


def test_what_pycocotools_wrote_is_read():
    expected = np.zeros((40, 50), bool)
    expected[5:20, 7:33] = expected[25:39, 40:50] = expected[::7, ::5] = True
    assert (run_length_mask({"size": [40, 50], "counts": PYCOCOTOOLS}, 50, 40) == expected).all()


def test_polygons_are_nearly_those_of_pycocotools():
    """Which draws this one with 651 pixels, its corners rounded to a fifth of a pixel."""
    points = np.array([7.3, 5.1, 33.8, 9.9, 28.2, 35.5, 4.6, 30.0]).reshape(-1, 2)
    x, y = points.T
    area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
    assert abs(int(polygon_mask(points, 50, 40).sum()) - area) < 5
    assert abs(651 - area) < 5


def drawn(*annotations: dict) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(draw_mask(annotations, WIDTH, HEIGHT)))) > 0


def test_annotations_are_united_and_boxes_stand_in_for_segmentations():
    polygon = {"segmentation": [[0, 0, 2, 0, 2, 2, 0, 2], [5, 5, 6, 5, 6, 6, 5, 6]]}
    boxed = {"bbox": [3, 1, 2, 1]}
    mask = drawn(polygon, boxed)
    assert mask.sum() == 4 + 1 + 2
    assert mask[1, 3]
    assert mask[5, 5]


@pytest.mark.parametrize(
    ("annotation", "expected"),
    [
        ({"id": 7}, "the segmentation of annotation 7 cannot be drawn"),
        ({"segmentation": [[1, 2, 3]]}, "cannot be drawn"),
        ({"segmentation": [[1, 2, "x", 3]]}, "cannot be drawn"),
        ({"segmentation": [[1, 2, math.nan, 3]]}, "is not finite"),
        ({"segmentation": {"size": [7, 9], "counts": [5]}}, "add up to 5 pixels, not to 63"),
        ({"segmentation": {"size": [7, 9], "counts": [64, -1]}}, "must be at least 0, one is -1"),
        ({"segmentation": {"size": [9, 7], "counts": [63]}}, "its size is [9, 7]"),
        ({"segmentation": {"size": [7, 9], "counts": "\n"}}, "is not part of COCO's compressed run lengths"),
        ({"segmentation": {"size": [7, 9], "counts": "o"}}, "cut short"),
        ({"segmentation": {"size": [7, 9], "counts": "o" * 40}}, "is not part"),
    ],
)
def test_what_cannot_be_drawn_is_an_error_row(annotation: dict, expected: str):
    with pytest.raises(SampleError) as caught:
        drawn(annotation)
    assert expected in str(caught.value)
    assert caught.value.status == TRUTH_ERROR


def test_a_mask_of_too_many_pixels_is_never_made():
    with pytest.raises(SampleError, match=r"100000 x 100000 pixels is outside of|is outside the limit"):
        draw_mask([], 100_000, 100_000)
