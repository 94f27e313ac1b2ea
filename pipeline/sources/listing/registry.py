"""Every kind of source by its name, which is also its prefix: `coco:instances.json`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ....workers.object_names import PREFIX
from .coco import list_coco
from .folder import IMAGE_SUFFIXES, is_image, list_folder
from .given_data import list_given
from .hf_dataset import SPLITS, STATE, list_hf
from .manifest import MANIFEST_SUFFIXES, list_manifest
from .options import Listed, SourceOptions
from .parquet import list_parquet
from .python_factory import list_python
from .tar import list_tars
from .torchvision_data import list_torchvision, with_absolute_root
from .voc import ANNOTATIONS, IMAGES, list_voc

Names = Mapping[str, bool]
"""What lies directly in a folder: base name, and whether it is a folder."""


@dataclass(frozen=True)
class Source:
    """A kind of data set."""

    name: str
    what: str
    """For people."""
    listed: Callable[[str, SourceOptions], Listed]
    suffixes: frozenset[str] = frozenset()
    """Of files that are of this kind, or may be."""
    in_folder: Callable[[Names], bool] = lambda names: False
    """Whether a folder looks like this kind."""
    annotated: bool = False
    """Whether there can be a row per annotation."""
    is_place: bool = True
    """Whether what follows the prefix is a path or URI."""
    canonical: Callable[[str], str] = str
    """What follows the prefix, as it means the same to a worker in another folder."""


def _has(names: Names, *suffixes: str) -> bool:
    return any(name.lower().endswith(suffixes) for name, is_folder in names.items() if not is_folder)


def _looks_like_voc(names: Names) -> bool:
    folders = {name.casefold() for name, is_folder in names.items() if is_folder}
    return {ANNOTATIONS.casefold(), IMAGES.casefold()} <= folders or (_has(names, ".xml") and any(map(is_image, names)))


def _looks_like_coco(names: Names) -> bool:
    return any(_is_coco_name(name) for name, is_folder in names.items() if not is_folder)


def _is_coco_name(name: str) -> bool:
    return name.lower().endswith(".json") and (name.startswith("instances") or "coco" in name.lower())


_CLAIMED = {name.casefold() for name in (ANNOTATIONS, IMAGES, "ImageSets", "SegmentationClass", "SegmentationObject")}


def _looks_like_images(names: Names) -> bool:
    """Images, or folders that can hold some and belong to no other kind."""
    if STATE in names or SPLITS in names:
        return False
    folders = {name.casefold() for name, is_folder in names.items() if is_folder}
    others = folders - (_CLAIMED if ANNOTATIONS.casefold() in folders else set())
    return bool(others) or any(is_image(name) for name, is_folder in names.items() if not is_folder)


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("folder", "image folder", list_folder, IMAGE_SUFFIXES, _looks_like_images),
        Source("manifest", "manifest", list_manifest, frozenset(MANIFEST_SUFFIXES)),
        Source("tar", "WebDataset tars", list_tars, frozenset({".tar"}), lambda names: _has(names, ".tar")),
        Source("parquet", "Parquet with images", list_parquet, frozenset({".parquet"}), lambda names: _has(names, ".parquet")),
        Source("hf", "directory of Hugging Face datasets", list_hf, in_folder=lambda names: STATE in names or SPLITS in names),
        Source("coco", "COCO annotations", list_coco, frozenset({".json"}), _looks_like_coco, annotated=True),
        Source("voc", "Pascal VOC folder", list_voc, in_folder=_looks_like_voc, annotated=True),
        Source("torchvision", "data set of torchvision", list_torchvision, annotated=True, is_place=False, canonical=with_absolute_root),
        Source("python", "Python factory", list_python, is_place=False),
        Source(PREFIX, "data set handed over as an object", list_given, is_place=False),
    )
}  # fmt: skip
