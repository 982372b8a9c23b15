"""Scores of each image, to find the ones with the most errors."""

import csv
import io
from collections.abc import Iterable
from math import isnan
from typing import NamedTuple

from danet.evaluate.confusion import Confusion
from danet.text import csv_text


class ImageScores(NamedTuple):
    """Scores of a single image, fractions in [0, 1].

    Args:
        name: of the sample.
        miou: mean IoU over the classes in its labels or prediction; nan without valid pixels.
        pixel_accuracy: share of its valid pixels whose prediction is correct; nan without valid pixels.
        worst_class: the class with the lowest IoU, and among equals with the most pixels; "" without valid pixels.
    """

    name: str
    miou: float
    pixel_accuracy: float
    worst_class: str

    @classmethod
    def of(cls, name: str, confusion: Confusion, names: tuple[str, ...]) -> "ImageScores":
        """Compute the scores from the confusion matrix of the image."""
        scores, pixels = confusion.scores(), confusion.matrix.sum(0) + confusion.matrix.sum(1)
        present = [i for i, iou in enumerate(scores.iou) if not isnan(iou)]
        worst = min(present, key=lambda i: (scores.iou[i], -pixels[i]), default=None)
        return cls(name, scores.miou, scores.pixel_accuracy, "" if worst is None else names[worst])


def to_csv(rows: Iterable[ImageScores]) -> str:
    """Format the scores as CSV (RFC 4180) with a header; nan is an empty cell.

    A name that a spreadsheet would run as a formula begins with an apostrophe.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(ImageScores._fields)
    for name, *scores, worst in rows:
        numbers = ("" if isnan(score) else f"{score:.6f}" for score in scores)
        writer.writerow([csv_text(name), *numbers, csv_text(worst)])
    return text.getvalue()
