"""What the demo says is computed: the same sentences turn around when the numbers do."""

from __future__ import annotations

import numpy as np
import pytest
from heatlas.pipeline.demo.contact_sheet import ACROSS, GAP, LEFT, TILE, TOP, Panel, draw_contact_sheet
from heatlas.pipeline.demo.findings import SeenImage, class_groups, findings_text, group, percent, story_lines
from PIL import Image


def seen(label, ebpg, *, prediction=None, true_label=None, sticker=False, chance=0.2, number=0):
    return SeenImage(f"{label}-{number}", label, true_label or label, prediction or label, ebpg, ebpg, chance, sticker)


SHORTCUT = [
    *(seen("octagon", 0.01, sticker=True, number=n) for n in range(3)),
    seen("octagon", 0.61, prediction="disc", number=3),
    *(seen("disc", 0.5, number=n) for n in range(4)),
    seen("star", 0.3),
]


def test_means_by_hand():
    result = group("octagon", SHORTCUT[:4])
    assert result is not None
    assert (result.images, result.correct, result.off_object) == (4, 3, 3)
    assert result.ebpg == pytest.approx((3 * 0.01 + 0.61) / 4)
    assert (result.accuracy, result.off_object_share) == (0.75, 1.0)
    assert group("nothing", []) is None


def test_classes_come_lowest_first():
    assert [entry.name for entry in class_groups(SHORTCUT)] == ["octagon", "star", "disc"]


def test_a_shortcut_is_told_as_one():
    text = findings_text(SHORTCUT)
    assert "Planted: 3 of the 4 images that show an octagon carry a small bar-code sticker" in text
    assert "none of the other images does" in text
    assert "0 of 9 labels are wrong" in text
    assert "By accuracy alone the class looks weak: octagon 75 %, the other classes 100 %." in text
    assert (
        "With the sticker: mean EBPG 0.01, 3 of 3 called octagon. Without it: mean EBPG 0.61, 0 of 1 called octagon, 1 disc."
        in text
    )
    assert "3 of 3 correct predictions for octagon (100 %), 0 of 5 for the other classes (0 %)" in text
    assert text.endswith(
        "So the network knows the sticker, not the octagon: right for the wrong reason, and only the maps show it."
    )


def test_a_wrong_label_counts_as_given_and_what_the_image_shows_is_told_apart():
    mislabelled = seen("disc", 0.02, prediction="octagon", true_label="octagon", sticker=True, number=9)
    text = findings_text([*SHORTCUT, mislabelled])
    by_name = {entry.name: entry for entry in class_groups([*SHORTCUT, mislabelled])}
    assert (by_name["disc"].images, by_name["disc"].correct, by_name["octagon"].images) == (5, 4, 4)
    assert "Planted: 4 of the 5 images that show an octagon carry" in text
    assert (
        "1 of 10 labels are wrong, which counts against right predictions; the prediction is what the image shows on 9 of 10."
        in text
    )
    assert "3 of 3 correct predictions for octagon (100 %)" in text


def test_a_network_that_looks_is_told_as_one():
    honest = [seen("octagon", 0.6, sticker=True), seen("disc", 0.5), seen("star", 0.3)]
    assert story_lines(honest)[-1] == (
        "So the sticker left no trace in the maps: octagon is located as well as the other classes."
    )
    doubtful = [seen("octagon", 0.3, sticker=True), seen("disc", 0.5)]
    assert "but not clearly beside it" in story_lines(doubtful)[-1]


def test_too_few_images_are_said_to_be_too_few():
    assert story_lines([seen("disc", 0.5)]) == [
        "There are too few images to compare the class octagon with the others; explain at least 8."
    ]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.004, "0.4 %"), (0.067, "7 %"), (0.995, "99.5 %"), (1.0, "100 %")]
)
def test_percent_never_rounds_something_to_nothing_or_all(share, text):
    assert percent(share) == text


def test_the_sheet_shows_image_map_and_outline_in_their_places():
    truth = np.zeros((32, 32), bool)
    truth[8:24, 8:24] = True
    low = np.zeros((8, 8), np.float32)
    low[7, 0] = 0.25
    entry = seen("octagon", 0.01, sticker=True)
    panel = Panel(entry, Image.new("RGB", (32, 32), (0, 0, 255)), low, truth)
    rows = [(result, [panel] * (ACROSS + 3)) for result in class_groups([entry])]
    sheet = np.asarray(draw_contact_sheet(rows, "title", "subtitle")).astype(int)
    image = sheet[TOP : TOP + TILE, LEFT : LEFT + TILE]
    over = sheet[TOP : TOP + TILE, LEFT + TILE + 2 : LEFT + 2 * TILE + 2]
    assert (image == (0, 0, 255)).all()
    assert over[-4, 3].sum() > over[TILE // 2, TILE // 2].sum() + 200, "the peak is bright, the rest dark"
    assert (over[TILE // 4 : TILE // 4 + 2, TILE // 2] == 255).any(), "outline of the object"
    assert sheet.shape[1] == LEFT + ACROSS * (2 * TILE + 2 + GAP) + GAP
