"""What the model predicts for some labelled images, where the labels can be read in more than one way; and what the user says of them."""

# pyarrow.compute makes its functions at import, where pyright cannot see them
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import os
from typing import cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch

from ...errors import DataError, SampleError, UsageError
from ...workers.images.decode import decode_input
from ...workers.models.load import LoadedModel
from ...workers.protocols import SampleReader
from ..settings.run import Settings
from ..sources.listing.label_readings import ORDERS, LabelRules
from ..storage.location import locate
from ..terminal_log import say
from ..text import counted

PROBED = 200
"""Labelled images that are classified."""
BATCH = 16
WORTH_SAYING = 64
"""Images whose classification may take so long that it is announced."""


def label_rules(settings: Settings) -> LabelRules:
    """What the settings say about labels; the file of `labels.order` is read.

    Raises:
        DataError: If it cannot be read.
    """
    order, base = settings.labels.order, settings.labels.base
    if order is None or order in ORDERS:
        return LabelRules(order, base)
    path = order.removeprefix("file:")
    try:
        fs, place = locate(os.path.expanduser(path))
        text = cast(bytes, fs.cat_file(place)).decode("utf-8-sig")
    except UsageError as error:
        raise DataError(f"--labels.order {order}: {error}") from error
    except Exception as error:  # each storage has errors of its own
        raise DataError(f"cannot read --labels.order {order}: {type(error).__name__}: {error}") from error
    names = tuple(line.strip() for line in text.splitlines() if line.strip())
    return LabelRules("file", base, names)


def probe_predictions(listing: pa.Table, model: LoadedModel, reader: SampleReader) -> tuple[np.ndarray, np.ndarray]:
    """Classify up to `PROBED` labelled images, evenly spread over the listing; those that cannot be read are left out.

    Args:
        listing: With a text column `label`.
        model: On the CPU. A dense one has no prediction of an image.
        reader: Reads the images.

    Returns:
        Row numbers and predicted classes, both `(image,)`.
    """
    nobody = np.empty(0, np.int64), np.empty(0, np.int64)
    if model.dense:
        return nobody
    labelled = np.flatnonzero(pc.is_valid(listing["label"]).to_numpy(zero_copy_only=False))
    rows = labelled[np.linspace(0, len(labelled) - 1, min(PROBED, len(labelled))).round().astype(np.int64)]
    if len(rows) > WORTH_SAYING:
        say(f"classifying {counted(len(rows), 'labelled image')} to see which label is which class of the model")
    read, predictions, images = [], [], []
    for row in rows.tolist():
        try:
            data = reader.read(listing["uri"][row].as_py())
            images.append(model.preprocess.tensor(decode_input(data, model.preprocess)[0]))
        except SampleError:
            continue
        read.append(row)
        if len(images) == BATCH:
            predictions += _classes(model, images)
            images = []
    predictions += _classes(model, images)
    return np.array(read, np.int64), np.array(predictions, np.int64)


def _classes(model: LoadedModel, images: list[torch.Tensor]) -> list[int]:
    if not images:
        return []
    with torch.inference_mode():
        return model.module(torch.stack(images)).argmax(dim=1).tolist()
