"""Write docs/planted.md from what `python -m bench planted` printed: found or missed, by kind, over networks and seeds.

python -m bench planted > planted.log && python -m bench planted_page planted.log
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Collection
from pathlib import Path

import numpy as np

from ..page_part import DOCS, machine, table, write_part
from .planted import NOISES
from .planted_pretrained import PRETRAINED
from .planted_sets import DEVELOPED_ON, MARKS, NETWORKS

LINE = re.compile(r"(\w+)\s+(\w+)\s+(\d)\s+\((developed on|untouched)\)\s+(.*)")
Lines = dict[str, list[tuple[str, int, str]]]


def read(paths: list[Path]) -> Lines:
    """Network, seed and text by kind; a repeated measurement counts once, the last."""
    result: dict[tuple[str, str, int], str] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            if match := LINE.fullmatch(line.strip()):
                result[match[1], match[2], int(match[3])] = match[5]
    lines: Lines = defaultdict(list)
    for (kind, network, seed), text in sorted(result.items()):
        lines[kind].append((network, seed, text))
    return lines


def numbers(pattern: str, texts: list[str]) -> np.ndarray:
    """The number that a pattern captures in each text; texts without it are left out."""
    return np.array([float(match[1]) for text in texts if (match := re.search(pattern, text))])


def marks_rows(lines: Lines, networks: Collection[str] = tuple(NETWORKS)) -> list[list[str]]:
    rows = []
    for kind in MARKS:
        texts = [text for network, _, text in lines[kind] if network in networks]
        if not texts:
            continue
        first = sum("class first: yes" in text for text in texts)
        below = sum("class first: below" in text for text in texts)
        auroc = numbers(r"AUROC (\d\.\d+)", texts)
        others = sum(" accused" in text and "," in text.split("accused")[0] for text in texts)
        rows.append(
            [f"`{kind}`{' (thresholds)' if kind in DEVELOPED_ON else ''}", f"{first} of {len(texts)}", f"{below}", f"{len(texts) - first - below}",
             f"{np.median(auroc):.3f}", f"{auroc.min():.3f}", f"{others}"]
        )  # fmt: skip
    return rows


def noise_rows(lines: Lines) -> list[list[str]]:
    rows = []
    for kind in NOISES:
        texts = [text for network, _, text in lines[kind] if network in NETWORKS]
        ours, model, probe = (
            numbers(pattern, texts)
            for pattern in (r"queue (\d\.\d+)", r"1 - p (\d\.\d+)", r"cross-validated (\d\.\d+)")
        )
        wrong = numbers(r"estimated wrong (\d+)", texts)
        truth = numbers(r"estimated wrong \d+ of (\d+)", texts)
        near = int((np.abs(wrong - truth) <= 0.3 * truth).sum())
        low, high = numbers(r"range (\d+) to", texts), numbers(r"range \d+ to (\d+)", texts)
        covered = int(((low <= truth) & (truth <= high)).sum())
        behind = np.maximum(model, probe) - ours
        rows.append([f"`{kind}`", f"{ours.mean():.3f}", f"{model.mean():.3f}", f"{probe.mean():.3f}", f"{int((behind <= 0.005).sum())} of {len(texts)}",
                     f"{behind.max():.3f}", f"{wrong.min():.0f} to {wrong.max():.0f} of {truth[0]:.0f}", f"{near} of {len(texts)}",
                     f"{covered} of {len(texts)}"])  # fmt: skip
    return rows


def other_lines(lines: Lines) -> list[str]:
    clean, unspoilt, copies, strangers = (
        [text for network, _, text in lines[kind] if network in NETWORKS]
        for kind in ("clean", "clean_labels", "copies", "strangers")
    )
    listed, labels = numbers(r"; listed (\d+\.\d)%", clean), numbers(r"listed (\d+\.\d)%", unspoilt)
    wrong, ours, plain = (
        numbers(r"estimated wrong (\d+)", unspoilt),
        numbers(r"AUROC (\d\.\d+)", strangers),
        numbers(r"features (\d\.\d+)", strangers),
    )
    hits, others = numbers(r"(\d+) of 40 pairs", copies), numbers(r"; (\d+) other images", copies)
    caught, wrongly = numbers(r"(\d+) of 40 listed", strangers), numbers(r"listed, (\d+) others", strangers)
    return [
        f"- **Clean** ({len(clean)} runs): shortcut queue {listed.max():.1f} % listed at most, label queue {labels.min():.1f} to {labels.max():.1f} %; "
        f"estimated wrong {wrong.min():.0f} to {wrong.max():.0f} of 0 among 1200.",
        f"- **Near-duplicates** ({len(copies)} runs): {hits.min():.0f} to {hits.max():.0f} of 40 pairs; {others.max():.0f} of the 1120 other images listed.",
        f"- **Outliers** ({len(strangers)} runs): AUROC {ours.min():.3f} to {ours.max():.3f}, k-NN of all features {plain.min():.3f} to {plain.max():.3f}; "
        f"{caught.min():.0f} to {caught.max():.0f} of 40 listed, {wrongly.max():.0f} others at most.",
    ]  # fmt: skip


def pretrained_lines(lines: Lines, head: tuple[str, ...]) -> list[str]:
    """What was measured with a pretrained network on larger images, as it came out; nothing where nothing was."""
    text = []
    for network in PRETRAINED:
        if rows := marks_rows(lines, (network,)):
            text += [f"**`{network}`** (untouched):", "", *table(head, rows), ""]
        for kind in (*NOISES, "clean", "clean_labels", "copies", "strangers"):
            text += [f"- `{kind}`, seed {seed}: {said}" for name, seed, said in lines[kind] if name == network]
        if text and text[-1]:
            text.append("")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("logs", nargs="+", type=Path)
    lines = read(parser.parse_args().logs)
    head = (
        "mark",
        "guilty class first and accused",
        "first, below threshold",
        "not first",
        "AUROC, median",
        "AUROC, worst",
        "runs that accuse another class too",
    )
    noise = (
        "noise",
        "AUROC of the queue",
        "1 - p",
        "1 - p, cross-validated",
        "at most 0.005 behind the better",
        "farthest behind",
        "estimated wrong",
        "within 30 %",
        "truth in the range",
    )
    runs = sum(map(len, lines.values()))
    text = [
        *table(head, marks_rows(lines)), "", *table(noise, noise_rows(lines)), "", *other_lines(lines), "",
        *pretrained_lines(lines, head), f"{runs} runs, networks {', '.join(NETWORKS)}, `python -m bench planted`, {machine()}.",
    ]  # fmt: skip
    write_part(DOCS / "planted.md", "planted", "\n".join(text))


if __name__ == "__main__":
    main()
