"""By how many pixels a run moves its maps back: as written, as the stored run has it, or as mirrored images of a few samples tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import torch

from ...engine.map_shift import MapShift, measure_map_shift
from ...errors import SampleError, SettingsError, UsageError
from ...workers.protocols import SampleReader
from ...workers.worker.build import ModelEngine, build_engine
from ...workers.worker.process_state import restore_process_state
from ...workers.worker.shard_attempt import seed_of
from ...workers.worker.spec import WorkerSpec
from ..settings.run import Settings
from ..shards import some_samples
from ..terminal_log import say
from ..text import counted, shift_text

MEASURED = "measured"
FACT = "correct_shift"
"""In the fingerprint: pixels down and right."""
LOOKED_AT = 12
"""Images, each explained three times."""


def settle_shift(
    asked: Settings,
    stored: Mapping[str, Any] | None,
    size: tuple[int, int],
    measure: Callable[[], MapShift | None],
) -> Settings:
    """The settings with `correct_shift` as pixels, or without it where there is nothing to correct.

    Args:
        asked: Settings of the run.
        stored: `_run.json`, where the directory has one: its run goes on with what was measured when it began.
        size: Height and width of the network's input.
        measure: Explains mirrored images; called where `measured` is asked for of a new run.

    Raises:
        SettingsError: For a correction of half the image or more.
        UsageError: If nothing could be measured.
    """
    if asked.correct_shift is None:
        return asked
    if asked.correct_shift != MEASURED:
        down, right = pixels_of(asked.correct_shift)
        if abs(down) >= size[0] / 2 or abs(right) >= size[1] / 2:
            raise SettingsError(
                f"correct_shift = {asked.correct_shift} moves maps by half of the network's input of {size[0]} x {size[1]} pixels or more; "
                "it is DOWN,RIGHT in pixels"
            )
        return with_shift(asked, (down, right))
    if stored is not None and stored.get("settings", {}).get("correct_shift") == MEASURED:
        return with_shift(asked, tuple(stored["fingerprint"].get(FACT, (0.0, 0.0))))
    shift = measure()
    if shift is None:
        raise UsageError(
            "correct_shift = measured: none of the images that were looked at gave a map, so nothing could be measured; "
            "give DOWN,RIGHT in pixels, or leave it out"
        )
    say(f"note: {shift_sentence(shift)}")
    return with_shift(asked, shift.correction)


def with_shift(settings: Settings, shift: tuple[float, ...]) -> Settings:
    """The settings with a correction of so many pixels down and right; None for none."""
    text = f"{shift[0]:g},{shift[1]:g}" if any(shift) else None
    return settings.model_copy(update={"correct_shift": text})


def pixels_of(text: str | None) -> tuple[float, float]:
    """Pixels down and right of a settled setting; zeros for none."""
    if text is None:
        return 0.0, 0.0
    down, right = map(float, text.split(","))
    return down, right


def shift_sentence(shift: MapShift) -> str:
    """What was measured, and what is corrected."""
    corrected = shift.correction
    measured = f"maps lie {shift_text(shift.down, shift.right)} of what they show (mirror images of {counted(shift.images, 'image')})"
    if not any(corrected):
        return f"{measured}, which is nothing beyond chance or less than 0.1 px; nothing is corrected"
    return f"{measured}; they are moved back by {shift_text(*corrected)}"


def measure_shift(spec: WorkerSpec, listing: pa.Table, reader: SampleReader) -> MapShift | None:
    """Explain some images of a run and their mirror images, in this process.

    Raises:
        UsageError: For a dense model, whose masks are mirrored with the image.
    """
    plain = replace(spec, correct_shift=(0.0, 0.0), chance_below=0, sanity_below=0, metrics=())
    with restore_process_state():
        engine = cast(ModelEngine, build_engine(plain, reader))
        if plain.scoring.confidence.scene is not None:
            raise UsageError(
                "correct_shift = measured is for classifiers; of a model that gives every pixel its class give DOWN,RIGHT"
            )
        seen: list[tuple[torch.Tensor, int, int]] = []
        for sample in some_samples(listing, LOOKED_AT):
            try:
                image = engine.prepare(sample, reader).image
            except SampleError:
                continue
            ranking = engine.overview(image, None).ranking
            if bool(ranking.isfinite().any()):
                seen.append((engine.on_device(image), int(ranking.argmax()), seed_of(sample.id)))
        if not seen:
            return None
        images, targets, seeds = zip(*seen, strict=True)
        return measure_map_shift(engine.session.explainer, images, targets, seeds)
