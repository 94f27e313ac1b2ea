"""Which objects of a class are explained: the bound, what is too small, names, boxes, and stored explanations recognised again."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.explanation import Explanation
from heatlas.errors import SampleError
from heatlas.workers.images.preprocess import Preprocess
from heatlas.workers.object_targets import box_of, image_objects, recognised_objects
from heatlas.workers.targets import MOST_COMPONENTS, parse_target
from torch import Tensor


def squares(count: int, side: int = 3) -> Tensor:
    """So many squares of class 2, ten in a row of a scene of 80 x 100 pixels, the last one larger."""
    scene = torch.zeros(80, 100, dtype=torch.int16)
    for number in range(count):
        top, left = 10 * (number // 10), 10 * (number % 10)
        extra = 1 if number == count - 1 else 0
        scene[top : top + side + extra, left : left + side + extra] = 2
    return scene


def test_of_forty_components_the_largest_are_explained_and_the_rest_is_said() -> None:
    objects = image_objects(squares(40), 2, MOST_COMPONENTS)
    assert [each.object_id for each in objects.explained] == [f"{number:03d}" for number in range(1, 17)]
    assert objects.left_out == 24
    assert objects.note() == (
        "24 of 40 components of class 2 are not explained: at most 16 of an image, the largest ones (components:CLASS:40 explains all)"
    )
    assert objects.explained[0].region[30:34, 90:94].all(), "the largest first"
    assert objects.explained[1].region[:3, :3].all(), "then by their first pixels"
    everything = image_objects(squares(40), 2, 40)
    assert (len(everything.explained), everything.note()) == (40, None)
    assert sum(each.region.sum() for each in everything.explained) == (squares(40) == 2).sum()


def test_speckle_is_no_object() -> None:
    scene = squares(3)
    scene[70, 50:57] = 2  # 7 of 8000 pixels
    assert len(image_objects(scene, 2, 16).explained) == 3
    scene[70, 57] = 2
    assert len(image_objects(scene, 2, 16).explained) == 4, "a thousandth counts"
    noise = (torch.rand(600, 600, generator=torch.Generator().manual_seed(0)) < 0.1).to(torch.int16)
    for each, text in (
        (torch.zeros(8, 8, dtype=torch.int16), "nowhere in the image$"),
        (noise, "but in .* components of less than 0.1 % of the pixels"),
    ):
        with pytest.raises(SampleError, match=text) as caught:
            image_objects(each, 1, 16)
        assert caught.value.status == "no_evidence"


@pytest.mark.parametrize("resize", ["squash", "pad", "shorter_side_crop"])
def test_boxes_lie_in_the_image_as_decoded(resize: str) -> None:
    geometry = Preprocess((40, 40), resize).geometry(100, 60)  # pyright: ignore[reportArgumentType]
    scene = torch.zeros(20, 20, dtype=torch.int16)
    scene[8:13, 9:15] = 1
    [target] = image_objects(scene, 1, 1).explained
    box = box_of(target, geometry)
    assert geometry.box(box) == pytest.approx((18, 16, 30, 26)), "there and back"
    assert 0 <= box[0] < box[2] <= 60
    assert 0 <= box[1] < box[3] <= 100


def test_boxes_do_not_leave_the_image() -> None:
    geometry = Preprocess((40, 40), "pad").geometry(100, 60)
    [target] = image_objects(torch.ones(40, 40, dtype=torch.int16), 1, 1).explained
    assert box_of(target, geometry) == pytest.approx((0, 0, 60, 100))


def test_stored_objects_are_recognised() -> None:
    def stored(object_id: str | None) -> Explanation:
        return Explanation("ok", None, 2, 2, 0.5, 1.0, object_id=object_id)

    own = image_objects(squares(20), 2, 20).explained
    whole, third, eighteenth = recognised_objects(squares(20), [stored(None), stored("003"), stored("018")])
    assert whole == 2
    assert not hasattr(whole, "region")
    for found, expected in ((third, own[2]), (eighteenth, own[17])):
        assert torch.equal(found.region, expected.region)  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    with pytest.raises(SampleError, match="no object 021 of class 2 any more"):
        recognised_objects(squares(20), [stored("021")])
    assert recognised_objects(None, [stored(None)]) == (2,)


@pytest.mark.parametrize(
    ("written", "names", "classes", "count"),
    [
        ("components:2", ("a", "b", "c"), (2,), 16), ("components:b:40", ("a", "b", "c"), (1,), 40), ("components: b ", ("a", "b"), (1,), 16),
        ("components:b:2", ("a", "b", "b:2"), (2,), 16), ("components:b:2:5", ("a", "b", "b:2"), (2,), 5),
    ],
)  # fmt: skip
def test_components_may_be_bounded_and_names_may_hold_colons(
    written: str, names: tuple[str, ...], classes: tuple[int, ...], count: int
) -> None:
    rule = parse_target(written, names, len(names))
    assert (rule.kind, rule.classes, rule.count, rule.asks_model) == ("components", classes, count, True)


def test_a_class_may_be_called_as_the_rule() -> None:
    assert parse_target("components:b", ("a", "components:b"), 2).kind == "classes"
