"""Class weights for the loss, from the pixels of each class in the training set.

Command: danet train RECIPE --class-weights auto.

    enet              1 / ln(1.02 + share of the pixels)                      Paszke et al. 2016, section 5.1
    median-frequency  median of the frequencies / frequency, where the frequency of a class is its share of the pixels
                      of the images that contain it                           Eigen and Fergus, ICCV 2015, section 6.3.2
    effective-number  (1 - beta) / (1 - beta^n), with n images that contain the class and beta = (N - 1) / N for N
                      images                                                  Cui et al., CVPR 2019, section 4

All are scaled so that the mean weight over the valid pixels is 1 and the learning rate keeps its meaning.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import InputError


class ClassCounts(NamedTuple):
    """Statistics of a set of label maps with K classes.

    Args:
        pixels: K, the pixels of each class.
        images: K, the number of images that contain each class.
        pixels_in_images: K, the valid pixels of the images that contain each class.
        samples: the number of label maps.
    """

    pixels: np.ndarray
    images: np.ndarray
    pixels_in_images: np.ndarray
    samples: int


def count_classes(
    samples: Samples, on_error: Callable[[InputError], None] | None = None, limit: int | None = None
) -> ClassCounts:
    """Count the pixels of each class in a training set.

    Args:
        samples: the training set.
        on_error: called for each label map that cannot be read, which is then skipped. None: raise the error.
        limit: count at most so many label maps, evenly spaced; None: all.
    """
    pixels, images, pixels_in_images = (np.zeros(len(samples.classes), np.int64) for _ in range(3))
    read = 0
    for index in np.unique(np.linspace(0, len(samples) - 1, limit or len(samples)).astype(int)).tolist():
        try:
            labels = samples.labels(index)
        except InputError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        read += 1
        counts = np.bincount(labels[labels != IGNORE], minlength=len(samples.classes))
        pixels += counts
        images += counts > 0
        pixels_in_images += (counts > 0) * counts.sum()
    return ClassCounts(pixels, images, pixels_in_images, read)


def check_labeled(samples: Samples) -> None:
    """Check that a training set has labeled pixels of two classes; the test splits of benchmarks have none.

    Raises:
        InputError: all pixels of all images are ignored, or have the same class.
    """
    found: set[int] = set()
    for index in range(len(samples)):
        try:
            found.update(np.unique(samples.labels(index)).tolist())
        except InputError:  # training reports it
            return
        if len(found - {IGNORE}) > 1:
            return
    if not (classes := found - {IGNORE}):
        what = f"no pixel of its {len(samples)} images is labeled"
        raise InputError("data.train_split", what, "train on another split")
    name = samples.classes.names[classes.pop()]
    what = f"every labeled pixel of its {len(samples)} images has the class {name!r}, so there is nothing to learn"
    raise InputError("data.train_split", what, "label a second class, or correct the classes in dataset.yaml")


def class_weights(method: str, counts: ClassCounts) -> tuple[float, ...]:
    """Return one weight per class. A class without pixels has weight 1, which has no effect.

    Args:
        method: enet, median-frequency, effective-number, or auto (enet, the mildest for rare classes).
        counts: the statistics of the training set.

    Raises:
        InputError: the training set has no valid pixels.
    """
    if not counts.pixels.sum():
        remedy = "correct the masks; danet check lists them"
        raise InputError("class_weights", "the training set has no labeled pixels", remedy)
    share = counts.pixels / counts.pixels.sum()
    present = counts.pixels > 0
    weights = np.ones(len(share))
    of_present = ClassCounts(
        counts.pixels[present], counts.images[present], counts.pixels_in_images[present], counts.samples
    )
    weights[present] = _METHODS[method](of_present, share[present])
    weights[present] /= (weights * share).sum()
    return tuple(weights.tolist())


def _enet(_: ClassCounts, share: np.ndarray) -> np.ndarray:
    return 1 / np.log(1.02 + share)


def _median_frequency(counts: ClassCounts, _: np.ndarray) -> np.ndarray:
    frequency = counts.pixels / counts.pixels_in_images
    return np.median(frequency) / frequency


def _effective_number(counts: ClassCounts, _: np.ndarray) -> np.ndarray:
    beta = (counts.samples - 1) / counts.samples
    return (1 - beta) / (1 - beta**counts.images)


_METHODS = {
    "auto": _enet,
    "enet": _enet,
    "median-frequency": _median_frequency,
    "effective-number": _effective_number,
}
