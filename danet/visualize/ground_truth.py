"""Ground truth for images of `danet look`, from mask files or from a dataset, and what a change of labels is worth."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, UInt8

from danet.data.classes import IGNORE, LabelMap
from danet.data.images.read import read_mask
from danet.data.samples import PairedFiles, Samples
from danet.errors import InputError
from danet.predict.segmentation import Segmentation

GroundTruth = Callable[[Segmentation], UInt8[np.ndarray, "H W"]]
"""A function that returns the train ids of an image, whose size and classes are those of its segmentation."""


class Effect(NamedTuple):
    """How one prediction changes another, in fractions of the pixels; of the labeled pixels if there is ground truth.

    Args:
        changed: pixels of another class.
        corrected: pixels that were wrong and become right; None: no ground truth.
        broken: pixels that were right and become wrong; None: no ground truth.
    """

    changed: float
    corrected: float | None = None
    broken: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return the fractions that are known, for JSON."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def describe(self) -> str:
        """Return the fractions as a sentence."""
        text = f"{self.changed:.2%} of the pixels change"
        if self.corrected is None or self.broken is None:
            return text
        return f"{text}; {self.corrected:.2%} become right, {self.broken:.2%} wrong"


def effect(before: Segmentation, after: Segmentation, truth: UInt8[np.ndarray, "H W"] | None) -> Effect:
    """Return how the prediction `after` differs from `before`."""
    valid = np.ones(after.labels.shape, bool) if truth is None else truth != IGNORE
    changed = share(before.labels != after.labels, valid)
    if truth is None:
        return Effect(changed)
    right, right_before = after.labels == truth, before.labels == truth
    return Effect(changed, share(right & ~right_before, valid), share(right_before & ~right, valid))


def share(mask: Bool[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> float:
    """Return the share of the valid pixels that are in a mask, 0 if none is valid."""
    return float(mask[valid].mean()) if valid.any() else 0.0


def from_masks(masks: Sequence[Path], ignore: int = IGNORE) -> list[GroundTruth]:
    """Return the ground truth of images from mask files of class ids, in which `ignore` means no class."""
    return [partial(read_truth, mask, ignore=ignore) for mask in masks]


def from_dataset(samples: Samples, images: Sequence[Path]) -> list[GroundTruth]:
    """Return the ground truth of images that are files of a dataset.

    Raises:
        InputError: a dataset without files, or an image that is not one of its images.
    """
    if not isinstance(samples, PairedFiles):
        raise InputError("dataset", "has no image files", "use a dataset on disk, or mask files as `truth`")
    files = {pair.image.resolve(): i for i, pair in enumerate(samples.pairs)}
    found: list[GroundTruth] = []
    for image in images:
        if (index := files.get(image.resolve())) is None:
            what = f"is not among the {len(files)} images of this split of the dataset"
            example = next(iter(files), "")
            raise InputError(image, what, f"use its files, such as {example}, or choose another `split`")
        found.append(partial(_labels, samples, index))
    return found


def read_truth(path: Path, segmentation: Segmentation, ignore: int = IGNORE) -> UInt8[np.ndarray, "H W"]:
    """Read a ground truth mask of class ids as train ids; `ignore` becomes 255.

    Raises:
        InputError: no mask, another size than the image, or a value that is not a class id.
    """
    mask = read_mask(path, or_else="set `dataset` and `root` instead of `truth`")
    _check_size(path, mask, segmentation)
    if not 0 <= ignore < 1 << 16:
        raise InputError("ignore", f"must be from 0 to 65535, got {ignore}", "use a value of the masks")
    label_map = LabelMap.identity(len(segmentation.classes), ignore)
    return label_map.apply(mask, path, lambda value: f"correct the mask, or set `ignore` to {value}")


def _labels(samples: PairedFiles, index: int, segmentation: Segmentation) -> UInt8[np.ndarray, "H W"]:
    if segmentation.classes.names != samples.classes.names:
        what = f"its classes ({', '.join(samples.classes.names[:3])}, ...) are not the network's"
        raise InputError("dataset", what, "use the dataset that the network was trained for")
    labels = samples.labels(index)
    _check_size(samples.pairs[index].mask, labels, segmentation)
    return labels


def _check_size(path: Path, mask: np.ndarray, segmentation: Segmentation) -> None:
    if mask.shape != segmentation.labels.shape:
        (height, width), (own_height, own_width) = segmentation.labels.shape, mask.shape
        what = f"mask has {own_width} x {own_height} pixels, but the image has {width} x {height}"
        raise InputError(path, what, "use a mask of the image's size")
