"""Ways to read a data set's labels as class indices. Where several are possible and differ, which one holds is a fact about the
training that the labels alone do not tell, see `label_choice`.
"""

from __future__ import annotations

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from ....errors import DataError
from ....workers.models.imagenet_classes import imagenet_synsets

Order = Literal["imagefolder", "natural", "numeric", "model"]
ORDERS = ("imagefolder", "natural", "numeric", "model")
_INTEGER = re.compile(r"[+-]?\d{1,15}(\.0+)?")
"""So many digits a float holds exactly; a class index never has more."""
_SYNSET = re.compile(r"n\d{8}")
_OWN_ORDER = "the data set's own order of classes"
Indices = tuple[int | None, ...]


@dataclass(frozen=True)
class LabelRules:
    """What the user says about the labels; None where nothing is said."""

    order: str | None = None
    """One of `ORDERS`, or `file` with `names`."""
    base: int | None = None
    """The number of the first class, 0 or 1, where labels are whole numbers."""
    names: tuple[str, ...] = ()
    """The classes in the model's order, from a file."""


@dataclass(frozen=True)
class LabelReading:
    """One way to read the labels."""

    names: tuple[str, ...]
    """What this reading is called; several where they come to the same."""
    flags: tuple[str, ...]
    """The flags that choose it."""
    indices: Indices
    """Class of every distinct label, None where it has none."""
    class_names: tuple[str, ...] | None = None
    """Names that the reading gives to a model without class names."""
    customary: bool = False
    """Whether it is taken, and said, where nothing decides."""
    unproven: bool = False
    """Whether it is an order that only custom gives, so that another order of the classes is looked for in the predictions."""
    chance: float | None = None
    """Where it contradicts the model's own class names: the share of predictions that it would explain by chance, to be exceeded."""


def is_integer(label: str) -> bool:
    """Whether a label is a whole number, also as pandas writes it (`3.0`)."""
    return _INTEGER.fullmatch(label.strip()) is not None


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """The sort key of timm's `natural_key`: digits as numbers, letters regardless of case."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", text.lower())]


def possible_readings(
    labels: Sequence[str],
    class_names: Sequence[str] | None,
    num_classes: int,
    orders_of_source: Sequence[Sequence[str]] = (),
    all_labels: Iterable[str] = (),
    rules: LabelRules = LabelRules(),
    *,
    folders: bool = False,
) -> list[LabelReading]:
    """Every way in which the labels could be read, each set of indices once. At least one, which may resolve nothing.

    Args:
        labels: The distinct labels of the listing.
        class_names: Of the model, None where it has none.
        num_classes: Of the model.
        orders_of_source: The data set's classes in orders of its own, where it knows them.
        all_labels: Labels of the whole data set, where the listing is a part of it.
        rules: What the user says.
        folders: Whether labels are names of folders, which a training numbers by their order; written whole numbers are indices.

    Raises:
        DataError: If what the user says does not fit the labels.
    """
    known = sorted({*labels, *all_labels})
    if rules.order is not None:
        return [_ordered_by_user(labels, known, class_names, num_classes, rules)]
    nameless = class_names is None
    if class_names is None:  # the data set's own classes, where they are as many, are the model's
        class_names = next((tuple(names) for names in orders_of_source if len(names) == num_classes), None)
    by_name = name_indices(labels, class_names or ())
    if rules.base is None and any(index is not None for index in name_indices(known, class_names or ())):
        mixed = tuple(
            _number(label, 0, num_classes) if index is None and is_integer(label) else index
            for label, index in zip(labels, by_name, strict=True)
        )
        if nameless:
            return [
                LabelReading((_OWN_ORDER,), ("--labels.order file:PATH",), mixed, _tuple(class_names), unproven=True)
            ]
        return [LabelReading(("class names",), ("--labels.order model",), mixed, _tuple(class_names))]
    for names in orders_of_source:
        if len(names) == num_classes and any(index is not None for index in name_indices(known, names)):
            return [LabelReading((_OWN_ORDER,), (), name_indices(labels, names), tuple(names))]
    if known and all(map(is_integer, known)):
        readings = _numbers(labels, known, num_classes, rules.base)
        if folders and rules.base is None and len(known) < num_classes:
            readings += _orders_of_whole_range(labels, known, num_classes)
        readings = _distinct(
            [*readings, *(_orders(labels, known, num_classes) if folders and rules.base is None else [])]
        )
        by_custom = folders and rules.base is None and len(readings) == 1  # all orders agree, which is no proof
        return [replace(reading, unproven=by_custom) for reading in readings]
    if rules.base is not None:
        raise DataError(f"--labels.base {rules.base} is for labels that are whole numbers, but there are labels such as "
                        f"{next(label for label in known if not is_integer(label))!r}" if known else "--labels.base is given, but there are no labels")  # fmt: skip
    if synsets := _synset_reading(labels, known, num_classes):
        return [synsets]
    if orders_of_source or any(map(is_integer, known)):  # a data set that knows its classes has no order of folders
        indices = tuple(_number(label, 0, num_classes) if is_integer(label) else None for label in labels)
        return [LabelReading(("class indices",), (), indices)]
    chance = 1 / num_classes if class_names is not None else None
    orders = _distinct(_orders(labels, known, num_classes))
    return [replace(reading, chance=chance, unproven=chance is None) for reading in orders] or [
        LabelReading(("class names",), ("--labels.order model",), by_name)
    ]


def name_indices(labels: Sequence[str], class_names: Sequence[str]) -> Indices:
    """The class that each label names: exactly; else regardless of case, `_` for spaces, and with synonyms after commas, as ImageNet
    writes "cash machine, cash dispenser"; None where it names none, or several."""
    exact, loose = defaultdict(set), defaultdict(set)
    for index, name in enumerate(class_names):
        exact[name].add(index)
        for form in _forms(name):
            loose[form].add(index)
    return tuple(_named(label, exact, loose) for label in labels)


def _named(label: str, exact: dict[str, set[int]], loose: dict[str, set[int]]) -> int | None:
    for text in (label, label.strip()):
        if len(exact.get(text, ())) == 1:
            return next(iter(exact[text]))
    whole, *synonyms = _forms(label)
    if whole in loose:
        synonyms = [whole]
    elif "," in label and ", " not in label and sum(form in loose for form in synonyms) > 1:
        return None  # `ant,bee`: several classes, not synonyms of one
    single = (loose[form] for form in synonyms if len(loose.get(form, ())) == 1)
    return next(iter(next(single, ())), None)


def names_several(label: str, class_names: Sequence[str]) -> bool:
    """Whether a label names more than one class: two of the same name, or a list such as `ant,bee`."""
    forms = _forms(label)
    named = [{index for index, name in enumerate(class_names) if form in _forms(name)} for form in forms]
    return len(set().union(*named)) > 1


def _forms(name: str) -> list[str]:
    """The name as compared: as a whole, then each synonym."""
    plain = " ".join(unicodedata.normalize("NFC", name).casefold().replace("_", " ").split())
    return [plain, *(part.strip() for part in plain.split(",") if part.strip())]


def _ordered_by_user(
    labels: Sequence[str], known: Sequence[str], class_names: Sequence[str] | None, num_classes: int, rules: LabelRules
) -> LabelReading:
    order = rules.order or ""
    flag = f"--labels.order {order}"
    if order == "model":
        if class_names is None:
            raise DataError(f"{flag} needs a model that names its classes; this one does not")
        return LabelReading(("class names",), (flag,), name_indices(labels, class_names), _tuple(class_names))
    if order == "file":
        if len(rules.names) != num_classes:
            raise DataError(f"the file of --labels.order has {len(rules.names)} class names, the model has {num_classes} classes; they must agree")  # fmt: skip
        return LabelReading(("the file of --labels.order",), (flag,), name_indices(labels, rules.names), rules.names)
    if len(known) != num_classes:
        raise DataError(
            f"{flag} numbers the labels of a whole data set, but there are {len(known)} different ones for {num_classes} classes; "
            "give all classes in the model's order with --labels.order file:PATH"
        )
    if order == "numeric" and not all(map(is_integer, known)):
        raise DataError(f"{flag} needs labels that are whole numbers, got {next(label for label in known if not is_integer(label))!r}")  # fmt: skip
    return next(reading for reading in _orders(labels, known, num_classes) if reading.names == (_order_name(order),))


def _order_name(order: str) -> str:
    return {
        "imagefolder": "the alphabetical order of ImageFolder",
        "natural": "timm's natural order",
        "numeric": "the order of their numbers",
    }[order]


def _orders(labels: Sequence[str], known: Sequence[str], num_classes: int) -> list[LabelReading]:
    """Labels as classes in a sorted order, which only the labels of a whole data set can be."""
    if len(known) != num_classes:
        return []
    keys: dict[str, Callable[[str], Any]] = {"imagefolder": str, "natural": natural_key}
    if known and all(map(is_integer, known)):
        keys["numeric"] = lambda label: (float(label), label)
    readings = []
    for order, key in keys.items():
        classes = sorted(known, key=key)
        indices = tuple(classes.index(label) for label in labels)
        readings.append(LabelReading((_order_name(order),), (f"--labels.order {order}",), indices, tuple(classes)))
    return readings


def _numbers(labels: Sequence[str], known: Sequence[str], num_classes: int, base: int | None) -> list[LabelReading]:
    """Whole numbers as indices that begin at 0 or 1. Negative ones stand for no class and decide nothing."""
    numbers = [int(float(label)) for label in known if float(label) >= 0]
    fits = {first: all(first <= number < num_classes + first for number in numbers) for first in (0, 1)}
    bases = [base] if base is not None else [first for first in (0, 1) if fits[first]] or [0]
    few = 2 * len(set(numbers)) <= num_classes  # where most classes are there and 0 is not, 0 was never meant to be
    return [
        LabelReading(
            (f"class indices from {first}",), (f"--labels.base {first}",), tuple(_number(label, first, num_classes) for label in labels),
            customary=first == 0 and few,
        )
        for first in bases
    ]  # fmt: skip


def _orders_of_whole_range(labels: Sequence[str], known: Sequence[str], num_classes: int) -> list[LabelReading]:
    """Folders called by numbers of which some are missing, in ImageFolder's order of the whole range that a training may have had."""
    readings = []
    for first in (0, 1):
        whole = sorted(str(number) for number in range(first, first + num_classes))
        if set(known) <= set(whole):
            indices = tuple(whole.index(label) for label in labels)
            name = f"the alphabetical order of ImageFolder over {first} to {first + num_classes - 1}"
            readings.append(LabelReading((name,), ("--labels.order file:PATH",), indices))
    return readings


def _number(label: str, base: int, num_classes: int) -> int | None:
    index = int(float(label)) - base
    return index if 0 <= index < num_classes else None


def _synset_reading(labels: Sequence[str], known: Sequence[str], num_classes: int) -> LabelReading | None:
    """WordNet ids of ImageNet's 1000 classes, also where only some of them are there."""
    if num_classes != 1000 or not known or not all(map(_SYNSET.fullmatch, known)):
        return None
    synsets = imagenet_synsets()
    if synsets is None:
        return None
    places = {synset: index for index, synset in enumerate(synsets)}
    return LabelReading(("WordNet ids of ImageNet",), (), tuple(places.get(label) for label in labels))


def _distinct(readings: Iterable[LabelReading]) -> list[LabelReading]:
    """Readings that come to the same become one."""
    readings_by_indices: dict[Indices, LabelReading] = {}
    for reading in readings:
        if (same := readings_by_indices.get(reading.indices)) is None:
            readings_by_indices[reading.indices] = reading
        else:
            readings_by_indices[reading.indices] = replace(
                same, names=same.names + reading.names, flags=same.flags + reading.flags,
                class_names=same.class_names or reading.class_names, customary=same.customary or reading.customary,
            )  # fmt: skip
    return list(readings_by_indices.values())


def _tuple(names: Sequence[str] | None) -> tuple[str, ...] | None:
    return None if names is None else tuple(names)
