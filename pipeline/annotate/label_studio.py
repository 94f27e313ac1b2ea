"""Write suggestions as Label Studio tasks with predictions, and read the annotations of an export back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from xml.sax.saxutils import quoteattr

from ...errors import UsageError
from ..decisions.rle import Rle, encode_mask
from .brush_rle import decode_brush, encode_brush
from .suggestion import DECISIONS, RELABEL, Answer, Suggestion, united

BRUSH, CHOICE, IMAGE = "mask", "decision", "image"
MODEL_VERSION = "heatlas"


def label_config(class_names: Sequence[str]) -> str:
    """The labelling interface that the tasks need, as XML."""
    brushes = "".join(f"<Label value={quoteattr(name)}/>" for name in ("shortcut", "core"))
    choices = [
        *(name for name in DECISIONS if name not in ("shortcut", "core")),
        *(f"{RELABEL}{name}" for name in class_names),
    ]
    listed = "".join(f"<Choice value={quoteattr(name)}/>" for name in choices)
    return (
        f'<View><Header value="$reason"/><Image name="{IMAGE}" value="$image" zoom="true"/><BrushLabels name="{BRUSH}" toName="{IMAGE}">{brushes}'
        f'</BrushLabels><Choices name="{CHOICE}" toName="{IMAGE}" choice="single">{listed}</Choices></View>\n'
    )


def label_studio_bytes(suggestions: Sequence[Suggestion], class_names: Sequence[str]) -> bytes:
    """The JSON file to import: one task per image, its suggestions as one prediction."""
    by_image: dict[str, list[Suggestion]] = {}
    for it in suggestions:
        by_image.setdefault(it.id, []).append(it)
    tasks = [
        {
            "data": {"image": group[0].uri, "heatlas_id": identity, "label": group[0].label, "reason": " ".join(dict.fromkeys(it.reason for it in group))},
            "predictions": [{"model_version": MODEL_VERSION, "score": max(it.priority for it in group), "result": [_result(it) for it in group]}],
        }
        for identity, group in by_image.items()
    ]  # fmt: skip
    return json.dumps(tasks, ensure_ascii=False).encode()


def read_label_studio_answers(data: bytes, origin: str, ids: Mapping[str, str]) -> list[Answer]:
    """What people annotated; predictions are no answers, and cancelled annotations are skipped.

    Args:
        data: An export in the format JSON.
        origin: Its name, for messages.
        ids: Image ids by URI.

    Raises:
        UsageError: For a file of another form, an unknown image, or a brush mask that does not fit its image.
    """
    try:
        tasks = json.loads(data)
        if not isinstance(tasks, list) or not all(isinstance(task, dict) and "data" in task for task in tasks):
            raise ValueError("it is no list of tasks with `data`")
    except ValueError as error:
        raise UsageError(f"{origin} is no export of Label Studio in the format JSON: {error}") from None
    answers = []
    for task in tasks:
        identity = task["data"].get("heatlas_id") or ids.get(str(task["data"].get("image")))
        for annotation in task.get("annotations") or ():
            if annotation.get("was_cancelled"):
                continue
            if identity is None:
                raise UsageError(
                    f"task {task.get('id')} of {origin} has no heatlas_id, and its image was not pushed from this store"
                )
            answers += _answers(str(identity), annotation, origin)
    return answers


def _result(it: Suggestion) -> dict[str, Any]:
    common = {"id": it.suggestion_id[:10], "to_name": IMAGE, "original_width": it.width, "original_height": it.height, "image_rotation": 0,
              "score": it.priority, "meta": {"text": [it.reason], "suggestion_id": it.suggestion_id}}  # fmt: skip
    pixels = it.pixels()
    if pixels is None:
        return {**common, "from_name": CHOICE, "type": "choices", "value": {"choices": [it.proposal]}}
    value = {"format": "rle", "rle": encode_brush(pixels), "brushlabels": [it.proposal]}
    return {**common, "from_name": BRUSH, "type": "brushlabels", "value": value}


def _answers(identity: str, annotation: Mapping[str, Any], origin: str) -> Iterator[Answer]:
    by = annotation.get("completed_by")
    who = by.get("email") if isinstance(by, Mapping) else None if by is None else f"user {by}"
    facts: dict[str, Any] = {
        "who": who,
        "when": annotation.get("updated_at") or annotation.get("created_at"),
        "by_person": True,
    }
    masks: dict[str, list[Rle]] = {}
    for result in annotation.get("result") or ():
        value = result.get("value") or {}
        for called in value.get("choices") or ():
            if called in DECISIONS or str(called).startswith(RELABEL):
                yield Answer(identity, str(called), **facts)
        for called in value.get("brushlabels") or ():
            if called in ("shortcut", "core"):
                try:
                    height, width = int(result["original_height"]), int(result["original_width"])
                except (KeyError, TypeError, ValueError):
                    raise UsageError(
                        f"a brush mask of {identity!r} in {origin} lacks original_height and original_width"
                    ) from None
                masks.setdefault(called, []).append(encode_mask(decode_brush(value.get("rle") or (), height, width)))
    for called, parts in masks.items():
        yield Answer(identity, called, united(parts), **facts)
