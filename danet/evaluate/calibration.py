"""Whether confidences can be believed: of the pixels of confidence 0.8, are 80 % right?

Reliability table and expected calibration error (ECE) after Guo et al., "On Calibration of Modern Neural Networks"
(ICML 2017): 15 bins of equal width, (0, 1/15], ..., (14/15, 1]; ECE = the mean over all pixels of
|accuracy - mean confidence| of their bin. A sample is a valid pixel, its confidence the probability of the class
predicted for it.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from danet.data.classes import IGNORE
from danet.evaluate.absent import plain

BINS = 15


class Bin(NamedTuple):
    """Pixels of a confidence in (low, high]: how many, their mean confidence, and the share predicted right; nan if
    there are none.
    """

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


@dataclass
class Calibration:
    """Sums over the valid pixels of any number of images, by bin of confidence."""

    pixels: Int64[np.ndarray, "15"] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    correct: Int64[np.ndarray, "15"] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confidence: Float64[np.ndarray, "15"] = field(default_factory=lambda: np.zeros(BINS))

    def update(
        self,
        labels: Integer[np.ndarray, "*pixels"],
        prediction: Integer[np.ndarray, "*pixels"],
        confidence: Float[np.ndarray, "*pixels"],
    ) -> None:
        """Add one image (or part of one): train ids, labels with 255 = not counted, confidence in [0, 1]."""
        valid = labels != IGNORE
        right, sure = labels[valid] == prediction[valid], confidence[valid].astype(np.float64)
        bins = np.clip(np.ceil(sure * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.correct += np.bincount(bins[right], minlength=BINS)
        self.confidence += np.bincount(bins, sure, minlength=BINS)

    def merge(self, other: "Calibration") -> None:
        """Add another's images."""
        self.pixels += other.pixels
        self.correct += other.correct
        self.confidence += other.confidence

    @property
    def error(self) -> float:
        """The expected calibration error, in [0, 1]; nan without a valid pixel."""
        total = self.pixels.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    def table(self) -> list[Bin]:
        """The reliability table, by rising confidence."""
        with np.errstate(invalid="ignore"):
            confidence, accuracy = self.confidence / self.pixels, self.correct / self.pixels
        columns = self.pixels.tolist(), confidence.tolist(), accuracy.tolist()
        return [Bin(i / BINS, (i + 1) / BINS, *row) for i, row in enumerate(zip(*columns, strict=True))]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: nan becomes None."""
        return plain({"ece": self.error, "bins": [row._asdict() for row in self.table()]})
