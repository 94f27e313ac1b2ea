"""A worked example of a metric: the share of a map's mass in the middle of the image.

Inside heatlas this is a function in the file of its family, `engine/metrics/descriptors.py`, and its name in a preset of
`engine/metrics/presets.py`. Store, summary, report, comparison and `heatlas metrics` read the rest from the declaration.
"""

from heatlas.engine.metrics.protocol import Evidence, metric
from torch import Tensor


@metric(
    version=1, unit="share of mass", range=(0.0, 1.0), better="neither", needs="map", source="worked example of heatlas"
)
def middle_share(evidence: Evidence) -> Tensor:
    """Mass in the middle half of height and width, over the whole mass."""
    maps = evidence.maps.double()
    height, width = maps.shape[1:]
    middle = maps[:, height // 4 : height - height // 4, width // 4 : width - width // 4]
    return middle.sum(dim=(1, 2)) / maps.sum(dim=(1, 2))
