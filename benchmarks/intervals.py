"""95% intervals of differences over seeds; those over images are in danet.evaluate.intervals."""

import math
from collections.abc import Sequence
from statistics import mean, stdev

_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t for 1 to 9 degrees of freedom
SEEDS = len(_T975) + 1
"""Maximum number of seeds."""


def by_seeds(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95% interval of the mean of paired differences, one per seed, by Student's t; None for one seed."""
    if len(differences) < 2:
        return None
    half = _T975[len(differences) - 2] * stdev(differences) / math.sqrt(len(differences))
    return mean(differences) - half, mean(differences) + half
