"""Does the map depend on what the model has learnt? Compares it with the map of a model whose weights are random.

After Adebayo et al., NeurIPS 2018 (sanity checks for saliency maps): a map that stays like itself when every layer's weights are
replaced shows the image's edges, not the model. Meant for a sample of a run, since it explains every image once more.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from .protocol import Evidence, Metric

SANITY = "random_model_spearman"
"""Column of the store."""
RANDOM_MODEL_SPEARMAN = f"{SANITY}/v1"
"""Definition id."""


def refuse_evidence(evidence: Evidence) -> Float[Tensor, " batch"]:
    """Spearman's correlation over the pixels of S(x) and of S'(x), S' from the model with every weight drawn anew, same class.

    Raises:
        ValueError: Always: it takes a second model, see `RandomModel`.
    """
    raise ValueError(f"{SANITY} is measured by RandomModel, not from evidence")


SANITY_METRIC = Metric(
    SANITY, 1, refuse_evidence, unit="correlation", range=(-1.0, 1.0), better="neither", needs="model",
    baseline="the model with every weight drawn anew", source="Adebayo et al., NeurIPS 2018",
)  # fmt: skip
"""Its definition, as the others have theirs. It is in no preset: a run's setting `sanity` asks for it."""
