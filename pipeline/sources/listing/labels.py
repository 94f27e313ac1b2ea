"""Labels as a data set writes them to class indices of a model."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....errors import shortened

_INTEGER = re.compile(r"[+-]?\d{1,15}(\.0+)?")
"""So many digits a float holds exactly; a class index never has more."""
_NAMED = 5
_LONGEST = 40
"""Characters of a label that a message shows."""


@dataclass(frozen=True)
class ResolvedLabels:
    """A listing with class indices, and what could not be resolved."""

    listing: pa.Table
    """The same rows; `label` int32, null where there was none or it names no class."""
    class_names: tuple[str, ...] | None
    """The model's, or the sorted folder names where the model has none and they are as many as its classes."""
    unresolved: dict[str, int] = field(default_factory=dict)
    """Labels that name no class (or more than one), with their number of rows, most frequent first."""

    @property
    def unresolved_rows(self) -> int:
        """Rows whose label names no class."""
        return sum(self.unresolved.values())

    def warning(self) -> str | None:
        """One sentence for the user about what was not resolved; None when everything was."""
        if not self.unresolved:
            return None
        named = ", ".join(repr(shortened(name, _LONGEST)) for name in list(self.unresolved)[:_NAMED])
        more = f" and {len(self.unresolved) - _NAMED} more" if len(self.unresolved) > _NAMED else ""
        return (
            f"{self.unresolved_rows} of {len(self.listing)} samples have a label that names no single class of the model "
            f"({named}{more}); write class indices from 0 or the model's class names"
        )


def resolve_labels(
    listing: pa.Table,
    class_names: Sequence[str] | None,
    num_classes: int,
    source_names: Sequence[str] | None = None,
    all_labels: Sequence[str] = (),
) -> ResolvedLabels:
    """Turn the label column into class indices. Each distinct label is tried in this order:

    1. exactly the name of one class;
    2. an integer: the class index, if it is in `[0, num_classes)`;
    3. the name of one class regardless of case, `_` for spaces, and with synonyms after commas, as ImageNet writes
       "cash machine, cash dispenser"; of a label's synonyms the first that names a single class.

    If that resolves none of them and there are exactly `num_classes` distinct labels, they are the classes in sorted
    order, which is how torchvision's `ImageFolder` numbers class folders. A source that knows its classes in an order of its
    own (Hugging Face's `ClassLabel`, COCO's categories, torchvision's `classes`) goes before both where it has exactly
    `num_classes`: it names the classes of a model that does not name them, and numbers labels that are none of its names. Where it has
    another number of classes, its labels are names and nothing else.

    Args:
        listing: With a text column `label`.
        class_names: One per class, or None where the model has none.
        num_classes: Outputs of the model.
        source_names: The data set's classes in its own order, where it knows them.
        all_labels: Labels of the whole data set, where the listing holds a part of it.
    """
    order = tuple(source_names) if source_names is not None and len(source_names) == num_classes else None
    if class_names is None and order is not None:
        class_names = order
    encoded = listing["label"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    labels = encoded.dictionary.to_pylist()
    indices: Sequence[int | None] = _indices(labels, class_names or (), num_classes)
    names = tuple(class_names) if class_names is not None else None
    if order is not None and all(index is None for index in indices):
        indices = _indices(labels, order, num_classes)
    elif (
        source_names is None
        and len(known := sorted({*labels, *all_labels})) == num_classes
        and not any(index is not None for index in _indices(known, class_names or (), num_classes))
    ):
        names = names or tuple(known)
        indices = [known.index(label) for label in labels]
    column = pa.array(indices, pa.int32()).take(encoded.indices)
    place = listing.schema.get_field_index("label")
    resolved = listing.set_column(place, pa.field("label", pa.int32()), column)
    return ResolvedLabels(resolved, names, _unresolved(encoded, labels, indices))


def own_classes(labels: Iterable[str], source_names: Sequence[str] | None = None) -> tuple[tuple[str, ...] | None, int]:
    """The classes of a data set where no model says which there are.

    Returns:
        Names, and how many. The source's own where it knows them; no names where all labels are whole numbers, which then are class
        indices; else the distinct labels in sorted order, which is how torchvision's `ImageFolder` numbers class folders.
    """
    if source_names is not None:
        return tuple(source_names), len(source_names)
    known = sorted(set(labels))
    if known and all(_INTEGER.fullmatch(label.strip()) for label in known):
        return None, max(0, *(int(float(label)) + 1 for label in known))
    return tuple(known), len(known)


def _indices(labels: Iterable[str], class_names: Sequence[str], num_classes: int) -> list[int | None]:
    exact, loose = defaultdict(set), defaultdict(set)
    for index, name in enumerate(class_names):
        exact[name].add(index)
        for form in _forms(name):
            loose[form].add(index)
    return [_index(label, exact, loose, num_classes) for label in labels]


def _index(label: str, exact: dict[str, set[int]], loose: dict[str, set[int]], num_classes: int) -> int | None:
    if len(exact.get(label, ())) == 1:
        return next(iter(exact[label]))
    if _INTEGER.fullmatch(label.strip()):
        index = int(float(label))
        return index if 0 <= index < num_classes else None
    whole, *synonyms = _forms(label)
    if whole in loose:
        synonyms = [whole]
    single = (loose[synonym] for synonym in synonyms if len(loose.get(synonym, ())) == 1)
    return next(iter(next(single, ())), None)


def _forms(name: str) -> list[str]:
    """The name as compared: as a whole, then each synonym."""
    plain = " ".join(name.casefold().replace("_", " ").split())
    return [plain, *(part.strip() for part in plain.split(",") if part.strip())]


def _unresolved(encoded: pa.DictionaryArray, labels: Sequence[str], indices: Sequence[int | None]) -> dict[str, int]:
    counts = np.bincount(pc.drop_null(encoded.indices).to_numpy(), minlength=len(labels))
    missing = [(label, int(counts[place])) for place, label in enumerate(labels) if indices[place] is None]
    return dict(sorted(missing, key=lambda item: (-item[1], item[0])))
