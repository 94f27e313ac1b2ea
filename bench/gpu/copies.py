"""Copy real images under new names, so that a GPU has enough to do: `python bench/gpu/copies.py FROM TO COUNT`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

IMAGES = (".jpeg", ".jpg")


def copy_images(source: Path, target: Path, count: int) -> int:
    """Write `count` files named 00000.jpg, 00001.jpg, ..., taking the images of `source` in turns; how many it has."""
    images = sorted(path for path in source.iterdir() if path.suffix.lower() in IMAGES)
    if not images:
        raise SystemExit(f"{source} has no {' or '.join(IMAGES)} files")
    target.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        shutil.copy(images[number % len(images)], target / f"{number:05d}.jpg")
    return len(images)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        raise SystemExit(f"usage: python {sys.argv[0]} FROM TO COUNT")
    copy_images(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]))
