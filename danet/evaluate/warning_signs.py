"""What in the results of a training run should worry its user. Commands: `danet train`, and the report of a run."""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from danet.data.classes import Classes
from danet.errors import list_names
from danet.evaluate.confusion import Confusion
from danet.recipes import Recipe

_SHOWN = 5
_VALIDATIONS, _RISE = 3, 1.2  # after the lowest validation loss, and the factor above it, before it counts as rising
_RARE = 0.1  # of the share that each class would have if all were equally frequent


def warning_signs(
    recipe: Recipe, classes: Classes, confusion: Confusion, history: Sequence[Mapping[str, float]]
) -> list[str]:
    """Return a line for each problem: what is wrong, with the number, and what to do; parameters are in backticks.

    Args:
        recipe: of the run.
        classes: of the dataset.
        confusion: of the validation images.
        history: the rows of metrics.csv.
    """
    if not confusion.matrix.any():
        return ["no validation image has labeled pixels, so there are no scores; run danet check"]
    signs = (_no_better_than_one_class(classes, confusion), _never_predicted(recipe, classes, confusion))
    return [line for sign in (*signs, _imbalance(recipe, classes, confusion), _rising_loss(history)) for line in sign]


def _no_better_than_one_class(classes: Classes, confusion: Confusion) -> Iterator[str]:
    """Compare with the mIoU of predicting the most frequent class everywhere."""
    labeled = confusion.matrix.sum(1)
    present, largest = int((labeled > 0).sum()), int(labeled.argmax())
    alone, miou = labeled[largest] / labeled.sum() / present, confusion.scores().miou
    if present > 1 and miou <= alone:
        yield (
            f"mIoU {miou:.1%} is no better than predicting {classes.names[largest]} for every pixel ({alone:.1%}): the "
            f"network has learned nothing yet; train longer, or change `optim.lr`"
        )


def _never_predicted(recipe: Recipe, classes: Classes, confusion: Confusion) -> Iterator[str]:
    labeled, predicted = confusion.matrix.sum(1), confusion.matrix.sum(0)
    missing = [classes.names[i] for i in np.flatnonzero((labeled > 0) & (predicted == 0))]
    if missing:
        remedies = ["train longer"]
        remedies += ["set `class_weights` to auto"] if recipe.class_weights == "none" else []
        remedies += ["set `data.rare` to 0.5"] if not recipe.data.rare else []
        yield (
            f"never predicted, IoU 0: {list_names(missing, _SHOWN)} ({len(missing)} of {int((labeled > 0).sum())} "
            f"classes in the validation images); {', or '.join(remedies)}"
        )


def _imbalance(recipe: Recipe, classes: Classes, confusion: Confusion) -> Iterator[str]:
    """Name rare classes if the loss counts every pixel the same."""
    criterion = recipe.criterion
    if recipe.class_weights != "none" or criterion.pixel == "focal" or criterion.dice or criterion.lovasz:
        return
    labeled = confusion.matrix.sum(1)
    present = np.flatnonzero(labeled)
    rare = [i for i in present[np.argsort(labeled[present])] if labeled[i] / labeled.sum() < _RARE / len(present)]
    if rare:
        shares = list_names([f"{classes.names[i]} {labeled[i] / labeled.sum():.2%}" for i in rare], _SHOWN)
        yield (
            f"strong imbalance, share of the labeled pixels: {shares}; judge these classes by their own IoU, and set "
            f"`class_weights` to auto or `criterion.dice` to 1"
        )


def _rising_loss(history: Sequence[Mapping[str, float]]) -> Iterator[str]:
    measured = [row for row in history if math.isfinite(row.get("validation_loss", math.nan))]
    if not measured:
        return
    losses = [row["validation_loss"] for row in measured]
    lowest = int(np.argmin(losses))
    if len(losses) - 1 - lowest >= _VALIDATIONS and losses[-1] > _RISE * losses[lowest]:
        yield (
            f"the validation loss rises: {losses[lowest]:.3f} in epoch {measured[lowest]['epoch']:.0f}, "
            f"{losses[-1]:.3f} in epoch {measured[-1]['epoch']:.0f}: the network overfits; train fewer epochs, or add "
            f"images or augmentation"
        )
