"""Boundary F: how well the borders between classes are placed, within 1 to 5 pixels.

After Csurka et al., "What is a good evaluation measure for semantic segmentation?" (BMVC 2013). A boundary pixel of
class c is a pixel of c that has a 4-neighbor of another class. Neighbors of which one is ignored (255) make no
boundary, in the labels as in the prediction, and neither does the image's frame. Within d pixels, for each class,

    precision = share of the predicted boundary pixels that lie at most d from a labeled boundary pixel of the class
    recall    = share of the labeled boundary pixels that lie at most d from a predicted one
    F         = 2 precision recall / (precision + recall)

with Euclidean distances between the centers of pixels. Csurka et al. take 0.75 % of the diagonal as d and average F
over images; here d is in pixels, and the counts are summed over all images before anything is divided, as those of
IoU are: they are integers, and a class that an image lacks needs no rule.

Where the masks hide every border under ignored pixels (PASCAL VOC), only borders drawn elsewhere are left to judge.
"""

from dataclasses import dataclass, field
from math import ceil, hypot
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64, Integer

from danet.data.classes import IGNORE
from danet.evaluate.absent import plain

TOLERANCES = (1, 2, 3, 4, 5)
"""The distances, in pixels, within which a boundary counts as found."""

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
    """Counts of boundary pixels over any number of images: row = class, column = the tolerance, 0 to 5 pixels, that a
    pixel needs to be matched; the last column: not matched by 5.
    """

    num_classes: int
    predicted: Int64[np.ndarray, "K 7"] = field(init=False)
    labeled: Int64[np.ndarray, "K 7"] = field(init=False)

    def __post_init__(self):
        self.predicted, self.labeled = np.zeros((2, self.num_classes, _REACH + 2), np.int64)

    def update(self, labels: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"]) -> None:
        """Add one whole image: train ids, labels with 255 = ignored."""
        valid = labels != IGNORE
        true, found = _boundary(labels, valid), _boundary(prediction, valid)
        self.predicted += self._matched(found, true)
        self.labeled += self._matched(true, found)

    def _matched(self, ours: Integer[np.ndarray, "H W"], theirs: Integer[np.ndarray, "H W"]) -> np.ndarray:
        y, x = np.nonzero(ours != IGNORE)
        classes, around = ours[y, x], np.pad(theirs, _REACH, constant_values=IGNORE)
        needed = np.full(len(classes), _REACH + 1)
        for distance, dy, dx in _OFFSETS:  # far to near
            needed[around[y + (_REACH + dy), x + (_REACH + dx)] == classes] = distance
        bins = classes.astype(np.int64) * (_REACH + 2) + needed
        return np.bincount(bins, minlength=self.predicted.size).reshape(self.predicted.shape)

    def merge(self, other: "Boundary") -> None:
        """Add another's images."""
        self.predicted += other.predicted
        self.labeled += other.labeled

    def scores(self) -> "BoundaryScores":
        """The scores of everything counted so far."""
        precision, recall = _share_within(self.predicted), _share_within(self.labeled)
        p, r = np.nan_to_num(precision), np.nan_to_num(recall)
        f = 2 * p * r / np.maximum(p + r, np.finfo(float).tiny)
        f[np.isnan(precision) & np.isnan(recall)] = np.nan
        return BoundaryScores(precision, recall, f)


@dataclass(frozen=True)
class BoundaryScores:
    """Fractions in [0, 1] by class and tolerance. nan: no such pixels; F is nan only where neither labels nor
    prediction have a boundary of the class.
    """

    precision: Float[np.ndarray, "K 5"]
    recall: Float[np.ndarray, "K 5"]
    f: Float[np.ndarray, "K 5"]

    @property
    def mean_f(self) -> Float[np.ndarray, "5"]:
        """By tolerance, the mean over the classes that have one."""
        there = self.f[~np.isnan(self.f[:, 0])]
        return there.mean(0) if len(there) else np.full(len(TOLERANCES), np.nan)

    def as_dict(self, names: tuple[str, ...]) -> dict[str, Any]:
        """For JSON: F by tolerance in pixels, its mean and that of each class; nan becomes None."""
        by_class = {
            name: dict(zip(TOLERANCES, row, strict=True)) for name, row in zip(names, self.f.tolist(), strict=True)
        }
        return plain({"mean": dict(zip(TOLERANCES, self.mean_f.tolist(), strict=True)), "classes": by_class})


def _boundary(ids: Integer[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> Integer[np.ndarray, "H W"]:
    """The ids where there is a boundary, 255 elsewhere."""
    edge = np.zeros(ids.shape, bool)
    for here, there in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        crossed = (ids[here] != ids[there]) & valid[here] & valid[there]
        edge[here] |= crossed
        edge[there] |= crossed
    return np.where(edge, ids, IGNORE)


def _share_within(counts: Int64[np.ndarray, "K 7"]) -> Float[np.ndarray, "K 5"]:
    with np.errstate(invalid="ignore"):
        return counts.cumsum(1)[:, TOLERANCES] / counts.sum(1, keepdims=True)
