"""How sure a difference in mIoU is: over the seeds, and over the validation images. Used by campaign.py, without.py
and robustness.py.
"""

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev

import numpy as np

RESAMPLES = 2000
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t, of 1 to 9 degrees of freedom
SEEDS = len(_T975) + 1
"""The most that there is a quantile for."""


def mean_iou(matrices: np.ndarray) -> np.ndarray:
    """mIoU of confusion matrices ...,K,K; classes in neither labels nor prediction are left out."""
    true = np.diagonal(matrices, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.nanmean(true / (matrices.sum(-1) + matrices.sum(-2) - true), -1)


def by_seeds(differences: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of paired differences, one a seed, by Student's t; None for one seed."""
    if len(differences) < 2:
        return None
    half = _T975[len(differences) - 2] * stdev(differences) / math.sqrt(len(differences))
    return mean(differences) - half, mean(differences) + half


def by_images(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    score: Callable[[np.ndarray], np.ndarray] = mean_iou,
) -> tuple[float, float]:
    """The 95 % interval of the mean difference in mIoU of the same runs on other images: the images are drawn again
    with replacement, the same for both networks and all seeds.

    Args:
        ours, theirs: P,...,K,K for each seed.
        score: of confusion matrices B,...,K,K, summed over images: B.
    """
    images = len(ours[0])
    generator = np.random.default_rng(0)
    counts = generator.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(float)  # B,P
    gains = [
        score(np.tensordot(counts, a.astype(float), 1)) - score(np.tensordot(counts, b.astype(float), 1))
        for a, b in zip(ours, theirs, strict=True)
    ]
    low, high = np.quantile(np.mean(gains, 0), (0.025, 0.975))
    return float(low), float(high)
