"""The cross-entropy of predictions over full images: the validation loss."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Integer
from numpy import ndarray
from torch import Tensor

from danet.data.classes import IGNORE


@dataclass
class CrossEntropy:
    """The sum over the labeled pixels of images, or of parts of them.

    Args:
        total: the sum of the pixels' cross-entropies, to base e.
        pixels: their number.
    """

    total: float = 0.0
    pixels: int = 0

    def update(self, logits: Float[Tensor, "K n m"], labels: Integer[ndarray, "n m"]) -> None:
        """Add a part of an image; labels are train ids, and pixels labeled 255 are ignored."""
        target = torch.tensor(labels, dtype=torch.int64, device=logits.device)
        self.total += F.cross_entropy(logits[None], target[None], ignore_index=IGNORE, reduction="sum").item()
        self.pixels += int((labels != IGNORE).sum())

    @property
    def mean(self) -> float:
        """The mean over the labeled pixels; nan if there are none."""
        return self.total / self.pixels if self.pixels else math.nan
