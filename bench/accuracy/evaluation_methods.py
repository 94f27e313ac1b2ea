"""What is evaluated: methods as `heatlas methods` lists them, with settings, and maps that know nothing of the model."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import torch
import yaml
from heatlas.engine.explainer import Explainer
from heatlas.engine.explanation import Explanation, Logits
from heatlas.engine.method_fit import fitting_methods
from heatlas.engine.methods.registry import find_method, make_explainer, settings_class
from heatlas.engine.methods.sise import SISE
from heatlas.engine.metrics.chance_maps import CHANCE_MAPS, chance_metrics
from heatlas.engine.metrics.choosing_metric import family_of
from heatlas.engine.metrics.evaluate import MetricSet
from heatlas.engine.scheduler import run_all
from heatlas.engine.scoring.fast_forward import folded
from heatlas.engine.scoring.scoring_options import Scoring
from heatlas.errors import SettingsError
from torch import Tensor, nn

from .known_scores import KnownScores, full_sise, played

SISES = ("sise", "sise:mu=0.3", "sise:mu=0.5")
SEED = 0


class Contender(Protocol):
    """Something that makes maps, and which metrics are measured of them."""

    name: str
    facts: str
    """What would make other maps, but for the weights."""
    metrics: tuple[str, ...]
    explainer: Explainer
    """Whose scorer the metrics use."""

    def maps(self, images: Sequence[Tensor], seeds: Sequence[int], ids: Sequence[str]) -> list[Explanation]: ...

    def anew(self, images: Sequence[Tensor], seeds: Sequence[int]) -> list[Explanation]:
        """The same with all of its passes, whatever is known of the images."""
        ...


@dataclass(frozen=True)
class Asked:
    """A method with settings, as `sise:mu=0.3` or `consensus:of=[sise, grad_cam]` asks for it."""

    text: str
    name: str
    settings: Any

    @classmethod
    def of(cls, text: str) -> Asked:
        """Read it.

        Raises:
            SettingsError: When there is no such method, or it takes no such settings.
        """
        name, _, given = text.partition(":")
        known = settings_class(name)
        try:
            values = yaml.safe_load("{" + re.sub(r"(\w+)=", r"\1: ", given) + "}")
            tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
            return cls(text, name, known(**tuples))
        except (yaml.YAMLError, TypeError) as error:
            raise SettingsError(
                f"cannot read the settings of {text!r}: {error}; write NAME:SETTING=VALUE,..."
            ) from error


class MethodContender:
    """A registered method, driven as a run drives it but for a few images at once."""

    def __init__(self, asked: Asked, model: nn.Module, scoring: Scoring, metrics: Sequence[str]):
        self.name = asked.text
        self.facts = json.dumps([asked.name, asdict(asked.settings)], default=str)
        self.explainer = make_explainer(asked.name, model, asked.settings, scoring)
        layers = asked.name in ("sise", "ada_sise", "sise_plus")
        chosen_by = find_method(asked.name).selected_by(asked.settings)
        barred = () if chosen_by is None else family_of(chosen_by)
        kept = [
            metric
            for metric in MetricSet.of(metrics).metrics
            if (layers or not metric.layers) and metric.name not in barred
        ]
        self.metrics = tuple(metric.name for metric in kept)

    def maps(self, images: Sequence[Tensor], seeds: Sequence[int], ids: Sequence[str]) -> list[Explanation]:
        return self.anew(images, seeds)

    def anew(self, images: Sequence[Tensor], seeds: Sequence[int]) -> list[Explanation]:
        explainer = self.explainer.keeping(True)
        return run_all(explainer.start(image, None, seed) for image, seed in zip(images, seeds, strict=True))


class SiseContender(MethodContender):
    """SISE or Ada-SISE of masks whose scores are known."""

    explainer: SISE

    def __init__(self, asked: Asked, model: nn.Module, scoring: Scoring, metrics: Sequence[str], known: KnownScores):
        super().__init__(asked, model, scoring, metrics)
        self._known = known

    def maps(self, images: Sequence[Tensor], seeds: Sequence[int], ids: Sequence[str]) -> list[Explanation]:
        results = [self._known.of(id, image) for id, image in zip(ids, images, strict=True)]
        return [played(self.explainer, record)[0] for record in results]


class ChanceContender:
    """A map that does not depend on the model; the class is the predicted one, as everywhere."""

    def __init__(self, chance: str, model: nn.Module, scoring: Scoring, metrics: Sequence[str]):
        self.name = {"random": "random map", "gaussian": "centred Gaussian"}.get(chance, chance)
        self.facts = chance
        self.explainer = make_explainer("grad_cam", model, None, scoring)
        self.metrics = tuple(metric.name for metric in chance_metrics(MetricSet.of(metrics).metrics))
        self._draw = CHANCE_MAPS[chance]

    def maps(self, images: Sequence[Tensor], seeds: Sequence[int], ids: Sequence[str]) -> list[Explanation]:
        return self.anew(images, seeds)

    def anew(self, images: Sequence[Tensor], seeds: Sequence[int]) -> list[Explanation]:
        with torch.no_grad():
            logits = self.explainer.model(torch.stack(list(images))).float()
        result = []
        for image, seed, row in zip(images, seeds, logits, strict=True):
            entry = Logits.of(row, None, self.explainer.scorer.confidence).explanation()
            entry.map = self._draw((image.shape[1], image.shape[2]), seed=SEED, sample=seed).to(image)
            entry.n_forwards = 0
            result.append(entry)
        return result


def contenders(
    model: nn.Module, image: Tensor, asked: Sequence[Asked], scoring: Scoring, metrics: Sequence[str], known: Path
) -> list[Contender]:
    """The methods that were asked for, or all that fit the model, and the chance maps.

    All see the network with its batch norms folded into its convolutions; SISE selects maps in the network as it is and scores in
    the folded one.

    Args:
        known: Folder of the scores of masks.
    """
    fast = (
        folded(model, image[None]) if any(isinstance(module, nn.BatchNorm2d) for module in model.modules()) else model
    )
    sise_scoring = replace(scoring, forward="fold_bn")
    scores = KnownScores(known, full_sise(model, scoring.precision))
    wanted = asked or [Asked.of(text) for text in default_methods(model, image)]
    return [
        *(
            SiseContender(method, model, sise_scoring, metrics, scores) if of_known_scores(method)
            else MethodContender(method, fast, scoring, metrics) for method in wanted
        ),
        *(ChanceContender(name, fast, scoring, metrics) for name in CHANCE_MAPS),
    ]  # fmt: skip


def of_known_scores(asked: Asked) -> bool:
    """Whether its maps are made of the scores that masks of the default kind have."""
    settings = asked.settings
    if asked.name not in ("sise", "ada_sise", "sise_plus"):
        return False
    return settings.fill == "zero" and not getattr(settings, "baseline", False) and settings.layers is None


def default_methods(model: nn.Module, image: Tensor) -> list[str]:
    """SISE at three values of mu, then every other method that can explain the model."""
    return [*SISES, *(name for name in fitting_methods(model, image) if name != "sise")]
