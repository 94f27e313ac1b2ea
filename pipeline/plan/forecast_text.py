"""A forecast as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..store.status import field
from ..text import counted, duration

LAYERS_SHOWN = 6


def format_forecast(found: Mapping[str, Any]) -> str:
    """Ready to print."""
    lines = [f"{found['data']} by {found['method']} through {found['model']}"]
    lines += [
        field("images", images_line(found)),
        field("classes", f"{found['classes']:,}" + ("" if found["class_names"] else ", without names")),
        field("shards", f"{found['shards']['count']:,}, of {found['shards']['largest']} images at most"),
    ]
    if found["layers"]:
        named = ", ".join(f"{one['name']} ({one['channels']})" for one in found["layers"][:LAYERS_SHOWN])
        more = f" and {len(found['layers']) - LAYERS_SHOWN} more" if len(found["layers"]) > LAYERS_SHOWN else ""
        lines.append(field("layers", f"{named}{more}"))
    lines += [*work_lines(found), *time_lines(found), store_line(found["store"])]
    if found["accuracy"] is not None:
        judged = counted(found["accuracy"]["images"], "labelled image")
        lines.append(field("accuracy", f"{100 * found['accuracy']['top1']:.0f} % top-1 on {judged} looked at"))
    lines.append("preprocessing")
    lines += [f"  {one['name']:<14} {value_text(one['value']):<26} {one['from']}" for one in found["preprocess"]]
    if not found["findings"]:
        return "\n".join([*lines, "nothing looks wrong"])
    lines.append(f"{counted(len(found['findings']), 'thing')} that look wrong" if len(found["findings"]) != 1 else "1 thing that looks wrong")  # fmt: skip
    for one in found["findings"]:
        lines += [f"  {one['code']}: {one['text']}", f"      {one['remedy']}"]
    return "\n".join(lines)


def images_line(found: Mapping[str, Any]) -> str:
    probe = found["probe"]
    several = f", {found['rows_per_image']:.3g} rows each" if found["rows_per_image"] not in (0, 1) else ""
    return f"{found['images']:,}{several}; looked at {probe['looked_at']}, {probe['usable']} of them usable"


def work_lines(found: Mapping[str, Any]) -> list[str]:
    lines = []
    if (masks := found["masks"]) is not None:
        lines.append(
            field(
                "masks",
                f"{masks['mean']:,.0f} per image ({masks['low']:,} to {masks['high']:,} on {counted(masks['images'], 'image')} here)",
            )
        )
    if (total := found["forwards"]["total"]) is not None:
        lines.append(
            field(
                "forwards",
                f"{found['forwards']['per_image']:,.0f} per image, {total:,.0f} in all (a backward pass is two)",
            )
        )
    rate = found["rate"]
    lines.append(
        field("rate", f"{rate['forwards_per_second']:,.1f} forwards a second measured on {rate['device']}, batch {rate['batch_size']}, "
                      f"{counted(found['probe']['threads'], 'thread')}")
    )  # fmt: skip
    return lines


def time_lines(found: Mapping[str, Any]) -> list[str]:
    """One line per way of coming by the numbers."""
    lines: list[str] = []
    by_how: dict[tuple[str, str], list[str]] = {}
    for one in found["times"]:
        by_how.setdefault((one["device"], one["how"]), []).append(f"{one['workers']} x {duration(one['seconds'])}")
    for (device, how), each in by_how.items():
        lines.append(field("time" if not lines else "", f"{device}: {', '.join(each)} ({how})"))
    return lines


def store_line(store: Mapping[str, Any]) -> str:
    return field("store", f"{store['bytes'] / 1e6:,.1f} MB, {store['per_row']:,} bytes a row ({store['how']})")


def value_text(value: Any) -> str:
    return " ".join(f"{one:g}" for one in value) if isinstance(value, tuple | list) else str(value)
