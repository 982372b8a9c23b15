"""Calibration: of the pixels with confidence 0.8, are 80% classified correctly?

Reliability table and expected calibration error (ECE) after Guo et al., "On Calibration of Modern Neural Networks"
(ICML 2017): 15 bins of equal width, (0, 1/15], ..., (14/15, 1]. ECE is the mean over all pixels of
|accuracy - mean confidence| of their bin. The confidence of a pixel is the probability of its predicted class.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from danet.data.classes import IGNORE
from danet.evaluate.confusion import to_json

BINS = 15


class Bin(NamedTuple):
    """The pixels with a confidence in (low, high]: count, mean confidence, accuracy; nan without pixels."""

    low: float
    high: float
    pixels: int
    confidence: float
    accuracy: float


@dataclass
class Calibration:
    """Sums over the valid pixels of images, for each confidence bin."""

    pixels: Int64[np.ndarray, "15"] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    correct: Int64[np.ndarray, "15"] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    confidence: Float64[np.ndarray, "15"] = field(default_factory=lambda: np.zeros(BINS))

    def update(
        self,
        labels: Integer[np.ndarray, "*pixels"],
        prediction: Integer[np.ndarray, "*pixels"],
        confidence: Float[np.ndarray, "*pixels"],
    ) -> None:
        """Add an image or a part of one: train ids, confidence in [0, 1].

        Pixels that are labeled 255, or whose confidence is unknown (NaN), are ignored.
        """
        valid = (labels != IGNORE) & ~np.isnan(confidence)
        correct, confidence = labels[valid] == prediction[valid], confidence[valid].astype(np.float64)
        bins = np.clip(np.ceil(confidence * BINS).astype(np.int64) - 1, 0, BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.correct += np.bincount(bins[correct], minlength=BINS)
        self.confidence += np.bincount(bins, confidence, minlength=BINS)

    def merge(self, other: "Calibration") -> None:
        """Add the sums of other images."""
        self.pixels += other.pixels
        self.correct += other.correct
        self.confidence += other.confidence

    @property
    def error(self) -> float:
        """The expected calibration error in [0, 1]; nan without a valid pixel."""
        total = self.pixels.sum()
        return float(np.abs(self.correct - self.confidence).sum() / total) if total else float("nan")

    def table(self) -> list[Bin]:
        """Return the reliability table, in order of confidence."""
        with np.errstate(invalid="ignore"):
            confidence, accuracy = self.confidence / self.pixels, self.correct / self.pixels
        columns = self.pixels.tolist(), confidence.tolist(), accuracy.tolist()
        return [Bin(i / BINS, (i + 1) / BINS, *row) for i, row in enumerate(zip(*columns, strict=True))]

    def as_dict(self) -> dict[str, Any]:
        """Return error and table as JSON values; nan becomes None."""
        return to_json({"ece": self.error, "bins": [row._asdict() for row in self.table()]})
