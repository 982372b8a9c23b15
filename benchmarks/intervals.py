"""95 % intervals of differences in mIoU: over seeds, and over validation images."""

import math
from collections.abc import Callable, Sequence
from statistics import mean, stdev

import numpy as np

RESAMPLES = 2000
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t for 1 to 9 degrees of freedom
SEEDS = len(_T975) + 1
"""Maximum number of seeds."""


def mean_iou(matrices: np.ndarray) -> np.ndarray:
    """Return the mIoU of confusion matrices ...,K,K; classes in neither labels nor prediction are excluded."""
    true = np.diagonal(matrices, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        return np.nanmean(true / (matrices.sum(-1) + matrices.sum(-2) - true), -1)


def by_seeds(differences: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean of paired differences, one per seed, by Student's t; None for one seed."""
    if len(differences) < 2:
        return None
    half = _T975[len(differences) - 2] * stdev(differences) / math.sqrt(len(differences))
    return mean(differences) - half, mean(differences) + half


def by_images(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    score: Callable[[np.ndarray], np.ndarray] = mean_iou,
) -> tuple[float, float]:
    """Return the 95 % bootstrap interval over the images of the mean difference in mIoU.

    The images are resampled with replacement, identically for both networks and all seeds.

    Args:
        ours: confusion matrices P,...,K,K of each image, for each seed.
        theirs: those of the network to compare with.
        score: maps confusion matrices B,...,K,K, summed over images, to B scores.
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
