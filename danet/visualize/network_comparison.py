"""Predictions of separately trained networks side by side, as in the paper's Figures 4 and 5.

Used by `danet look IMAGES --weights A B`. Networks with the same classes can be compared, also an FCN or a baseline.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from danet.data.classes import IGNORE
from danet.errors import InputError
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation
from danet.visualize.ground_truth import Effect, GroundTruth, effect, share
from danet.visualize.panels import GAP, Panel, PanelGroup, Sheet, labeled, legend, name_of, photo

_WIDTH = 420
"""Of a panel, in pixels."""


class Prediction(NamedTuple):
    """The prediction of one network.

    Args:
        network: its name.
        segmentation: the prediction.
        accuracy: share of the labeled pixels that are right; None: no ground truth.
        effect: what changes from the first network to this one; None for the first.
    """

    network: str
    segmentation: Segmentation
    accuracy: float | None
    effect: Effect | None


class Comparison(NamedTuple):
    """An image, its prediction by each network, and its ground truth, if given, as train ids."""

    predictions: list[Prediction]
    truth: UInt8[np.ndarray, "H W"] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers for JSON."""
        first = self.predictions[0].segmentation
        networks = [
            {"network": one.network}
            | ({} if one.accuracy is None else {"accuracy": one.accuracy})
            | ({} if one.effect is None else one.effect.as_dict())
            for one in self.predictions
        ]
        height, width = first.labels.shape
        return {"name": first.name, "width": width, "height": height, "networks": networks}


def distinct_names(paths: Sequence[Path], parameter: str) -> list[str]:
    """Return a short name for each file or folder: its stem, with as many folders as tell them apart.

    If they do not, the suffix is added.

    Args:
        paths: weights files, or run folders.
        parameter: the user's parameter with these paths, for messages.

    Raises:
        InputError: one is given twice.
    """
    whole = [path.parts for path in paths]
    for files in ([(*parts[:-1], path.stem) for path, parts in zip(paths, whole, strict=True)], whole):
        for count in range(1, max(map(len, files)) + 1):
            names = ["/".join(parts[-count:]) for parts in files]
            if len(set(names)) == len(names):
                return names
    raise InputError(parameter, f"{max(paths, key=paths.count)} is given twice", "leave it out once")


def compare(
    predictors: Mapping[str, Predictor], images: Sequence[Path], truths: Sequence[GroundTruth] = ()
) -> list[Comparison]:
    """Segment each image by each network.

    Args:
        predictors: the networks by their names. Changes are those from the first.
        images: files.
        truths: the ground truth of each image, or none.

    Raises:
        InputError: networks with different classes, an unreadable image, or see `GroundTruth`.
    """
    first, *others = predictors.items()
    for name, predictor in others:
        if predictor.classes.names != first[1].classes.names:
            what = f"{name} does not have the classes of {first[0]}"
            raise InputError("weights", what, "compare networks that were trained on the same dataset")
    comparisons = []
    for image, read in zip(images, truths or [None] * len(images), strict=True):
        segmentations = {name: predictor(image) for name, predictor in predictors.items()}
        before = segmentations[first[0]]
        truth = None if read is None else read(before)
        predictions = [
            Prediction(name, one, _accuracy(one, truth), None if one is before else effect(before, one, truth))
            for name, one in segmentations.items()
        ]
        comparisons.append(Comparison(predictions, truth))
    return comparisons


def sheet(comparisons: Sequence[Comparison]) -> Sheet:
    """Return one row per image: the image, the prediction of each network, and the ground truth."""
    rows = [_row(one) for one in comparisons]
    maps = [labels for one in comparisons for labels in (*(p.segmentation.labels for p in one.predictions), one.truth)]
    first = comparisons[0].predictions
    rows.append(
        PanelGroup("Classes", [], legend(first[0].segmentation, maps), f"Changes are those from {first[0].network}.")
    )
    columns = max(len(row.panels) for row in rows)
    return Sheet(" and ".join(one.network for one in first), rows, _WIDTH * columns + GAP * (columns - 1))


def _row(comparison: Comparison) -> PanelGroup:
    first = comparison.predictions[0].segmentation
    panels = [Panel("image", photo(first, _WIDTH))]
    for one in comparison.predictions:
        notes = [] if one.accuracy is None else [f"{one.accuracy:.2%} right"]
        notes += [] if one.effect is None else [one.effect.describe()]
        panels.append(Panel(one.network, labeled(first, one.segmentation.labels, _WIDTH), "; ".join(notes)))
    if comparison.truth is not None:
        panels.append(Panel("ground truth", labeled(first, comparison.truth, _WIDTH)))
    return PanelGroup(name_of(first), panels)


def _accuracy(segmentation: Segmentation, truth: UInt8[np.ndarray, "H W"] | None) -> float | None:
    return None if truth is None else share(segmentation.labels == truth, truth != IGNORE)
