"""The source text of a model that the user's own code builds: a change of it is told where the model computes the same as before."""

from __future__ import annotations

import hashlib
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

from torch import nn


def source_digest(factory_module: ModuleType, model: nn.Module) -> str:
    """Sha256 (hex) over the files of the factory's module and of the modules of the model's classes, installed packages left out."""
    names = {factory_module.__name__, *(type(part).__module__ for part in model.modules())}
    digest = hashlib.sha256()
    for name in sorted(names):
        place = getattr(sys.modules.get(name), "__file__", None)
        if place is not None and not _installed(Path(place)):
            digest.update(name.encode() + b"\0" + _bytes(Path(place)))
    return digest.hexdigest()


def _installed(place: Path) -> bool:
    homes = {sysconfig.get_path(kind) for kind in ("stdlib", "platstdlib", "purelib", "platlib")}
    return any(place.resolve().is_relative_to(Path(home).resolve()) for home in homes if home)


def _bytes(place: Path) -> bytes:
    try:
        return place.read_bytes()
    except OSError:
        return b""
