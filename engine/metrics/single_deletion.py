"""Does a map tell what removing one part costs? For networks that have seen images with a part removed (in-domain single deletion)."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .protocol import Evidence, Probe, Subject, Variants, metric, only_where, varies
from .ranking import spearman

CELLS = 4
"""Along each side."""


def cell_edges(side: int) -> list[int]:
    """Where the cells of a side begin, and its end: as equal as whole pixels allow."""
    return [round(place * side / CELLS) for place in range(CELLS + 1)]


def cell_of_pixels(size: tuple[int, int]) -> Tensor:
    """The cell of every pixel `(height, width)`, by rows, 0 to 15."""
    down, across = (
        torch.repeat_interleave(torch.arange(CELLS), torch.tensor(cell_edges(side)).diff(), output_size=side)
        for side in size
    )
    return CELLS * down[:, None] + across


def without_cells(subject: Subject) -> Variants:
    """The image with one of the 16 cells set to 0 in network-input space, then the image itself."""
    cells = cell_of_pixels((subject.image.shape[1], subject.image.shape[2])).to(subject.image.device)

    def fill(start: int, out: Tensor) -> Tensor:
        numbers = torch.arange(start, start + len(out), device=cells.device)
        return torch.mul(subject.image, (cells != numbers[:, None, None])[:, None], out=out)

    return Variants(fill)


WITHOUT_CELLS = Probe("without_cells", CELLS**2 + 1, without_cells, of_map=False, reads="logit")


@metric(
    version=1, unit="rank correlation", range=(-1.0, 1.0), better="higher", needs="model",
    baseline="0 in network-input space", source="Hesse et al., NeurIPS 2024 (in-domain single-deletion score)",
    probes=(WITHOUT_CELLS,),
)  # fmt: skip
def single_deletion_rho(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Spearman's correlation over the 16 cells of a 4 x 4 grid of the sum of S in a cell with the fall of the class's logit without it.

    Of a dense model the fall of its confidence. Not defined where all falls, or all sums, are the same.
    """
    scores = evidence.probes[WITHOUT_CELLS.name].double()
    falls = scores[:, -1:] - scores[:, :-1]
    cells = cell_of_pixels((evidence.maps.shape[1], evidence.maps.shape[2])).to(evidence.maps.device)
    sums = torch.zeros_like(falls).index_add_(1, cells.flatten(), evidence.maps.double().flatten(1))
    return only_where(varies(evidence.maps), spearman(sums, falls))
