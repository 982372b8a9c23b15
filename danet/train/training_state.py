"""What a run has come to, beside its tensors: a checkpoint keeps it. Used by `train.loop`."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from danet.evaluate.confusion import Confusion


@dataclass
class Course:
    """The fields are the checkpoint's entries.

    Args:
        best: the best validation mIoU so far, nan before the first.
        history: the rows of metrics.csv, one a validation.
        losses: of each step since the last validation, by name.
        class_weights: of the loss, one a class; None: all are 1.
        images: training images when the run began; the order of all steps follows from it. None: not noted then.
    """

    best: float = math.nan
    history: list[dict[str, Any]] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    class_weights: Sequence[float] | None = None
    images: int | None = None

    @classmethod
    def resumed(cls, state: dict[str, Any]) -> "Course":
        """Of a checkpoint."""
        return cls(**{name: state[name] for name in cls.__dataclass_fields__ if name in state})

    def validated(self, step: int) -> bool:
        """Whether the last validation was that of this step."""
        return bool(self.history) and self.history[-1]["step"] == step

    def add(
        self,
        step: int,
        epoch: int,
        rate: float,
        confusion: Confusion,
        network: nn.Module,
        speed: dict[str, float],
    ) -> bool:
        """Take in a validation: its row has the means of the losses since the last one, the scores, and the modules'
        scales (alpha and beta). Returns whether none was better.
        """
        scores = confusion.scores()
        means = {f"loss_{name}": sum(loss[name] for loss in self.losses) / len(self.losses) for name in self.losses[0]}
        scales = {
            name.split(".")[0] + "_scale": p.item()
            for name, p in network.named_parameters()
            if name.endswith("attention.scale")
        }
        judged = {
            "miou": scores.miou,
            "pixel_accuracy": scores.pixel_accuracy,
            "mean_accuracy": scores.mean_accuracy,
        }
        self.history.append({"step": step, "epoch": epoch, "lr": rate} | means | scales | judged | speed)
        self.losses = []
        better = not scores.miou <= self.best
        self.best = scores.miou if math.isnan(self.best) else max(self.best, scores.miou)
        return better
