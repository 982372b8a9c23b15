"""Weights of the classes in the loss, from the pixels that each has in the training set. Command: `danet train RECIPE
--class-weights auto`.

    enet              1 / ln(1.02 + share of the pixels)                      Paszke et al. 2016, section 5.1
    median-frequency  median of the frequencies / frequency, the frequency of a class being its share of the pixels of
                      the images that show it                               Eigen and Fergus, ICCV 2015, section 6.3.2
    effective-number  (1 - beta) / (1 - beta^n) with n the images that show the class and beta = (N - 1) / N for N
                      images                                                Cui et al., CVPR 2019, section 4

Each is scaled so that the mean weight over the valid pixels is 1: the learning rate keeps its meaning.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import InputError


class Census(NamedTuple):
    """What a set of label maps holds of each class, K each.

    Args:
        pixels: of the class.
        images: that show it.
        pixels_beside: valid pixels of the images that show it.
        samples: label maps counted.
    """

    pixels: np.ndarray
    images: np.ndarray
    pixels_beside: np.ndarray
    samples: int


def census(samples: Samples, bad: Callable[[InputError], None] | None = None) -> Census:
    """Count every label map of a training set once.

    Args:
        bad: told of each label map that cannot be read, which is then not counted; None: the first is raised.
    """
    pixels, images, beside = (np.zeros(len(samples.classes), np.int64) for _ in range(3))
    counted = 0
    for index in range(len(samples)):
        try:
            labels = samples.labels(index)
        except InputError as error:
            if bad is None:
                raise
            bad(error)
            continue
        counted += 1
        counts = np.bincount(labels[labels != IGNORE], minlength=len(samples.classes))
        pixels += counts
        images += counts > 0
        beside += (counts > 0) * counts.sum()
    return Census(pixels, images, beside, counted)


def check_labeled(samples: Samples) -> None:
    """Raises InputError where no pixel of a training set is labeled, as in a benchmark's test split. Label maps are
    read up to the first that has one.
    """
    for index in range(len(samples)):
        try:
            if (samples.labels(index) != IGNORE).any():
                return
        except InputError:  # its own words are said where it is trained on
            return
    what = f"no pixel of its {len(samples)} images is labeled"
    raise InputError("--data.train-split", what, "train on another split")


def class_weights(way: str, counted: Census) -> tuple[float, ...]:
    """One weight a class. A class without a pixel gets 1: no pixel asks for it.

    Args:
        way: enet, median-frequency, effective-number, or auto (enet, the mildest of them for rare classes).

    Raises:
        InputError: the training set has no valid pixel.
    """
    if not counted.pixels.sum():
        raise InputError("--class-weights", "the training set has no labeled pixel", "mend the masks: danet check")
    share = counted.pixels / counted.pixels.sum()
    seen = counted.pixels > 0
    raw = np.ones(len(share))
    present = Census(counted.pixels[seen], counted.images[seen], counted.pixels_beside[seen], counted.samples)
    raw[seen] = _WAYS[way](present, share[seen])
    raw[seen] /= (raw * share).sum()
    return tuple(raw.tolist())


def _enet(_: Census, share: np.ndarray) -> np.ndarray:
    return 1 / np.log(1.02 + share)


def _median(counted: Census, _: np.ndarray) -> np.ndarray:
    frequency = counted.pixels / counted.pixels_beside
    return np.median(frequency) / frequency


def _effective(counted: Census, _: np.ndarray) -> np.ndarray:
    beta = (counted.samples - 1) / counted.samples
    return (1 - beta) / (1 - beta**counted.images)


_WAYS = {"auto": _enet, "enet": _enet, "median-frequency": _median, "effective-number": _effective}
