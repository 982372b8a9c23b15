"""A network and a data set -> scores over full pictures. Command: `danet evaluate W --dataset NAME --root DIR`; `train`
validates by the same function.
"""

from collections.abc import Iterator

import numpy as np
import torch

from danet.data.pairs import Sample, Samples
from danet.errors import InputError
from danet.inference import Logits, segment
from danet.metrics import Confusion
from danet.weights import Card


def check_classes(card: Card, samples: Samples, source: str) -> None:
    """A network's numbers mean nothing on a data set of other classes.

    Raises:
        InputError: the classes are not the same, by number or by name.
    """
    ours, theirs = card.classes.names, samples.classes.names
    if ours != theirs:
        different = next(
            (f"class {i} is {a!r}, not {b!r}" for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), ""
        )
        what = different or f"the network has {len(ours)} classes, the data set {len(theirs)}"
        raise InputError(source, what, "evaluate on the data set it was trained for")


def predictions(
    logits: Logits, card: Card, samples: Samples, device: torch.device, indices: range
) -> Iterator[tuple[Sample, np.ndarray]]:
    """Each sample with its prediction, H,W uint8 train ids at the picture's own size."""
    for index in indices:
        sample = samples[index]
        labels, _ = segment(logits, sample.image, card.mean, card.std, device, card.size)
        yield sample, labels


def evaluate(
    logits: Logits, card: Card, samples: Samples, device: torch.device, indices: range | None = None
) -> Confusion:
    """The confusion matrix over whole pictures, each once; `indices` for a part of the samples."""
    confusion = Confusion(len(samples.classes))
    for sample, labels in predictions(
        logits, card, samples, device, range(len(samples)) if indices is None else indices
    ):
        confusion.update(sample.labels, labels)
    return confusion
