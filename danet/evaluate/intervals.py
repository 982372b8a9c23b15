"""Differences in mIoU between two predictions of the same images, with bootstrap intervals over the images."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Integer

RESAMPLES = 2000


def mean_iou(matrices: np.ndarray) -> np.ndarray:
    """Return the mIoU of confusion matrices ...,K,K; nan without labels.

    Classes in neither labels nor prediction are excluded.
    """
    true = np.diagonal(matrices, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        iou = true / (matrices.sum(-1) + matrices.sum(-2) - true)
        return np.asarray(np.nansum(iou, -1) / (~np.isnan(iou)).sum(-1))


def by_images(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    score: Callable[[np.ndarray], np.ndarray] = mean_iou,
) -> tuple[float, float]:
    """Return the 95% bootstrap interval over the images of the mean difference in mIoU.

    The images are resampled with replacement, identically for both networks and all seeds. Resamples without labels, of
    images that are all ignored, have no mIoU and are left out; without any label, both ends are nan.

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
    means = np.mean(gains, 0)
    if not len(defined := means[~np.isnan(means)]):
        return float("nan"), float("nan")
    low, high = np.quantile(defined, (0.025, 0.975))
    return float(low), float(high)


def paired_difference(
    ours: Integer[np.ndarray, "P K K"], theirs: Integer[np.ndarray, "P K K"]
) -> dict[str, float | tuple[float, float]]:
    """Return the mIoU of `ours`, its difference to that of `theirs`, and the difference's 95% interval by images."""
    miou = float(mean_iou(ours.sum(0)))
    return {
        "miou": miou,
        "difference": miou - float(mean_iou(theirs.sum(0))),
        "by_images_95": by_images([ours], [theirs]),
    }
