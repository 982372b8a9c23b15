"""Boundary F: precision and recall of the borders between classes, within 1 to 5 pixels.

After Csurka et al., "What is a good evaluation measure for semantic segmentation?" (BMVC 2013). A boundary pixel of
class c is a pixel of c that has a 4-neighbor of another class. Ignored pixels (255) and the image's frame make no
boundary, neither in the labels nor in the prediction. Within d pixels, for each class,

    precision = share of the predicted boundary pixels that lie at most d from a labeled boundary pixel of the class
    recall    = share of the labeled boundary pixels that lie at most d from a predicted one
    F         = 2 precision recall / (precision + recall)

with Euclidean distances between pixel centers. Csurka et al. choose d as 0.75% of the diagonal and average F over
images. Here d is in pixels, and the counts are summed over all images before the division, as for IoU: they are
integers, and images without a class need no special rule.

PASCAL VOC's masks hide the borders under ignored pixels, so only the remaining borders are evaluated there.
"""

from dataclasses import dataclass, field
from math import ceil, hypot
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from danet.data.classes import IGNORE
from danet.evaluate.confusion import to_json

TOLERANCES = (1, 2, 3, 4, 5)
"""The distances in pixels within which a boundary pixel is matched."""

_REACH = TOLERANCES[-1]
_OFFSETS = sorted(
    (
        (ceil(hypot(y, x)), y, x)
        for y in range(-_REACH, _REACH + 1)
        for x in range(-_REACH, _REACH + 1)
        if hypot(y, x) <= _REACH
    ),
    reverse=True,
)


@dataclass
class Boundary:
    """Counts of boundary pixels over images: one row per class, one column per distance to the nearest match.

    Columns 0 to 5 count the pixels whose match is at most that far, rounded up; column 6 counts those without a match.
    """

    num_classes: int
    predicted: Int64[np.ndarray, "K 7"] = field(init=False)
    labeled: Int64[np.ndarray, "K 7"] = field(init=False)

    def __post_init__(self):
        self.predicted, self.labeled = np.zeros((2, self.num_classes, _REACH + 2), np.int64)

    def update(self, labels: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"]) -> None:
        """Add a full image, as train ids. Pixels labeled 255 are ignored."""
        valid = labels != IGNORE
        labeled, predicted = _boundary(labels, valid), _boundary(prediction, valid)
        self.predicted += self._distances(predicted, labeled)
        self.labeled += self._distances(labeled, predicted)

    def _distances(self, source: Integer[np.ndarray, "H W"], target: Integer[np.ndarray, "H W"]) -> np.ndarray:
        y, x = np.nonzero(source != IGNORE)
        classes, padded = source[y, x], np.pad(target, _REACH, constant_values=IGNORE)
        nearest = np.full(len(classes), _REACH + 1)
        for distance, dy, dx in _OFFSETS:  # far to near
            nearest[padded[y + (_REACH + dy), x + (_REACH + dx)] == classes] = distance
        bins = classes.astype(np.int64) * (_REACH + 2) + nearest
        return np.bincount(bins, minlength=self.predicted.size).reshape(self.predicted.shape)

    def merge(self, other: "Boundary") -> None:
        """Add the counts of other images."""
        self.predicted += other.predicted
        self.labeled += other.labeled

    def scores(self) -> "BoundaryScores":
        """Return the scores of all counts so far."""
        precision, recall = _share_within(self.predicted), _share_within(self.labeled)
        p, r = np.nan_to_num(precision), np.nan_to_num(recall)
        f = 2 * p * r / np.maximum(p + r, np.finfo(float).tiny)
        f[np.isnan(precision) & np.isnan(recall)] = np.nan
        return BoundaryScores(precision, recall, f)


@dataclass(frozen=True)
class BoundaryScores:
    """Fractions in [0, 1] for each class and tolerance; nan where there are no such pixels.

    F is nan only if neither the labels nor the prediction have a boundary of the class.
    """

    precision: Float[np.ndarray, "K 5"]
    recall: Float[np.ndarray, "K 5"]
    f: Float[np.ndarray, "K 5"]

    @property
    def mean_f(self) -> Float[np.ndarray, "5"]:
        """The mean over the classes with a boundary, for each tolerance."""
        defined = self.f[~np.isnan(self.f[:, 0])]
        return defined.mean(0) if len(defined) else np.full(len(TOLERANCES), np.nan)

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """Return F by tolerance, averaged and for each class, as JSON values; nan becomes None."""
        by_class = {
            name: dict(zip(TOLERANCES, row, strict=True)) for name, row in zip(names, self.f.tolist(), strict=True)
        }
        return to_json({"mean": dict(zip(TOLERANCES, self.mean_f.tolist(), strict=True)), "classes": by_class})


def _boundary(ids: Integer[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> Integer[np.ndarray, "H W"]:
    """Return the ids at boundary pixels and 255 elsewhere."""
    edge = np.zeros(ids.shape, bool)
    for first, second in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (ids[first] != ids[second]) & valid[first] & valid[second]
        edge[first] |= differs
        edge[second] |= differs
    return np.where(edge, ids, IGNORE)


def _share_within(counts: Int64[np.ndarray, "K 7"]) -> Float[np.ndarray, "K 5"]:
    with np.errstate(invalid="ignore"):
        return counts.cumsum(1)[:, TOLERANCES] / counts.sum(1, keepdims=True)
