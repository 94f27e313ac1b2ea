"""Read features of a store's images by its model: what neighbours are looked for by, and hypercolumns for places."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float

from ...engine.features.spatial_features import attention_weighted, hypercolumns
from ...engine.methods.layer_gradients import LayerGradients
from ...errors import NoBlocksError, UsageError
from ..intervene.enlarged_maps import maps_of_rows
from ..intervene.groups_of_rows import ExplainedRow

if TYPE_CHECKING:
    from ..features.compute import StoredModel
    from ..store.reader import StoreReader


@dataclass(frozen=True, eq=False)
class BlockFeatureReader:
    """The model of a store and its block layers."""

    model: StoredModel
    atlas: StoreReader
    method: str
    layers: LayerGradients

    @classmethod
    def of(cls, model: StoredModel, atlas: StoreReader, method: str) -> BlockFeatureReader:
        return cls(model, atlas, method, LayerGradients(model.module, None))

    def points(self, rows: Sequence[ExplainedRow]) -> tuple[list[int], Float[np.ndarray, "read feature"]]:
        """Attention-weighted features of the last block, of the rows whose images can be read, and their numbers."""
        numbers, parts = [], []
        for places, _, layers in self._batches(rows):
            maps = maps_of_rows(self.atlas, self.method, [rows[place] for place in places], self.model.preprocess.size)
            if maps is None:
                raise UsageError(
                    f"{self.atlas.uri} stored no maps (its store.map is off), which features are weighted by"
                )
            numbers += places
            parts.append(attention_weighted(layers[-1], torch.from_numpy(maps).to(layers[-1].device)).cpu().numpy())
        return numbers, np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)

    def columns(self, rows: Sequence[ExplainedRow]) -> Iterator[tuple[int, Float[np.ndarray, "feature h w"]]]:
        """Number and hypercolumn of each row whose image can be read, float16."""
        for place, values, _ in self.columns_and_images(rows):
            yield place, values

    def columns_and_images(
        self, rows: Sequence[ExplainedRow]
    ) -> Iterator[tuple[int, Float[np.ndarray, "feature h w"], Float[np.ndarray, "channel height width"]]]:
        """The same, and the images at input size."""
        for places, images, layers in self._batches(rows):
            columns = hypercolumns(images, layers).cpu().numpy().astype(np.float16)
            yield from zip(places, columns, images.cpu().numpy(), strict=True)

    def images(self, rows: Sequence[ExplainedRow]) -> list[Float[np.ndarray, "channel height width"]]:
        """Images at input size, of rows that could be read before."""
        samples = [self.model.samples_by_id[row.id] for row in rows]
        return list(self.model.images(samples).numpy()) if samples else []

    def _batches(self, rows: Sequence[ExplainedRow]) -> Iterator[tuple[list[int], torch.Tensor, list[torch.Tensor]]]:
        by_id, places = self.model.samples_by_id, {row.id: place for place, row in enumerate(rows)}
        samples = tuple(by_id[row.id] for row in rows if row.id in by_id)
        for read, images in self.model.batches(samples):
            moved = images.to(self.model.device)
            try:
                _, layers = self.layers.values(moved)
            except NoBlocksError as error:
                raise UsageError(f"decisions are spread by the features of convolutional layers: {error}") from error
            yield [places[sample.id] for sample in read], moved, layers
