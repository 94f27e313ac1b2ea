"""Is an effect more than chance: intervals over images, and tests against both nulls, corrected for as many as there are (Holm)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from ..statistics.bootstrap import RESAMPLES, BucketSums
from ..statistics.paired_tests import SIGNIFICANT, holm, paired_test
from .group_effects import GroupEffects

LEAST_EFFECT = 0.1
"""Of confidence, beyond both nulls, from which on an effect counts: smaller ones may be significant and do not matter."""
Values = Float[np.ndarray, " image"]


@dataclass(frozen=True)
class Effect:
    """One effect of a group: what its region does, what control regions do, and what the same region does in other classes."""

    mean: float
    """Of confidence, in [-1, 1]: lost where the region is removed, gained where it is pasted."""
    low: float
    """Lower end of the 95 % bootstrap interval over images."""
    high: float
    control: float
    """Of control regions; NaN where there was no room for any."""
    null: float
    """Of the same region in, or from, other classes' images."""
    beyond: float
    """Mean of (region - control) per image, less what other classes have of it where that is above 0."""
    p: float
    """Larger one of two one-sided tests: region above control (Wilcoxon's signed ranks), and that above the other classes' (Mann and Whitney)."""
    p_holm: float = 1.0

    @property
    def counts(self) -> bool:
        """Significant after correction, and large enough to matter."""
        return self.p_holm < SIGNIFICANT and self.beyond >= LEAST_EFFECT


@dataclass(frozen=True)
class GroupVerdict:
    """Both effects of a group."""

    effects: GroupEffects
    necessity: Effect
    sufficiency: Effect

    @property
    def confirmed(self) -> bool:
        """Whether the region decides: the model needs it, or it makes other images the class."""
        return self.necessity.counts or self.sufficiency.counts


def judge_groups(groups: Sequence[GroupEffects], *, resamples: int = RESAMPLES, seed: int = 0) -> list[GroupVerdict]:
    """Verdicts in the order given; p-values corrected for two tests per group."""
    verdicts = [
        GroupVerdict(
            group,
            _effect([row.id for row in group.rows], group.removals.drop, group.removals.control_drop, group.null_removals.drop,
                    group.null_removals.control_drop, resamples, seed),
            _effect([row.id for row in group.rows] if group.per_donor else [f"receiver {place}" for place in range(len(group.rises))],
                    group.rises, group.control_rises, group.null_rises, group.null_control_rises, resamples, seed),
        )
        for group in groups
    ]  # fmt: skip
    corrected = holm([effect.p for verdict in verdicts for effect in (verdict.necessity, verdict.sufficiency)])
    return [
        replace(
            verdict,
            necessity=replace(verdict.necessity, p_holm=first),
            sufficiency=replace(verdict.sufficiency, p_holm=second),
        )
        for verdict, first, second in zip(verdicts, corrected[::2], corrected[1::2], strict=True)
    ]


def _effect(
    ids: Sequence[str], values: Values, control: Values, null: Values, null_control: Values, resamples: int, seed: int
) -> Effect:
    """Control values that are NaN count as 0: the test is then against no change."""
    known = np.nan_to_num(control)
    own, other = values - known, null - np.nan_to_num(null_control)
    low, high = BucketSums.of(ids, values[:, None]).intervals(resamples=resamples, seed=seed)
    return Effect(
        float(values.mean()), float(low[0]), float(high[0]), float(np.nanmean(control)) if np.isfinite(control).any() else float("nan"),
        float(null.mean()), float(own.mean() - max(0.0, other.mean())), max(_above_zero(own), _above(own, other)),
    )  # fmt: skip


def _above_zero(values: Values) -> float:
    test = paired_test(values)
    return test.p / 2 if test.effect > 0 else 1 - test.p / 2


def _above(values: Values, others: Values) -> float:
    from scipy import stats

    result: Any = stats.mannwhitneyu(values, others, alternative="greater")
    return float(result.pvalue)
