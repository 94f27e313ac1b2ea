"""The target setting against what the model and the data set have."""

from __future__ import annotations

import pyarrow as pa

from ...engine.methods.registry import find_method
from ...engine.scoring.confidence import DENSE_CONFIDENCES
from ...errors import TargetError, did_you_mean
from ...workers.targets import TargetRule, parse_target
from ..settings.run import Settings
from ..shards import EXTRA
from ..sources.listing.labels import ResolvedLabels


def target_rule(settings: Settings, labels: ResolvedLabels, num_classes: int) -> TargetRule:
    """The rule, every part of it checked.

    Raises:
        TargetError: For a class that the model does not have, labels or a column that the data set does not have, a rule that does
            not go with the confidence.
    """
    rule = parse_target(settings.target, labels.class_names, num_classes)
    if rule.uses_labels and labels.listing["label"].null_count == len(labels.listing):
        why = labels.warning() or "no sample has a label"
        raise TargetError(
            f"the target is {settings.target!r}, but {why}; or explain the predicted class with --target predicted"
        )
    if rule.kind == "components" and find_method(settings.method).classless:
        raise TargetError(
            f"method {settings.method} gives every class, and every object of one, the same map, so target {settings.target!r} says nothing; "
            "explain the predicted class, or take another method"
        )
    if rule.kind == "column":
        _check_column(rule, labels.listing)
    return rule


def resolved_confidence(settings: Settings, rule: TargetRule, *, dense: bool, multi_label: bool = False) -> str:
    """What confidence means in this run: `auto` asks the model's output, and the rule where several classes may be true at once.

    Raises:
        TargetError: Where confidence, rule and model do not go together.
    """
    asked = settings.confidence
    if dense:
        if asked != "auto" and asked not in DENSE_CONFIDENCES:
            raise TargetError(
                f"confidence {asked!r} is for classifiers; {settings.model} gives every pixel its class: leave --confidence out, or say "
                f"{' or '.join(DENSE_CONFIDENCES)}"
            )
        if rule.kind == "above":
            raise TargetError(
                f"target {settings.target!r} is for multi-label classifiers; of a dense model explain predicted, top:K or classes"
            )
        if asked == "auto":
            return "dice" if rule.kind == "components" else "segmentation"
        return asked
    if rule.kind == "components":
        raise TargetError(
            f"target {settings.target!r} is for dense models; {settings.model} gives one class to the whole image, so there are no components"
        )
    if asked in DENSE_CONFIDENCES:
        raise TargetError(
            f"confidence {asked!r} is for dense models; {settings.model} gives one class to the whole image"
        )
    if asked != "auto":
        return asked
    return "sigmoid" if rule.kind == "above" or multi_label else "softmax"


def _check_column(rule: TargetRule, listing: pa.Table) -> None:
    there = [name.removeprefix(EXTRA) for name in listing.column_names if name.startswith(EXTRA)]
    if rule.column not in there:
        raise TargetError(
            f"target 'column:{rule.column}': the data set has no further column {rule.column!r}"
            f"{did_you_mean(rule.column, there)}; it has {', '.join(there) or 'none'}"
        )
