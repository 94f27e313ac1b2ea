"""Find near-duplicate maps by locality-sensitive hashing, without comparing all pairs.

Locality-sensitive hashing and sorted neighbourhoods: maps are projected on a few random directions and cut into cells, the maps of
a cell are put in order along one more direction, and each is compared with the next few. Several tables with other directions find
what one cuts apart. Equal maps are always neighbours; of nearly equal ones a few may be missed. The work is linear (but for the
sorting) in the number of maps, whatever they look like.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

TABLES = 4
DIRECTIONS = 6
CELL = 0.1
"""Width of a cell along a direction, in units of the square root of the mass."""
NEIGHBOURS = 3
"""How many of the next ones in its order a map is compared with."""
NEAR = 0.03
"""Largest distance of near duplicates: the share of the mass to be moved."""
CHUNK = 65536


@dataclass(frozen=True, eq=False)
class Twins:
    """The maps that have a near duplicate."""

    row: Int[np.ndarray, " map"]
    """Ascending row numbers."""
    twin: Int[np.ndarray, " map"]
    """The row of its nearest duplicate."""
    distance: Float[np.ndarray, " map"]
    """Half the L1 distance to it: the share of the mass to be moved, at most `NEAR`."""
    alike: Int[np.ndarray, " map"]
    """Number of near duplicates found: all of a few, some of many."""


def find_twins(mass: Float[np.ndarray, "rows pixels"], *, seed: int = 0) -> Twins:
    """Pairs of maps that differ by at most `NEAR`, as every map's nearest one.

    Args:
        mass: Maps as distributions (rows sum to 1), in an order that stays.
        seed: Of the directions.
    """
    pairs = [_near_pairs(mass, np.random.default_rng([seed, table])) for table in range(TABLES)]
    row, other, distance = (np.concatenate(column) for column in zip(*pairs, strict=True))
    _, first = np.unique(row * len(mass) + other, return_index=True)  # several tables find the same pair
    row, other, distance = row[first], other[first], distance[first]
    row, other, distance = (
        np.concatenate([row, other]),
        np.concatenate([other, row]),
        np.concatenate([distance, distance]),
    )
    order = np.lexsort((other, distance, row))  # of equally near ones the first
    row, other, distance = row[order], other[order], distance[order]
    row, first, alike = np.unique(row, return_index=True, return_counts=True)
    return Twins(row, other[first], distance[first], alike)


def _near_pairs(
    mass: Float[np.ndarray, "rows pixels"], random: np.random.Generator
) -> tuple[Int[np.ndarray, " pairs"], Int[np.ndarray, " pairs"], Float[np.ndarray, " pairs"]]:
    """The pairs that one table finds, the lower row first, with their distances."""
    order, cells = _ordered(mass, random)
    pairs: list[tuple[np.ndarray, ...]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0))]
    for step in range(1, NEIGHBOURS + 1):
        together = np.flatnonzero(cells[step:] == cells[:-step])
        for start in range(0, len(together), CHUNK):
            some = together[start : start + CHUNK]
            row, other = order[some], order[some + step]
            distance = np.abs(mass[row] - mass[other]).sum(axis=1, dtype=np.float64) / 2
            near = distance <= NEAR
            pairs.append((np.minimum(row, other)[near], np.maximum(row, other)[near], distance[near]))
    row, other, distance = (np.concatenate(column) for column in zip(*pairs, strict=True))
    return row, other, distance


def _ordered(mass: Float[np.ndarray, "rows pixels"], random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers cell by cell and along a line within each, and beside them their cells as numbers."""
    scale = np.sqrt(np.float32(mass.shape[1]))
    directions = random.normal(size=(mass.shape[1], DIRECTIONS + 1)).astype(np.float32) / scale
    offset = random.uniform(0, CELL, DIRECTIONS).astype(np.float32)
    mix = random.integers(1, 2**62, DIRECTIONS, dtype=np.int64) | 1
    cells, line = np.empty(len(mass), np.int64), np.empty(len(mass), np.float32)
    for start in range(0, len(mass), CHUNK):
        projected = np.sqrt(mass[start : start + CHUNK]) @ directions
        corner = np.floor((projected[:, :DIRECTIONS] + offset) / CELL).astype(np.int64)
        with np.errstate(over="ignore"):  # a hash: what runs over is what mixes
            cells[start : start + CHUNK] = (corner * mix).sum(axis=1)
        line[start : start + CHUNK] = projected[:, DIRECTIONS]
    order = np.lexsort((line, cells))
    return order, cells[order]
