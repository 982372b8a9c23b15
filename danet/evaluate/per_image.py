"""One row an image, to find those that go wrong."""

import csv
import io
from collections.abc import Iterable
from math import isnan
from typing import NamedTuple

from danet.evaluate.confusion import Confusion


class ImageScores(NamedTuple):
    """The scores of one image alone, fractions in [0, 1].

    Args:
        miou: mean over the classes in its labels or prediction; nan if all of it is ignored.
        pixel_accuracy: share of its valid pixels predicted right; nan likewise.
        worst_class: of least IoU, and among equals the one of most pixels; "" if there is none.
    """

    name: str
    miou: float
    pixel_accuracy: float
    worst_class: str

    @classmethod
    def of(cls, name: str, confusion: Confusion, names: tuple[str, ...]) -> "ImageScores":
        """From the counts of this image alone."""
        scores, pixels = confusion.scores(), confusion.matrix.sum(0) + confusion.matrix.sum(1)
        present = [i for i, iou in enumerate(scores.iou) if not isnan(iou)]
        worst = min(present, key=lambda i: (scores.iou[i], -pixels[i]), default=None)
        return cls(name, scores.miou, scores.pixel_accuracy, "" if worst is None else names[worst])


def to_csv(rows: Iterable[ImageScores]) -> str:
    """A header and a line an image, as in RFC 4180; nan is an empty cell."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(ImageScores._fields)
    for name, *scores, worst in rows:
        writer.writerow([name, *("" if isnan(score) else f"{score:.6f}" for score in scores), worst])
    return text.getvalue()
