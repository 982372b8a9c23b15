"""How good predictions are, accumulated picture by picture: the order and the split of the pictures do not matter, and
parts from several processes merge by addition. Used by `evaluate` and `train`.
"""

from danet.metrics.boundary import Boundary, BoundaryScores
from danet.metrics.calibration import Calibration
from danet.metrics.confusion import Confusion, Scores
from danet.metrics.pictures import PictureScores

__all__ = ["Boundary", "BoundaryScores", "Calibration", "Confusion", "PictureScores", "Scores"]
