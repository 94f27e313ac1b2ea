"""Scores of all of an image's masks, kept in a file an image, so that SISE at any mu, with any gate or under any budget costs no forwards.

What a mask scores does not depend on which other masks are scored, so a map that needs some of them is made of the kept ones.
"""

from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import torch
from heatlas.engine.explanation import Explanation
from heatlas.engine.methods.sise import SISE, ScoredBlocks, failure_of
from heatlas.engine.scoring.budget import masks_allowed
from heatlas.engine.sise.mask_rounds import rounds_over
from torch import Tensor, nn


def full_sise(model: nn.Module, precision: str) -> SISE:
    """What scores all masks: as fast as this machine can."""
    return SISE(model, precision=precision, batch_size=32, forward="compile")


class KnownScores:
    """The scores of an image's masks at mu = 0, which are scored where no file has them.

    Several processes may share a folder.

    Args:
        folder: Where the files are.
        full: SISE at mu = 0; its settings and its model's weights are not looked at, so each wants a folder of its own.
    """

    def __init__(self, folder: Path, full: SISE):
        self._folder = folder
        self._full = full
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, sample: str, image: Tensor) -> ScoredBlocks:
        """All masks of the image with their scores, for the predicted class; without any where there can be no map."""
        logits, layers = self._full.layer_masks(image, None)
        result = ScoredBlocks(logits, layers, failure=failure_of(logits, layers))
        if result.failure is not None:
            return result
        counts = [layer.job.count for layer in layers]
        path = self._folder / f"{hashlib.sha256(sample.encode()).hexdigest()[:16]}.pt"
        kept = torch.load(path, weights_only=True) if path.exists() else {}
        if kept.get("counts") != counts:
            self._full.scorer.submit(*(layer.job for layer in layers), like=image)
            self._full.scorer.flush()
            kept = {"counts": counts, "scores": torch.cat([layer.job.scores for layer in layers])}
            beside = path.with_suffix(f".{os.getpid()}")
            torch.save(kept, beside)
            beside.replace(path)
        for layer, scores in zip(layers, kept["scores"].split(counts), strict=True):
            layer.job.scores, layer.job.waiting = scores, 0
        result.n_scored = sum(counts)
        return result


def played(sise: SISE, full: ScoredBlocks, budget: str | float = "exact") -> tuple[Explanation, int, float]:
    """The explanation of `sise` under a budget, from scores that are known; the masks it took, and the surrogate's CPU seconds."""
    if not full.layers:
        return sise.explanation_of(full), 0, 0.0
    logits, layers = sise.layer_masks(full.layers[0].image, full.logits.target)
    blocks = ScoredBlocks(logits, layers, failure=failure_of(logits, layers))
    if blocks.failure is not None:
        return sise.explanation_of(blocks), 0, 0.0
    known = [
        matched(entry.maps, whole.maps, whole.job.scores) for entry, whole in zip(layers, full.layers, strict=True)
    ]
    counts = [layer.job.count for layer in layers]
    allowed = masks_allowed(budget, sum(counts))
    seconds = 0.0
    if allowed < sum(counts):
        begun = time.process_time()
        rounds = rounds_over(layers, allowed)
        values = torch.cat(known)
        while not rounds.finished:
            chosen = rounds.choose()
            rounds.take(chosen, values[chosen])
        known, blocks.surrogate_error = list(rounds.expected.split(counts)), float(rounds.error())
        seconds = time.process_time() - begun
    else:
        for layer in layers:
            layer.survey()  # the masks' extremes, which filling them would have noted
    for layer, own in zip(layers, known, strict=True):
        layer.job.scores, layer.job.waiting = own, 0
    blocks.n_scored = allowed
    return sise.keeping(True).explanation_of(blocks), allowed, seconds


def matched(maps: Tensor, among: Tensor, values: Tensor) -> Tensor:
    """The values of those maps that are kept; both in the channels' order."""
    places: list[int] = []
    place = 0
    for kept in maps:
        while not torch.equal(kept, among[place]):
            place += 1
        places.append(place)
        place += 1
    return values[places]
