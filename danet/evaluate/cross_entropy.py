"""The cross-entropy of predictions over full images: the validation loss, and the temperature that minimizes it."""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import Tensor

from danet.data.classes import IGNORE

TEMPERATURES = tuple(2 ** (i / 8) for i in range(-8, 17))
"""Temperatures between which the best one is sought: from 0.5 to 4."""

_STEP = 4  # neighboring pixels say the same about the temperature


class CrossEntropy:
    """Sums over the labeled pixels of images, or of parts of them.

    Args:
        temperatures: ascending, by which logits are divided to find the best one; empty: none is sought.
    """

    def __init__(self, temperatures: Sequence[float] = ()):
        self.temperatures = tuple(temperatures)
        self.sums = torch.zeros(2 + len(self.temperatures), dtype=torch.float64)
        """The cross-entropy, to base e; the pixels; for each temperature, the cross-entropy of some of the pixels."""

    def update(self, logits: Float[Tensor, "K n m"], labels: Integer[ndarray, "n m"]) -> None:
        """Add a part of an image; labels are train ids, and pixels labeled 255 are ignored."""
        target = torch.tensor(labels, dtype=torch.int64, device=logits.device)
        some, some_targets = logits[:, ::_STEP, ::_STEP], target[::_STEP, ::_STEP]
        sums = [_sum(logits, target), *(_sum(some / value, some_targets) for value in self.temperatures)]
        self.sums[1] += int((labels != IGNORE).sum())
        self.sums[[0, *range(2, len(self.sums))]] += torch.stack(sums).cpu().double()

    @property
    def mean(self) -> float:
        """The mean over the labeled pixels; nan if there are none."""
        total, pixels = self.sums[:2].tolist()
        return total / pixels if pixels else math.nan

    @property
    def temperature(self) -> float:
        """The temperature with the least cross-entropy, between the given ones; 1 if all are alike.

        Source: temperature scaling, Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), Section 4.2.
        """
        sums = self.sums[2:].numpy()
        if not self.temperatures or not np.isfinite(sums).all() or sums.min() == sums.max():
            return 1.0
        best = int(np.argmin(sums))
        if best in (0, len(sums) - 1):
            return self.temperatures[best]
        nearest = slice(best - 1, best + 2)
        a, b, _ = np.polyfit(np.log(self.temperatures[nearest]) - math.log(self.temperatures[best]), sums[nearest], 2)
        return self.temperatures[best] * math.exp(-b / (2 * a))


def _sum(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits[None], target[None], ignore_index=IGNORE, reduction="sum")
