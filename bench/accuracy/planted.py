"""Are planted faults found? Marks of six kinds, wrong labels, duplicates and outliers, on three networks; and nothing on clean data.

    python -m bench planted [--kinds corner clean] [--networks strided] [--seeds 3] [--cache bench-out/planted]
    python -m bench planted --networks photographs_mobilenet tiles_mobilenet --seeds 1      two to four minutes a run

Thresholds were chosen on the marks `corner` and `translucent`, the noise and the clean set with the network `strided`; everything else is reported as it came out.
Calls what `heatlas curate --probe` calls, on tensors in memory.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from heatlas.pipeline.features.cues import find_cues
from heatlas.pipeline.features.image_hash import perceptual_hash
from heatlas.pipeline.features.label_ranking import label_probes, label_quality, linear_probe
from heatlas.pipeline.features.neighbours import find_duplicates, find_outliers
from sklearn.metrics import roc_auc_score
from torch import Tensor

from .planted_pretrained import PRETRAINED, pretrained_subject
from .planted_sets import DEVELOPED_ON, MARKS, NETWORKS, Subject, photographs, subject

NOISES = ("symmetric", "asymmetric")
KINDS = (*MARKS, *NOISES, "copies", "strangers", "clean", "clean_labels")
PLANTED_SHARE = 1 / 30
"""Near-duplicates, and outliers, of all images: 40 of 1200."""


@torch.no_grad()
def forward(made: Subject, inputs: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Features and confidences."""
    features = torch.cat([made.features(batch) for batch in inputs.split(64)])
    return features.numpy(), made.head(features).softmax(dim=1).numpy()


def marks_line(made: Subject) -> str:
    """Guilty class first? Marked images ranked by the queue, AUROC over all images; share listed."""
    inputs = made.as_input(made.images)
    features, confidences = forward(made, inputs)
    search = find_cues(
        features, made.labels, confidences.argmax(axis=1), lambda rows: inputs[torch.from_numpy(rows)],
        lambda images: forward(made, images)[1],
    )  # fmt: skip
    listed, ranking = np.zeros(len(made.labels), bool), np.zeros(len(made.labels))
    for cue in search.cues:
        ranking[cue.all_rows] = max(cue.strength, 0) * cue.carries * (2 if cue.guilty else 1)
        listed[cue.rows] = cue.guilty
    first = search.cues[0]
    strongest = ", ".join(
        f"{made.names[cue.label]} {cue.transfer:.2f} {cue.kind} (separation {cue.separation:.1f})"
        for cue in search.cues[:2]
    )
    text = f"strongest {strongest}; random halves {first.chance:.2f}; listed {listed.mean():.1%}"
    if made.guilty is None:
        return text
    results = [made.names[cue.label] for cue in search.cues if cue.guilty]
    right = (
        "yes"
        if first.label == made.guilty and first.guilty
        else "below threshold"
        if first.label == made.guilty
        else "no"
    )
    return f"guilty class first: {right} ({', '.join(results) or 'none'} accused); AUROC {roc_auc_score(made.marked, ranking):.3f}; {text}"


def labels_line(made: Subject) -> str:
    """AUROC of the queue's ranking and of both baselines; how many are listed, and the number wrong."""
    features, confidences = forward(made, made.as_input(made.images))
    rows, wrong = np.arange(len(made.labels)), made.labels != made.truth
    probe = linear_probe(features, made.labels, len(made.names))
    quality = label_quality(confidences, label_probes(confidences, features, made.labels), made.labels)
    low, high = quality.wrong_range
    text = (
        f"listed {quality.accused.mean():.1%}; estimated wrong {quality.estimated_wrong:.0f} of {int(wrong.sum())} "
        f"(range {low:.0f} to {high:.0f})"
    )
    if not wrong.any():
        return text
    ways = {
        "queue": quality.suspicion,
        "1 - p": 1 - confidences[rows, made.labels],
        "1 - p, cross-validated": 1 - probe[rows, made.labels],
    }
    return ", ".join(f"{name} {roc_auc_score(wrong, values):.3f}" for name, values in ways.items()) + f"; {text}"


def copies_line(made: Subject, seed: int) -> str:
    """Near-duplicates: brighter, noisy, shifted and mirrored copies of other images."""
    random, images = np.random.default_rng([seed, 11]), made.images.copy()
    count = round(PLANTED_SHARE * len(images))
    sources, places = np.split(random.permutation(len(images))[: 2 * count], 2)
    for number, (source, place) in enumerate(zip(sources, places, strict=True)):
        copy = images[source] * 0.9 + 0.05 + random.normal(0, 0.01, images[source].shape)
        copy = (copy, copy[:, ::-1], np.roll(copy, 1, axis=1), np.roll(copy, 1, axis=0))[number % 4]
        images[place] = np.clip(copy, 0, 1)
    features, _ = forward(made, made.as_input(images))
    hashes = np.stack([perceptual_hash(image.mean(axis=2)) for image in images])
    mirrored = np.stack([perceptual_hash(image.mean(axis=2)[:, ::-1]) for image in images])
    result = find_duplicates(features, hashes, mirrored)
    pairs = {(int(row), int(other)) for row, other in zip(result.row, result.other, strict=True)}
    hits = sum(
        (int(place), int(source)) in pairs or (int(source), int(place)) in pairs
        for source, place in zip(sources, places, strict=True)
    )
    planted = set(sources.tolist()) | set(places.tolist())
    return f"{hits} of {count} pairs; {len(set(result.row.tolist()) - planted)} other images of {len(images) - 2 * count} listed"


def strangers_line(made: Subject, seed: int) -> str:
    """Outliers: noise, flat and inverted pictures among the photographs."""
    random, images = np.random.default_rng([seed, 13]), made.images.copy()
    count = round(PLANTED_SHARE * len(images))
    places = random.permutation(len(images))[:count]
    for number, place in enumerate(places):
        side = images.shape[1]
        odd = (
            random.random((side, side, 3)),
            np.broadcast_to(random.random(3), (side, side, 3)),
            1 - images[place],
            np.kron(random.random((8, 8, 3)), np.ones((side // 8, side // 8, 1))),
        )
        images[place] = odd[number % 4]
    features, _ = forward(made, made.as_input(images))
    planted = np.zeros(len(images), bool)
    planted[places] = True
    far, plain = find_outliers(features, made.labels), find_outliers(features)
    listed = far.deviations >= 5
    return (
        f"AUROC {roc_auc_score(planted, far.deviations):.3f} (k-NN of all features {roc_auc_score(planted, plain.distance):.3f}); "
        f"{int((listed & planted).sum())} of {count} listed, {int((listed & ~planted).sum())} others"
    )


def line(kind: str, network: str, seed: int, cache: Path) -> str:
    """One measurement in words."""
    planted = kind if kind in (*MARKS, *NOISES) else "clean"
    made = (
        pretrained_subject(planted, network, seed) if network in PRETRAINED else subject(planted, network, seed, cache)
    )
    if kind in (*NOISES, "clean_labels"):
        return labels_line(made)
    if kind == "copies":
        return copies_line(made, seed)
    if kind == "strangers":
        return strangers_line(made, seed)
    return marks_line(made)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS, *PRETRAINED], default=list(NETWORKS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path("bench-out/planted"))
    parser.add_argument("--only-trained", action="store_true", help="Leave out what would have to be trained first.")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    photographs("test")
    for network in asked.networks:
        for kind in asked.kinds:
            for seed in range(asked.seeds):
                made = kind if kind in (*MARKS, *NOISES) else "clean"
                if (
                    asked.only_trained
                    and network in NETWORKS
                    and not (asked.cache / f"{made}-{network}-{seed}.pt").exists()
                ):
                    continue
                developed = network == "strided" and kind in (
                    *DEVELOPED_ON,
                    "symmetric",
                    "asymmetric",
                    "clean",
                    "clean_labels",
                )
                print(
                    f"{kind:12} {network:8} {seed} {'(developed on)' if developed else '(untouched)':14} {line(kind, network, seed, asked.cache)}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
