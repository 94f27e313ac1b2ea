"""Run in the environment of `make test-integrations`, which has the annotation tools' own libraries and no heatlas: files in, files out.

python with_tools.py label-studio|datumaro|fiftyone|cleanlab FOLDER
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np


def label_studio(folder: Path) -> None:
    """Decode every brush of tasks.json with Label Studio's converter, and write the masks as its annotations would have them."""
    from label_studio_sdk.converter.brush import decode_rle, mask2rle
    from label_studio_sdk.label_interface import LabelInterface

    interface = LabelInterface((folder / "tasks.xml").read_text())
    tasks, masks, exported = json.loads((folder / "tasks.json").read_text()), {}, []
    for number, task in enumerate(tasks):
        prediction = task["predictions"][0]
        if not interface.validate_prediction(prediction):
            raise SystemExit(f"Label Studio refuses the prediction of {task['data']['heatlas_id']}")
        for result in prediction["result"]:
            if result["type"] == "brushlabels":
                size = (result["original_height"], result["original_width"], 4)
                layer = decode_rle(result["value"]["rle"]).reshape(size)[..., 3]
                masks[task["data"]["heatlas_id"]] = layer > 0
                result["value"]["rle"] = mask2rle(layer)
        annotation = {"completed_by": 1, "was_cancelled": False, "result": prediction["result"]}
        exported.append({"id": number, "data": task["data"], "annotations": [annotation]})
    np.savez(folder / "decoded.npz", **masks)
    (folder / "export.json").write_text(json.dumps(exported))


def fiftyone(folder: Path) -> None:
    """Import dataset/ into FiftyOne, tag every sample, and export it again; exit code 3 where FiftyOne or its database is not there."""
    try:
        import fiftyone as fo

        dataset = fo.Dataset.from_dir(dataset_type=fo.types.FiftyOneDataset, dataset_dir=str(folder / "dataset"))
    except Exception as error:
        print(f"FiftyOne cannot be used: {error!r}", file=sys.stderr)
        raise SystemExit(3) from None
    for sample in dataset:
        sample.tags.append("unsure")
        sample.save()
    dataset.export(dataset_type=fo.types.FiftyOneDataset, export_dir=str(folder / "again"))


def datumaro(folder: Path) -> None:
    """Read coco/ with datumaro, and write it again as COCO with masks (uncompressed and compressed run lengths are both its choice)."""
    import datumaro as dm

    read = dm.Dataset.import_from(str(folder / "coco"), "coco_instances")
    names = [label.name for label in read.categories()[dm.AnnotationType.label]]
    masks = {}
    for item in read:
        for annotation in item.annotations:
            if annotation.type == dm.AnnotationType.mask:
                masks[f"{item.id}|{names[annotation.label]}"] = np.asarray(annotation.image, bool)
    np.savez(folder / "decoded.npz", **masks)
    read.export(str(folder / "again"), "coco_instances", save_media=False, segmentation_mode="mask")


def cleanlab(folder: Path) -> None:
    """Rank the labels of labels.npz with cleanlab's three scores, and count what it finds wrong."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given = np.load(folder / "labels.npz")
    labels, values = given["labels"], given["values"]
    scores = {method: get_label_quality_scores(labels, values, method=method)
              for method in ("self_confidence", "normalized_margin", "confidence_weighted_entropy")}  # fmt: skip
    np.savez(folder / "scores.npz", issues=find_label_issues(labels, values, n_jobs=1), **scores)


if __name__ == "__main__":
    {"label-studio": label_studio, "datumaro": datumaro, "fiftyone": fiftyone, "cleanlab": cleanlab}[sys.argv[1]](
        Path(sys.argv[2])
    )
