"""A choice as people read it in a terminal."""

from __future__ import annotations

from .choose import ChosenMethod
from .method_values import COLUMNS


def choice_text(chosen: ChosenMethod) -> str:
    """The reason, a line per method with its ranks, and what to know about them."""
    choice = chosen.choice
    wide = max(len(row["method"]) for row in choice.rows)
    head = (
        f"{'':{wide + 2}}  {'mean rank':>9}  {'95 %':>12}  {'best':>5}  {'passes':>7}  {'+ metrics':>9}  "
        + "  ".join(f"{name:>14}" for name in choice.columns)
    )
    lines = [choice.reason, "", head]
    for row in choice.rows:
        mark = "->" if row["chosen"] else "  "
        own = "" if row["own_passes"] is None else f"{row['own_passes']:.0f}"
        interval = f"{row['low']:.2f} to {row['high']:.2f}"
        values = "  ".join(f"{row[name]:>14.4f}" for name in choice.columns)
        lines.append(
            f"{mark}{row['method']:{wide}}  {row['mean_rank']:>9.2f}  {interval:>12}  {100 * row['best_share']:>4.0f} %  {own:>7}  {row['passes']:>9.0f}  {values}"
        )
    lines.append("")
    for name in choice.columns:
        chance = [row[f"{name}_chance"] for row in choice.rows]
        said = "" if chance[0] is None else f" ({chance[0]:.4f})"
        lines.append(f"{name}: {COLUMNS[name].meaning}{said}")
    lines += [f"note: {note}" for note in chosen.notes]
    lines += [f"left out: {name}: {why}" for name, why in chosen.skipped.items()]
    lines.append(
        "These columns chose the method on these images, so they flatter it there: report it on other images, or by other metrics."
    )
    return "\n".join(lines)
