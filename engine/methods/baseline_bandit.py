"""Which family of baselines to draw from next: Thompson sampling over Bayesian logistic regressions, one for each family (BEE's).

The weights of an arm have a Gaussian posterior, diagonal, which starts at N(0, 1); a draw of them scores the arm for the image's
context. A win or a loss moves the mean to the maximum of the posterior (Newton's method) and adds the curvature there (Laplace).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from safetensors.numpy import save_file

NEWTON_STEPS = 20


@dataclass
class Bandit:
    """The posterior of every arm."""

    means: np.ndarray
    """`(arm, context)`."""
    precisions: np.ndarray
    """`(arm, context)`, above 0."""

    @classmethod
    def fresh(cls, arms: int, size: int) -> Bandit:
        """Nothing known: N(0, 1)."""
        return cls(np.zeros((arms, size)), np.ones((arms, size)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file for the setting `bandit`: `means` and `precisions`, `(arm, context)`."""
        save_file({"means": self.means, "precisions": self.precisions}, path)

    def copy(self) -> Bandit:
        """To be changed for one image."""
        return Bandit(self.means.copy(), self.precisions.copy())

    def choose(self, context: np.ndarray, generator: np.random.Generator) -> int:
        """The arm whose drawn weights score the context highest."""
        weights = self.means + generator.standard_normal(self.means.shape) / np.sqrt(self.precisions)
        return int(np.argmax(weights @ context))

    def learn(self, arm: int, context: np.ndarray, won: bool) -> None:
        """Move the arm's posterior: log p(w) - log(1 + exp(-y w.x)), y = 1 where it won and -1 where it lost."""
        sign = 1.0 if won else -1.0
        mean, precision = self.means[arm], self.precisions[arm]
        direction = context / precision  # the maximum lies along it, so one number is to be found
        start, along = float(mean @ context), float(direction @ context)
        step = 0.0
        for _ in range(NEWTON_STEPS):
            lost = 1 / (1 + np.exp(np.clip(sign * (start + step * along), -700, 700)))
            slope = step * along - sign * lost * along
            curvature = along + lost * (1 - lost) * along**2
            if along == 0 or abs(slope) < 1e-12:
                break
            step -= slope / curvature
        self.means[arm] = mean + step * direction
        chance = 1 / (1 + np.exp(-np.clip(start + step * along, -700, 700)))
        self.precisions[arm] = precision + context**2 * chance * (1 - chance)


def rank_in(history: Sequence[float], value: float, *, higher_is_better: bool) -> float:
    """Share of earlier values that this one beats, ties half; 0.5 where there is none."""
    if not history:
        return 0.5
    signed = np.asarray(history) * (1 if higher_is_better else -1)
    own = value if higher_is_better else -value
    return float(((signed < own) + 0.5 * (signed == own)).mean())
