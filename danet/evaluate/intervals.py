"""Differences in mIoU between two predictions of the same images, with bootstrap intervals over the images."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Integer

RESAMPLES = 2000


def mean_iou(matrices: np.ndarray, left_out: np.ndarray | bool = False) -> np.ndarray:
    """Return the mIoU of confusion matrices ...,K,K; nan without labels.

    Classes in neither labels nor prediction are excluded.

    Args:
        matrices: the confusion matrices.
        left_out: ...,K bool, further classes to exclude.
    """
    true = np.diagonal(matrices, axis1=-2, axis2=-1)
    with np.errstate(invalid="ignore"):
        iou = np.where(left_out, np.nan, true / (matrices.sum(-1) + matrices.sum(-2) - true))
        return np.asarray(np.nansum(iou, -1) / (~np.isnan(iou)).sum(-1))


def by_images(
    ours: Sequence[np.ndarray],
    theirs: Sequence[np.ndarray],
    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = mean_iou,
) -> tuple[float, float]:
    """Return the 95% bootstrap interval over the images of the mean difference in mIoU.

    The images are resampled with replacement, identically for both networks and all seeds. A resample without the
    images of a class leaves the class out, for both networks: one pixel that only one of them predicts as it would give
    that network an IoU of 0. Resamples without labels, of images that are all ignored, have no mIoU and are left out.
    With fewer than two labeled images, both ends are nan.

    Args:
        ours: confusion matrices P,...,K,K of each image, for each seed.
        theirs: those of the network to compare with.
        score: maps confusion matrices B,...,K,K, summed over images, and the classes to leave out, B,...,K bool, to B
            scores.
    """
    images = len(ours[0])
    labeled = ours[0].sum(-1) > 0  # P,...,K
    if np.count_nonzero(labeled.reshape(images, -1).any(1)) < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(0)
    counts = generator.multinomial(images, np.full(images, 1 / images), RESAMPLES).astype(float)  # B,P
    left_out = (np.tensordot(counts, labeled.astype(float), 1) == 0) & labeled.any(0)
    gains = [
        score(np.tensordot(counts, a.astype(float), 1), left_out)
        - score(np.tensordot(counts, b.astype(float), 1), left_out)
        for a, b in zip(ours, theirs, strict=True)
    ]
    means = np.mean(gains, 0)
    defined = means[~np.isnan(means)]
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
