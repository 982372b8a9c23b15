"""Evaluate weights on the validation images of a dataset and return the confusion matrix of each image."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

import danet
from danet.data import registry
from danet.evaluate.confusion import Confusion
from danet.predict.protocols import WHOLE, Protocol


def load_predictor(weights: Path, device: str | None = None, off: Sequence[str] = ()) -> danet.Predictor:
    """Load weights with the attention of the modules in `off` switched off: alpha or beta of Eq. 2 and 4 is 0."""
    predictor = danet.load(weights, device)
    for module in off:
        assert isinstance(predictor.folded, nn.Module)
        predictor.folded.get_parameter(f"{module}.attention.scale").data.zero_()
    return predictor


def confusion_matrices(
    weights: Path,
    dataset: str,
    root: Path,
    protocol: Protocol = WHOLE,
    off: Sequence[str] = (),
    device: str | None = None,
) -> tuple[list[str], np.ndarray]:
    """Return the names of the images, and their confusion matrices P,K,K int64.

    Args:
        weights: of the network.
        dataset: a key of `DATASETS`.
        root: its folder.
        protocol: how images are resized and averaged.
        off: see `load_predictor`.
        device: see `danet.load`.
    """
    predictor = load_predictor(weights, device, off)
    samples = registry.load(dataset, root, "val")
    names, matrices = [], []
    for sample, labels, _ in predictor.predictions(samples, protocol):
        confusion = Confusion(len(samples.classes))
        confusion.update(sample.labels, labels)
        names.append(sample.name)
        matrices.append(confusion.matrix)
    return names, np.array(matrices)
