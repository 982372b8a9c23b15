"""Scores from a streaming confusion matrix, to the integer as the official scripts count them. Used by `evaluate` and
`train`.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from danet.data.labels import IGNORE


@dataclass
class Confusion:
    """Counts of (ground truth, prediction) over any number of pictures; row = ground truth, column = prediction.

    `merge` and the order of updates do not matter: everything is integers.
    """

    num_classes: int
    matrix: np.ndarray = field(init=False)

    def __post_init__(self):
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, labels: np.ndarray, prediction: np.ndarray) -> None:
        """Add one picture (or part of one): train ids of equal shape, labels with 255 = not counted."""
        assert labels.shape == prediction.shape, (labels.shape, prediction.shape)
        valid = labels != IGNORE
        pairs = labels[valid].astype(np.int64) * self.num_classes + prediction[valid]
        self.matrix += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.matrix.shape)

    def scores(self) -> "Scores":
        """The scores of everything counted so far."""
        true = self.matrix.diagonal().astype(float)
        labelled, predicted = self.matrix.sum(1), self.matrix.sum(0)
        with np.errstate(invalid="ignore"):
            iou = true / (labelled + predicted - true)
            recall = true / labelled
            pixels = true.sum() / self.matrix.sum() if self.matrix.any() else float("nan")
        return Scores(_mean(iou), _mean(recall), float(pixels), iou, int((~np.isnan(iou)).sum()))


@dataclass(frozen=True)
class Scores:
    """Fractions in [0, 1]. A class in neither ground truth nor prediction has IoU nan and is left out of the mean.

    Args:
        miou: mean over the classes of intersection over union.
        mean_accuracy: mean over the labelled classes of recall.
        pixel_accuracy: share of the valid pixels predicted right.
        iou: per class.
        counted: how many classes the mean IoU is over.
    """

    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    iou: np.ndarray
    counted: int

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For JSON: nan becomes None."""
        return {
            "miou": _number(self.miou),
            "mean_accuracy": _number(self.mean_accuracy),
            "pixel_accuracy": _number(self.pixel_accuracy),
            "classes_counted": self.counted,
            "iou": {name: _number(value) for name, value in zip(names, self.iou, strict=True)},
        }


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if not np.isnan(values).all() else float("nan")


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
