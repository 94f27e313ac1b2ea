"""Labels as a data set writes them to class indices of a model."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ....errors import DataError, shortened
from .label_choice import Predicted, choose_reading
from .label_readings import LabelRules, is_integer, names_several, possible_readings

MOST_UNRESOLVED = 0.01
"""Share of the labels that may name no class without being asked about."""
Answers = tuple[np.ndarray, np.ndarray]
"""Row numbers and predicted classes, both `(image,)`."""
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
    reasons: dict[str, int] = field(default_factory=dict)
    """Rows without a class by why, most frequent first."""
    how: str = ""
    """One sentence on how the labels were read; empty where there are none."""

    @property
    def unresolved_rows(self) -> int:
        """Rows whose label names no class."""
        return sum(self.unresolved.values())

    @property
    def unresolved_share(self) -> float:
        """Of the rows that have a label, those whose label names no class; 0 where no row has one."""
        labelled = len(self.listing) - self.listing["label"].null_count + self.unresolved_rows
        return self.unresolved_rows / labelled if labelled else 0.0

    def warning(self) -> str | None:
        """One sentence for the user about what was not resolved; None when everything was."""
        if not self.unresolved:
            return None
        named = ", ".join(repr(shortened(name, _LONGEST)) for name in list(self.unresolved)[:_NAMED])
        more = f" and {len(self.unresolved) - _NAMED} more" if len(self.unresolved) > _NAMED else ""
        causes = ", ".join(f"{rows:,} {reason}" for reason, rows in self.reasons.items())
        return (
            f"{self.unresolved_rows} of {len(self.listing)} samples have a label that names no single class of the model: {causes} "
            f"({named}{more}); write class indices from 0 or the model's class names"
        )

    def require_labels(self) -> None:
        """Refuse a data set of which too many labels name no class, because nothing that needs them would be right.

        Raises:
            DataError: Where they are more than `MOST_UNRESOLVED` of all labels.
        """
        if self.unresolved_share > MOST_UNRESOLVED:
            raise DataError(
                f"{self.warning()}; or explain these images as unlabelled ones with --allow-unlabelled (at most "
                f"{100 * MOST_UNRESOLVED:.0f} % of the labels may be without a class otherwise)"
            )


def resolve_labels(
    listing: pa.Table,
    class_names: Sequence[str] | None,
    num_classes: int,
    orders_of_source: Sequence[Sequence[str]] = (),
    all_labels: Sequence[str] = (),
    *,
    rules: LabelRules = LabelRules(),  # noqa: B008  (frozen)
    folders: bool = False,
    predict: Callable[[pa.Table], Answers] | None = None,
) -> ResolvedLabels:
    """Turn the label column into class indices.

    Names go first: a label that is the name of one class, exactly, else regardless of case, `_` for spaces, and with synonyms after
    commas. Where no label names a class of the model, an order of the data set's own counts (Hugging Face's `ClassLabel`, COCO's
    categories, torchvision's `classes`), if it has exactly `num_classes`; then whole numbers as class indices from 0 or 1; then, where
    there are exactly `num_classes` different labels, a sorted order of them. Where several readings are possible and differ, the one is
    taken that explains the model's predictions.

    Args:
        listing: With a text column `label`.
        class_names: One per class, or None where the model has none.
        num_classes: Outputs of the model.
        orders_of_source: The data set's classes in orders of its own, where it knows them.
        all_labels: Labels of the whole data set, where the listing holds a part of it.
        rules: What the user says about order and base.
        folders: Whether labels are names of folders.
        predict: Classifies some labelled rows of the listing: row numbers, and the class predicted for each.

    Raises:
        DataError: If several readings are possible and the predictions do not tell which holds; the choices are named.
    """
    encoded = listing["label"].combine_chunks().dictionary_encode()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.unify_dictionaries().combine_chunks()
    labels = encoded.dictionary.to_pylist()
    readings = possible_readings(labels, class_names, num_classes, orders_of_source, all_labels, rules, folders=folders)

    def predicted() -> Predicted:
        assert predict is not None
        rows, predictions = predict(listing)
        return Predicted(encoded.indices.take(pa.array(rows)).to_numpy(zero_copy_only=False), predictions)

    reading, how = choose_reading(readings, predicted if predict is not None else None)
    indices, names = reading.indices, tuple(class_names) if class_names is not None else reading.class_names
    column = pa.array(indices, pa.int32()).take(encoded.indices)
    place = listing.schema.get_field_index("label")
    resolved = listing.set_column(place, pa.field("label", pa.int32()), column)
    unresolved = _unresolved(encoded, labels, indices)
    reasons: Counter[str] = Counter()
    for label, rows in unresolved.items():
        reasons[_reason(label, names or (), num_classes)] += rows
    return ResolvedLabels(resolved, names, unresolved, dict(reasons.most_common()), how if labels else "")


def _reason(label: str, class_names: Sequence[str], num_classes: int) -> str:
    if is_integer(label):
        return f"outside of the model's class indices 0 to {num_classes - 1}"
    if names_several(label, class_names):
        return "naming several classes"
    return "naming no class" if class_names else "written as names, but the model does not name its classes"


def own_classes(labels: Iterable[str], source_names: Sequence[str] | None = None) -> tuple[tuple[str, ...] | None, int]:
    """The classes of a data set where no model says which there are.

    Returns:
        Names, and how many. The source's own where it knows them; no names where all labels are whole numbers, which then are class
        indices; else the distinct labels in sorted order, which is how torchvision's `ImageFolder` numbers class folders.
    """
    if source_names is not None:
        return tuple(source_names), len(source_names)
    known = sorted(set(labels))
    if known and all(is_integer(label) for label in known):
        return None, max(0, *(int(float(label)) + 1 for label in known))
    return tuple(known), len(known)


def _unresolved(encoded: pa.DictionaryArray, labels: Sequence[str], indices: Sequence[int | None]) -> dict[str, int]:
    counts = np.bincount(pc.drop_null(encoded.indices).to_numpy(), minlength=len(labels))
    missing = [(label, int(counts[place])) for place, label in enumerate(labels) if indices[place] is None]
    return dict(sorted(missing, key=lambda item: (-item[1], item[0])))
