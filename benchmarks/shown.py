"""Weights shown the validation images of CamVid, each image's confusion matrix kept. Used by campaign.py,
without.py and robustness.py.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import nn

import danet
from danet.data import registry
from danet.evaluate.confusion import Confusion
from danet.predict.protocols import WHOLE, Protocol


def loaded(weights: Path, device: str | None = None, off: Sequence[str] = ()) -> danet.Predictor:
    """A predictor. The attention of the modules in `off` is switched off: alpha or beta of Eq. 2 and 4 is 0."""
    predictor = danet.load(weights, device)
    for module in off:
        assert isinstance(predictor.folded, nn.Module)
        predictor.folded.get_parameter(f"{module}.attention.scale").data.zero_()
    return predictor


def matrices(
    weights: Path, camvid: Path, protocol: Protocol = WHOLE, off: Sequence[str] = (), device: str | None = None
) -> tuple[list[str], np.ndarray]:
    """The images' names, and P,K,K int64.

    Args:
        protocol: how the images are shown to the network.
        off: see `loaded`.
    """
    predictor = loaded(weights, device, off)
    samples = registry.load("camvid", camvid, "val")
    names, found = [], []
    for sample, labels, _ in predictor.predictions(samples, protocol):
        confusion = Confusion(len(samples.classes))
        confusion.update(sample.labels, labels)
        names.append(sample.name)
        found.append(confusion.matrix)
    return names, np.array(found)
