"""Run the demo: generate a data set with planted faults, explain it, and report what the maps reveal."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from ...errors import UsageError
from ...statuses import OK
from ..atlas import Atlas, open_atlas
from ..cluster.cluster import cluster_maps
from ..curate.curate import curate_store
from ..explain.explain import explain_dataset
from ..report.build import write_report
from ..report.classes import suspicion_rule
from ..report.rows import CHANCE, ReportRows
from ..report.scores import run_scores
from ..terminal_log import LOG
from .contact_sheet import ACROSS, Panel, draw_contact_sheet
from .dataset import CLASS_NAMES, SHORTCUT_CLASS, write_dataset
from .findings import Group, SeenImage, class_groups, findings_text
from .network import weights_metadata
from .story import cluster_lines, label_noise_found, noise_lines, shortcut_lines
from .train import TrainingRecipe, retrained

MODEL = "heatlas.pipeline.demo.network:demo_model"
STORE = "store"
SHEET = "contact-sheet.png"
QUEUE = "queue.csv"
SPLIT = "train"
"""Training images, because that is where wrong labels do harm and where people look for them."""


def run_demo(
    out: str,
    *,
    workers: Literal["auto"] | int = "auto",
    images: int = 300,
    retrain: bool = False,
    tell: Callable[[str], None] = LOG.info,
) -> int:
    """Explain training images with a planted shortcut and wrong labels, find both by their maps, and write it all down.

    The same call again continues where it stopped. In `out` there are then `data`, `store` (with queues, clusters and the
    report), `queue.csv` and the contact sheet.

    Args:
        out: Local directory.
        workers: As in the settings; 0 runs in this process without Ray.
        images: How many training images, at least 1.
        retrain: Train the network again (two minutes) and explain that one, with its weights kept in `out`.
        tell: Takes the texts for people; by default the logger `heatlas`.

    Returns:
        The exit code, 0.

    Raises:
        UsageError: If `out` is not local or holds another demo, or `images` is not positive.
    """
    if "://" in out:
        raise UsageError(
            f"the demo draws pictures into a local directory, got {out!r}; name a directory such as demo-out"
        )
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"--out {out} is a file; name a directory such as demo-out")
    _refuse_other_demo(folder, images)
    manifest = write_dataset(folder / "data", SPLIT, images)
    tell(f"{images} generated training images with exact masks are in {folder / 'data'}")
    store = str(folder / STORE)
    model = _model(folder, tell, retrain=retrain)
    tell(explain_dataset(model=model, data=str(manifest), out=store, config="demo", workers=workers).summary())
    atlas = open_atlas(store)
    truth = _read_manifest(manifest)
    seen = seen_images(atlas, truth)
    tell(f"\n{findings_text(seen)}\n")
    tell("\n".join([*curated_lines(atlas, truth, folder), ""]))
    _draw_sheet(atlas, truth, seen, folder / SHEET)
    tell(f"contact sheet: {folder / SHEET}\nreview queue:  {folder / QUEUE}\nreport:        {write_report(store).uri}\n"
          f"single images: heatlas show {store} --id {seen[0].id if seen else 'ID'}")  # fmt: skip
    return 0


def curated_lines(atlas: Atlas, truth: dict[str, dict[str, str]], folder: Path) -> list[str]:
    """Write queues and clusters into the store and the queue into `folder`; returns what they say of the planted faults."""
    written = curate_store(atlas.uri)
    curate_store(atlas.uri, to=str(folder / QUEUE))
    clusters = cluster_maps(atlas)
    clusters.write(atlas.uri)
    queues = {name: queue.to_pylist() for name, queue in written.curation.queues.items()}
    rows = atlas.table(["id", "target", "label", "prediction", "confidence"], where=f"status = '{OK}'").to_pylist()
    noise = label_noise_found(rows, queues["label_suspicion"], truth)
    clusters = cluster_lines(clusters.clusters.to_pylist(), clusters.members.to_pylist(), truth)
    return [*shortcut_lines(queues["shortcut"]), *clusters, *noise_lines(noise)]


def _refuse_other_demo(folder: Path, images: int) -> None:
    """Refuse to replace the data of an existing store with other data."""
    manifest = folder / "data" / "manifest.csv"
    if not ((folder / STORE).exists() and manifest.exists()):
        return
    there = _read_manifest(manifest)
    if not all(identity.startswith(f"{SPLIT}-") for identity in there):
        raise UsageError(f"{folder} holds the demo of another heatlas, with other images; choose another --out")
    if len(there) != images:
        raise UsageError(f"{folder} holds a demo of {len(there)} images, now {images} are asked for; use --images {len(there)} or "
                         "another --out")  # fmt: skip


def _model(folder: Path, tell: Callable[[str], None], *, retrain: bool) -> str:
    """The model to explain, as the user would name it; newly trained weights stay in `folder` and are used again."""
    if not retrain:
        return MODEL
    weights = (folder / "data" / "retrained.safetensors").resolve()
    if not weights.exists():
        if (folder / STORE).exists():
            raise UsageError(
                f"{folder / STORE} holds a run of the packaged network; name another directory for --retrain"
            )
        retrained(weights, TrainingRecipe(), say=tell)
    ours, packaged = (100 * float(metadata["test"]) for metadata in (weights_metadata(weights), weights_metadata()))
    tell(f"test accuracy of the retrained network {ours:.1f} %, of the packaged one {packaged:.1f} %")
    return f"{MODEL}@{weights}"


def seen_images(atlas: Atlas, truth: dict[str, dict[str, str]]) -> list[SeenImage]:
    """The explained predictions as the report counts them, joined with what the demo's manifest knows, by id; rows without a map are left out."""
    rows = ReportRows.of(atlas)
    rule = suspicion_rule(rows, run_scores(rows, resamples=1))
    if rule is None or rule.metric != "ebpg":
        return []
    records = rows.ask(
        f"SELECT id, label, prediction, ebpg, bbox, coalesce({CHANCE}, {rule.threshold!r}) AS chance FROM rows "
        f"WHERE main AND status = '{OK}' AND ebpg IS NOT NULL ORDER BY id"
    )
    return [
        SeenImage(
            id=record["id"],
            label=CLASS_NAMES[record["label"]],
            true_label=truth[record["id"]]["true_label"],
            prediction=CLASS_NAMES[record["prediction"]],
            ebpg=record["ebpg"],
            bbox=record["bbox"],
            chance=record["chance"],
            sticker=truth[record["id"]]["shortcut"] == "1",
        )
        for record in records
    ]


def _read_manifest(manifest: Path) -> dict[str, dict[str, str]]:
    """Rows by id, with paths that hold from any working directory."""
    with manifest.open(encoding="utf-8", newline="") as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    for row in rows.values():
        row.update({name: str(manifest.parent / row[name]) for name in ("uri", "mask")})
    return rows


def _mask(row: dict[str, str]) -> np.ndarray:
    with Image.open(row["mask"]) as image:
        return np.asarray(image) > 0


def _draw_sheet(atlas: Atlas, truth: dict[str, dict[str, str]], seen: Sequence[SeenImage], path: Path) -> None:
    groups = class_groups(seen)
    chosen = {group.name: _examples(group, seen) for group in groups}
    wanted = {(image.id, CLASS_NAMES.index(image.prediction)) for row in chosen.values() for image in row}
    maps = {identity: atlas.maps([identity], target=target)[0] for identity, target in wanted}

    def panel(image: SeenImage) -> Panel:
        with Image.open(truth[image.id]["uri"]) as picture:
            return Panel(image, picture.convert("RGB"), maps[image.id].astype(np.float32), _mask(truth[image.id]))

    rows = [(group, [panel(image) for image in chosen[group.name]]) for group in groups]
    subtitle = (
        "Each image beside the map of its prediction (SISE, scaled to its own peak); white: the object's outline, unknown to "
        "the model. Red: correct, with less on the object than of a random map."
    )
    draw_contact_sheet(
        rows, f"Where the network looks: {len(seen)} generated images, {len(groups)} classes", subtitle
    ).save(path)


def _examples(group: Group, seen: Sequence[SeenImage]) -> list[SeenImage]:
    """The first images of a class; of the shortcut class the last place goes to one without the sticker."""
    members = [image for image in seen if image.label == group.name == image.true_label]
    bare = [image for image in members if not image.sticker] if group.name == SHORTCUT_CLASS else []
    first = [image for image in members if image not in bare]
    return [*first[: ACROSS - len(bare[:1])], *bare[:1]]
