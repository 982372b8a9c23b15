"""The confusion matrix, equal to that of the official scripts, and the scores computed from it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int64, Integer

from danet.data.classes import IGNORE


@dataclass
class Confusion:
    """Counts of (ground truth, prediction) over images; rows are the ground truth, columns the prediction."""

    num_classes: int
    matrix: Int64[np.ndarray, "K K"] = field(init=False)

    def __post_init__(self):
        self.matrix = np.zeros((self.num_classes, self.num_classes), np.int64)

    def update(self, labels: Integer[np.ndarray, "*pixels"], prediction: Integer[np.ndarray, "*pixels"]) -> None:
        """Add an image or a part of one, as train ids. Pixels labeled 255 are ignored.

        Raises:
            ValueError: another pixel has a label or a prediction that is no class.
        """
        valid = labels != IGNORE
        labels, prediction = labels[valid].astype(np.int64), prediction[valid]
        for what, values in (("labels", labels), ("predictions", prediction)):
            if values.size and not 0 <= values.min() <= values.max() < self.num_classes:
                raise ValueError(f"{what} from {values.min()} to {values.max()}, with {self.num_classes} classes")
        pairs = labels * self.num_classes + prediction
        self.matrix += np.bincount(pairs, minlength=self.num_classes**2).reshape(self.matrix.shape)

    def merge(self, other: "Confusion") -> None:
        """Add the counts of another matrix."""
        self.matrix += other.matrix

    def scores(self) -> "Scores":
        """Return the scores of all counts so far."""
        true = self.matrix.diagonal().astype(float)
        labeled, predicted = self.matrix.sum(1), self.matrix.sum(0)
        with np.errstate(invalid="ignore"):
            iou = true / (labeled + predicted - true)
            recall = true / labeled
            pixels = true.sum() / self.matrix.sum() if self.matrix.any() else float("nan")
        return Scores(nan_mean(iou), nan_mean(recall), float(pixels), iou, int((~np.isnan(iou)).sum()))


@dataclass(frozen=True)
class Scores:
    """Fractions in [0, 1]. A class in neither ground truth nor prediction has IoU nan and is not averaged.

    Args:
        miou: mean intersection over union of the classes.
        mean_accuracy: mean recall of the labeled classes.
        pixel_accuracy: share of the valid pixels whose prediction is correct.
        iou: intersection over union of each class.
        counted: number of classes in the mean IoU.
    """

    miou: float
    mean_accuracy: float
    pixel_accuracy: float
    iou: Float[np.ndarray, " K"]
    counted: int

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return the scores as JSON values; nan becomes None."""
        return to_json(
            {
                "miou": self.miou,
                "mean_accuracy": self.mean_accuracy,
                "pixel_accuracy": self.pixel_accuracy,
                "classes_counted": self.counted,
                "iou": dict(zip(names, self.iou.tolist(), strict=True)),
            }
        )


def nan_mean(values: Iterable[float]) -> float:
    """Return the mean of the values that are not nan; nan if there are none."""
    defined = [value for value in values if not np.isnan(value)]
    return float(np.mean(defined)) if defined else float("nan")


def to_json(value: Any) -> Any:
    """Convert mappings, arrays and numbers to JSON values; nan becomes None."""
    if isinstance(value, Mapping):
        return {str(key): to_json(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return [to_json(entry) for entry in value.tolist()]
    if isinstance(value, list | tuple):
        return [to_json(entry) for entry in value]
    return None if isinstance(value, float) and np.isnan(value) else value
