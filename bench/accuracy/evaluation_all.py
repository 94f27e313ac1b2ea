"""Every method that needs no training under one protocol, on as many photographs as a time allows; writes docs/evaluation-all.md.

    python -m bench evaluation_all [--minutes 15] [--images 300] [--processes 2] [--scores FOLDER] [--page FILE]

Two rounds of `python -m bench evaluation`, each shared by several processes: the methods that take up to about 100 passes an image, which get
most of the time, then the costly ones on the first of the same images. The page says of every method on how many images it was
measured. The same command goes on where it stopped: run it again for more images. Trained explainers are measured on images they were not
trained on by `python -m bench trained_explainers`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from ..page_part import DOCS

CHEAP = (
    "sise", "sise:mu=0.3", "ada_sise", "sise_plus", "grad_cam", "grad_cam_pp", "layer_cam", "lafam", "refine_cam", "winsor_cam", "agf", "bee",
    "feature_cam:edges=sobel", "feature_cam:edges=sobel,variant=soft", "feature_cam:edges=sobel,variant=fused",
    "feature_cam:edges=sobel,variant=edges_only", "integrated_gradients", "expected_gradients", "occlusion", "ucag",
)  # fmt: skip
"""SISE's kind is here since all of it shares one scoring of the masks."""
COSTLY = ("rise:masks=1000", "score_cam", "bee_select", "lima", "fovex", "consensus")
CHEAP_SHARE = 0.75
"""Of the minutes."""


def evaluate(methods: Sequence[str], minutes: float, arguments: argparse.Namespace) -> None:
    """Several processes, each with its part of the images, until the minutes are over.

    Raises:
        SystemExit: When one fails.
    """
    parts = range(1, arguments.processes + 1)
    running = [
        subprocess.Popen(
            [
                *base(arguments), "--methods", *methods, "--part", f"{part}/{arguments.processes}", "--minutes", f"{minutes:g}",
                "--page", str(arguments.scores / f"evaluation-all-{part}.md"),
            ]
        )
        for part in parts
    ]  # fmt: skip
    codes = [process.wait() for process in running]
    if any(codes):
        raise SystemExit(f"a process ended with {max(codes)}; run the same command again to go on")


def base(arguments: argparse.Namespace) -> list[str]:
    return [
        sys.executable, "-m", "bench", "evaluation", "--images", str(arguments.images), "--sets", "imagenet_boxes", "--scores", str(arguments.scores),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench evaluation_all")
    parser.add_argument(
        "--minutes", type=float, default=15, help="no image is begun later; the last ones take a little longer"
    )
    parser.add_argument("--images", type=int, default=300, help="at most")
    parser.add_argument("--processes", type=int, default=2, help="of one thread each")
    parser.add_argument("--scores", type=Path, default=Path("bench-out"), help="where scores are kept")
    parser.add_argument("--page", type=Path, default=DOCS / "evaluation-all.md", help="where the page is written")
    arguments = parser.parse_args()
    arguments.scores.mkdir(parents=True, exist_ok=True)
    evaluate(CHEAP, CHEAP_SHARE * arguments.minutes, arguments)
    evaluate(COSTLY, (1 - CHEAP_SHARE) * arguments.minutes, arguments)
    finish = [*base(arguments), "--methods", *CHEAP, *COSTLY, "--compute", "--page", str(arguments.page)]
    subprocess.run([*finish, "--title", "Every method under one protocol"], check=True)


if __name__ == "__main__":
    main()
