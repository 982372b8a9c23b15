"""The confusion matrix, to the integer as the official scripts count it, and the scores that follow from it."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer

from danet.data.classes import IGNORE
from danet.evaluate.absent import mean, plain


@dataclass
class Confusion:
    """Counts of (ground truth, prediction) over any number of images; row = ground truth, column = prediction."""

    num_classes: int
    matrix: Int64[np.ndarray, "K K"] = field(init=False)

    def __post_init__(self):
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, labels: Integer[np.ndarray, "*pixels"], prediction: Integer[np.ndarray, "*pixels"]) -> None:
        """Add one image (or part of one): train ids, labels with 255 = not counted."""
        valid = labels != IGNORE
        pairs = labels[valid].astype(np.int64) * self.num_classes + prediction[valid]
        self.matrix += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.matrix.shape)

    def merge(self, other: "Confusion") -> None:
        """Add another's images."""
        self.matrix += other.matrix

    def scores(self) -> "Scores":
        """The scores of everything counted so far."""
        true = self.matrix.diagonal().astype(float)
        labeled, predicted = self.matrix.sum(1), self.matrix.sum(0)
        with np.errstate(invalid="ignore"):
            iou = true / (labeled + predicted - true)
            recall = true / labeled
            pixels = true.sum() / self.matrix.sum() if self.matrix.any() else float("nan")
        return Scores(mean(iou), mean(recall), float(pixels), iou, int((~np.isnan(iou)).sum()))


@dataclass(frozen=True)
class Scores:
    """Fractions in [0, 1]. A class in neither ground truth nor prediction has IoU nan and is left out of the mean.

    Args:
        miou: mean over the classes of intersection over union.
        mean_accuracy: mean over the labeled classes of recall.
        pixel_accuracy: share of the valid pixels predicted right.
        iou: per class.
        counted: how many classes the mean IoU is over.
    """

    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    iou: Float[np.ndarray, " K"]
    counted: int

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For JSON: nan becomes None."""
        return plain(
            {
                "miou": self.miou,
                "mean_accuracy": self.mean_accuracy,
                "pixel_accuracy": self.pixel_accuracy,
                "classes_counted": self.counted,
                "iou": dict(zip(names, self.iou.tolist(), strict=True)),
            }
        )
