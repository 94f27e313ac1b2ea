"""What the demo says of its queues follows from them."""

from __future__ import annotations

from heatlas.pipeline.demo.story import LabelNoiseResult, cluster_lines, label_noise_found, noise_lines, shortcut_lines


def test_the_recipe_and_confidence_are_measured_on_the_same_images():
    truth = {name: {"label": "a", "true_label": "b" if name in "xz" else "a"} for name in "wxyz"}
    rows = [
        {"id": "w", "target": 0, "label": 0, "prediction": 0, "confidence": 0.9},
        {"id": "x", "target": 1, "label": 0, "prediction": 1, "confidence": 0.8},
        {"id": "x", "target": 0, "label": 0, "prediction": 1, "confidence": 0.1},
        {"id": "y", "target": 0, "label": 0, "prediction": 0, "confidence": 0.3},
        {"id": "z", "target": 0, "label": 0, "prediction": 0, "confidence": 0.6},
    ]
    result = label_noise_found(rows, [{"id": "x", "priority": 0.7}], truth)
    assert result == LabelNoiseResult(4, 2, 1, 1, 1)
    assert "2 of 4 images have a label that is not theirs (50 %)" in noise_lines(result)[0]
    assert (
        "label_suspicion lists 1, of which 1 are wrong; of the 2 images with the least confidence in their label, 1 are."
        in noise_lines(result)[0]
    )


def test_no_wrong_labels_are_said_to_be_none():
    lines = noise_lines(LabelNoiseResult(8, 0, 1, 0, 0))
    assert lines == [
        "Wrong labels: none is planted among these 8 images, label_suspicion lists 1; explain more images to see them found."
    ]


def test_a_queue_that_names_another_class_is_told_as_it_is():
    assert shortcut_lines([])[0].startswith("Shortcut queue: empty")
    queue = [{"id": "i", "label": "disc", "reason": "right, but"}, {"id": "j", "label": "octagon", "reason": "r"}]
    assert shortcut_lines(queue) == ["Shortcut queue: 2 images (1 disc, 1 octagon); the first is i: right, but."]


def test_a_cluster_without_stickers_is_told_as_it_is():
    clusters = [{"class": 0, "cluster": 0, "class_name": "disc", "reason": "half of disc"}]
    members = [{"id": "i", "class": 0, "cluster": 0}, {"id": "j", "class": 1, "cluster": 0}]
    truth = {"i": {"shortcut": "0"}, "j": {"shortcut": "1"}}
    assert cluster_lines(clusters, members, truth) == [
        "First cluster: half of disc. With the sticker: 0 of these 1 images (of 1 that carry it, whose class is octagon)."
    ]
