"""Which classes of an image are explained: what the user wrote as a rule, and the rule applied to one sample.

A rule is resolved once against the model's classes and travels to the workers; applying it is a pure function of the rule, the
sample and, where the rule asks what the model sees, one number per class.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import SampleError, TargetError, did_you_mean
from ..statuses import LABEL_ERROR, NO_TARGET
from .samples import Sample

Kind = Literal["predicted", "label", "both", "top", "above", "classes", "column", "components"]
FORMS = (
    "predicted, label, both, top:K (the K classes that score highest), above:P (every class with a sigmoid above P), "
    "column:NAME (of the manifest), components:CLASS (of dense models, every connected region of the class's mask), or classes as indices or names, separated by commas"
)
WORDS = ("predicted", "label", "both")
_WITH_ARGUMENT = re.compile(r"(top|above|column|components):(.*)", re.DOTALL)
_AT_MOST = re.compile(r"(.+):(\d{1,4})", re.DOTALL)
MOST_COMPONENTS, COMPONENTS_LIMIT = 16, 999
"""Components of an image that are explained unless the target says how many, and the most that it may say."""
_INDEX = re.compile(r"[+-]?\d{1,9}")


@dataclass(frozen=True)
class TargetRule:
    """A rule whose every part is checked against the model."""

    kind: Kind
    count: int = 1
    """Of `top` and `components`."""
    threshold: float = 0.5
    """Of `above`, in (0, 1)."""
    classes: tuple[int, ...] = ()
    """Of `classes`, each once; the one of `components`."""
    column: str = ""
    """Of `column`."""
    class_names: tuple[str, ...] = ()
    """What the values of `column` may name."""

    @property
    def asks_model(self) -> bool:
        """Whether the classes depend on what the model makes of the image, which costs one forward pass."""
        return self.kind in ("both", "top", "above", "components")

    @property
    def uses_labels(self) -> bool:
        return self.kind in ("label", "both")


PREDICTED = TargetRule("predicted")


def parse_target(
    written: int | str | Sequence[int | str], class_names: Sequence[str] | None = None, num_classes: int | None = None
) -> TargetRule:
    """The rule that a user wrote.

    Args:
        written: One of `FORMS`, a class index, or a list of classes.
        class_names: One per class, or None where the model has none.
        num_classes: Outputs of the model; None where that is not known, then any index passes.

    Raises:
        TargetError: Naming what is wrong and what is possible.
    """
    names = tuple(class_names or ())
    if not isinstance(written, str):
        listed = [written] if isinstance(written, int) else list(written)
        return _classes([str(name) for name in listed], names, num_classes)
    if written in WORDS and written not in names:
        return TargetRule(written)  # type: ignore[arg-type]
    if (match := _WITH_ARGUMENT.fullmatch(written)) and written not in names:
        return _with_argument(match[1], match[2].strip(), names, num_classes)
    return _classes([written] if written in names else written.split(","), names, num_classes)


def targets_of(
    rule: TargetRule, sample: Sample, seen: Float[Tensor, " class"] | None, num_classes: int | None
) -> tuple[int | None, ...]:
    """The classes of one image to explain, each once; None stands for the predicted class, whatever it turns out to be.

    Args:
        rule: What is wanted.
        sample: Its label and its further columns.
        seen: One number per class, the larger the more the model sees of it: logits of a classifier, areas of a dense model,
            minus infinity for a class that is not there. Only asked for where the rule `asks_model`.
        num_classes: Outputs of the model, None where that is not known.

    Raises:
        SampleError: `label_error` where the sample's label or column names no class, `no_target` where no class is above the limit.
    """
    match rule.kind:
        case "predicted":
            return (None,)
        case "classes":
            return rule.classes
        case "components":  # which objects of it there are its pixels say: `object_targets`
            return rule.classes
        case "label":
            return (_label(sample, num_classes),)
        case "column":
            return _of_column(rule, sample, num_classes)
        case _ if seen is None or bool(seen.isnan().any()):
            return (None,)  # nothing can be ranked; explaining it says why
        case "both":
            predicted = int(seen.argmax())
            there = sample.label is not None and 0 <= sample.label < len(seen)
            return (predicted,) if not there or sample.label == predicted else (predicted, sample.label)
        case "top":
            order = seen.sort(descending=True, stable=True).indices.tolist()
            return tuple(class_ for class_ in order[: rule.count] if seen[class_] > float("-inf"))
        case "above":
            return _above(rule, seen)


def _above(rule: TargetRule, seen: Tensor) -> tuple[int, ...]:
    probabilities = torch.sigmoid(seen.double())
    order = probabilities.sort(descending=True, stable=True).indices.tolist()
    above = tuple(class_ for class_ in order if probabilities[class_] > rule.threshold)
    if not above:
        raise SampleError(
            NO_TARGET,
            f"no class has a sigmoid above {rule.threshold:g}; the highest is class {order[0]} with {float(probabilities[order[0]]):.3g}",
        )
    return above


def _label(sample: Sample, num_classes: int | None) -> int:
    if sample.label is None:
        raise SampleError(
            LABEL_ERROR,
            "the sample has no label, or one that names no class of the model, but the target is 'label'",
        )
    if sample.label < 0 or (num_classes is not None and sample.label >= num_classes):
        allowed = "0 or more" if num_classes is None else f"between 0 and {num_classes - 1}"
        raise SampleError(LABEL_ERROR, f"label {sample.label} is no class of the model; it must be {allowed}")
    return sample.label


def _of_column(rule: TargetRule, sample: Sample, num_classes: int | None) -> tuple[int, ...]:
    value = dict(sample.extra).get(rule.column)
    if value is None or value == "":
        raise SampleError(LABEL_ERROR, f"the sample has no value in the column {rule.column!r} that says its target")
    try:
        return classes_in(value, rule.class_names, num_classes)
    except TargetError as error:
        raise SampleError(LABEL_ERROR, f"column {rule.column!r}: {error}") from error


def classes_in(value: Any, class_names: Sequence[str], num_classes: int | None) -> tuple[int, ...]:
    """The classes that a value of a column names: an index, a name, or several of them in a list or separated by commas.

    Raises:
        TargetError: When one is no class.
    """
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, list | tuple):
        parts = [str(int(item) if isinstance(item, float) and item.is_integer() else item) for item in value]
    else:
        text = str(value)
        parts = [text] if text in class_names else text.split(",")
    return _classes(parts, tuple(class_names), num_classes).classes


def _with_argument(kind: str, argument: str, names: tuple[str, ...], num_classes: int | None) -> TargetRule:
    if kind == "column":
        if not argument:
            raise TargetError("target 'column:' names no column; write column:NAME with a column of the manifest")
        return TargetRule("column", column=argument, class_names=names)
    if kind == "components":
        return _components(argument, names, num_classes)
    if kind == "top":
        most = "" if num_classes is None else f" to {num_classes}, the classes of the model"
        if not argument.isdecimal() or int(argument) < 1 or (num_classes is not None and int(argument) > num_classes):
            raise TargetError(f"target 'top:{argument}' must be top:K with a whole number K from 1{most}")
        return TargetRule("top", count=int(argument))
    try:
        threshold = float(argument)
    except ValueError:
        threshold = float("nan")
    if not 0 < threshold < 1:
        raise TargetError(
            f"target 'above:{argument}' must be above:P with a probability P in (0, 1), such as above:0.5"
        )
    return TargetRule("above", threshold=threshold)


def _components(argument: str, names: tuple[str, ...], num_classes: int | None) -> TargetRule:
    """`CLASS`, or `CLASS:K` for at most K of them."""
    count, limited = MOST_COMPONENTS, _AT_MOST.fullmatch(argument)
    if limited and argument not in names:
        argument, count = limited[1].strip(), int(limited[2])
        if not 1 <= count <= COMPONENTS_LIMIT:
            raise TargetError(
                f"target 'components:{argument}:{count}' must be components:CLASS:K with K, the most of an image, from 1 to {COMPONENTS_LIMIT}"
            )
    if not argument:
        raise TargetError("target 'components:' names no class; write components:CLASS with an index or a name")
    return TargetRule("components", count=count, classes=(_class(argument, names, num_classes),))


def _classes(written: Sequence[str], names: tuple[str, ...], num_classes: int | None) -> TargetRule:
    classes = [_class(text.strip(), names, num_classes) for text in written]
    if not classes:
        raise TargetError(f"the target names no class; write {FORMS}")
    return TargetRule("classes", classes=tuple(dict.fromkeys(classes)))


def _class(written: str, names: tuple[str, ...], num_classes: int | None) -> int:
    if (count := names.count(written)) == 1:
        return names.index(written)
    if count > 1:
        places = ", ".join(str(place) for place, name in enumerate(names) if name == written)
        raise TargetError(f"target {written!r} names {count} classes of the model: write one of the indices {places}")
    if _INDEX.fullmatch(written):
        index = int(written)
        if index < 0 or (num_classes is not None and index >= num_classes):
            most = "" if num_classes is None else f", which has {num_classes}, from 0 to {num_classes - 1}"
            raise TargetError(f"target {index} is no class of the model{most}")
        return index
    has = "" if names else "; the model does not name its classes, so only indices are known"
    hint = did_you_mean(written, (*names, *WORDS))
    raise TargetError(f"target {written!r} is neither a class of the model nor a rule{hint}{has}; write {FORMS}")
