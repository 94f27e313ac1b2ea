"""Which maps decide what mu is a share of: a map that cannot be a mask does not, unless the paper's words are asked for."""

from __future__ import annotations

import pytest
import torch
from heatlas.engine.methods.registry import settings_class
from heatlas.engine.methods.sise import SISE
from heatlas.engine.sise.masks import above_share, varying
from heatlas.errors import SettingsError

from ..support.photographs import DATA, NEEDS_TILES, tile_input, tiles, trained_on_tiles


def test_a_dead_map_with_the_largest_gradient_keeps_no_other_out_by_default() -> None:
    maps = torch.rand(4, 3, 3, generator=torch.Generator().manual_seed(0))
    maps[1] = 0.0
    alphas = torch.tensor([1.0, 10.0, 0.4, 0.6], dtype=torch.float64)
    assert above_share(varying(maps), alphas, 0.5, "kept").tolist() == [True, False, False, True]
    assert above_share(varying(maps), alphas, 0.5, "kept").tolist() == [True, False, False, True]
    assert above_share(varying(maps), alphas, 0.5, "paper").tolist() == [False] * 4
    assert (
        above_share(varying(maps), alphas, 0.0, "kept").tolist()
        == above_share(varying(maps), alphas, 0.0, "paper").tolist()
    )


def test_nothing_is_kept_where_every_map_is_dead_or_speaks_against_the_class() -> None:
    assert not above_share(varying(torch.zeros(3, 2, 2)), torch.ones(3, dtype=torch.float64), 0.5, "kept").any()
    maps = torch.rand(3, 2, 2, generator=torch.Generator().manual_seed(0))
    assert not above_share(varying(maps), -torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64), 0.5, "kept").any()


def test_another_word_is_refused() -> None:
    with pytest.raises(SettingsError, match="beta must be one of kept, paper, got 'all'"):
        settings_class("sise")(beta="all")


@NEEDS_TILES
def test_tiles_whose_maps_the_paper_s_rule_drops_have_maps() -> None:
    model, images = trained_on_tiles(), [tile_input(name) for name in tiles()[:: max(1, len(tiles()) // 8)][:8]]
    without = {}
    for beta in ("kept", "paper"):
        sise = SISE(model, mu=0.5, beta=beta)
        layers = [sise.layer_masks(image, None)[1] for image in images]
        without[beta] = sum(any(layer.job.count == 0 for layer in each) for each in layers)
    assert without["kept"] == 0
    assert without["paper"] > 0, f"of {len(images)} tiles in {DATA}"
