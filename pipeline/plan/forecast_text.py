"""A forecast as people read it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..store.status import field
from ..text import counted, duration, shift_text

if TYPE_CHECKING:
    from .forecast_facts import Forecast, StoreSize

LAYERS_SHOWN = 6


def format_forecast(forecast: Forecast) -> str:
    """Ready to print."""
    lines = [f"{forecast.data} by {forecast.method} through {forecast.model}"]
    lines += [
        field("images", images_line(forecast)),
        field("classes", f"{forecast.classes:,}" + ("" if forecast.class_names else ", without names")),
        field("shards", f"{forecast.shards.count:,}, of {forecast.shards.largest} images at most"),
    ]
    if forecast.layers:
        named = ", ".join(f"{item['name']} ({item['channels']})" for item in forecast.layers[:LAYERS_SHOWN])
        more = f" and {len(forecast.layers) - LAYERS_SHOWN} more" if len(forecast.layers) > LAYERS_SHOWN else ""
        lines.append(field("layers", f"{named}{more}"))
    if forecast.labels:
        lines.append(field("labels", forecast.labels))
    if (training := forecast.training) is not None:
        lines.append(
            field(
                "training",
                f"{training.images:,} images, {training.holdout:,} held out, {counted(training.epochs, 'epoch')}: {training.forwards:,.0f} passes of the model, "
                f"{duration(training.seconds)} on {training.device} with 1 worker (two steps timed here), before the run; `heatlas train {forecast.method}`",
            )
        )
    lines += [*work_lines(forecast), *time_lines(forecast), store_line(forecast.store)]
    if (shift := forecast.map_shift) is not None:
        how = f"mirror images of {counted(shift.images, 'image')}{', after the correction' if forecast.correct_shift else ''}"
        to_do = (
            "; --correct-shift measured moves maps back" if any(shift.correction) and not forecast.correct_shift else ""
        )
        lines.append(field("map shift", f"{shift_text(shift.down, shift.right)} ({how}){to_do}"))
    if forecast.accuracy is not None:
        judged = counted(forecast.accuracy.images, "labelled image")
        lines.append(field("accuracy", f"{100 * forecast.accuracy.top1:.0f} % top-1 on {judged} looked at"))
    lines.append("preprocessing")
    lines += [f"  {item.name:<14} {value_text(item.value):<26} {item.origin}" for item in forecast.preprocess]
    if not forecast.findings:
        return "\n".join([*lines, "nothing looks wrong"])
    lines.append(f"{counted(len(forecast.findings), 'thing')} that look wrong" if len(forecast.findings) != 1 else "1 thing that looks wrong")  # fmt: skip
    for item in forecast.findings:
        lines += [f"  {item.code}: {item.text}", f"      {item.remedy}"]
    return "\n".join(lines)


def images_line(forecast: Forecast) -> str:
    probe = forecast.probe
    several = f", {forecast.rows_per_image:.3g} rows each" if forecast.rows_per_image not in (0, 1) else ""
    return f"{forecast.images:,}{several}; looked at {probe.looked_at}, {probe.usable} of them usable"


def work_lines(forecast: Forecast) -> list[str]:
    lines = []
    if (masks := forecast.masks) is not None:
        lines.append(
            field(
                "masks",
                f"{masks.mean:,.0f} per image and target before any budget ({masks.low:,} to {masks.high:,} on {counted(masks.images, 'image')} here)",
            )
        )
    if (total := forecast.forwards.total) is not None:
        lines.append(
            field(
                "forwards",
                f"{forecast.forwards.per_image:,.0f} per image, {total:,.0f} in all (a backward pass counts as two)",
            )
        )
        parts = [f"{count:,.0f} for {name}" for name, count in (forecast.forwards.parts or {}).items() if count]
        lines.append(field("", f"of which {', '.join(parts)}"))
    rate = forecast.rate
    how = f"{rate.precision}, {rate.forward}, batch {rate.batch_size}"
    chosen = ", chosen by a trial" if rate.by_trial else f", {counted(forecast.probe.threads, 'thread')}"
    lines.append(
        field("rate", f"{rate.forwards_per_second:,.1f} forwards a second measured on {rate.device}, {how}{chosen}")
    )
    return lines


def time_lines(forecast: Forecast) -> list[str]:
    """One line per way of coming by the numbers."""
    lines: list[str] = []
    by_how: dict[tuple[str, str], list[str]] = {}
    for item in forecast.times:
        by_how.setdefault((item.device, item.how), []).append(
            f"{counted(item.workers, 'worker')} {duration(item.seconds)}"
        )
    for (device, how), each in by_how.items():
        lines.append(field("time" if not lines else "", f"{device}: {', '.join(each)} ({how}; without their start)"))
    return lines


def store_line(store: StoreSize) -> str:
    return field("store", f"{store.bytes / 1e6:,.1f} MB, {store.per_row:,} bytes a row ({store.how})")


def value_text(value: Any) -> str:
    return " ".join(f"{number:g}" for number in value) if isinstance(value, tuple | list) else str(value)
