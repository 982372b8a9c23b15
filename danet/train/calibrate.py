"""Temperature scaling: confidences that fit the validation images.

All logits are divided by one number, which changes no label of a single view. The division is part of the weights, so
that exported graphs have it too. Source: Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017), Section
4.2.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager

import torch
from torch import nn

UNCALIBRATED = "fcn8s", "ocrnet"
"""Architectures in which other layers follow those that output classes, so that dividing those would not do."""


@contextmanager
def divided_logits(network: nn.Module, layers: Collection[str], temperature: float) -> Iterator[None]:
    """Divide the logits of a network within the block.

    Args:
        network: of any architecture but those in `UNCALIBRATED`.
        layers: the keys of the tensors of the layers that output classes, weights and biases.
        temperature: the divisor.
    """
    tensors = [tensor for key, tensor in network.state_dict().items() if key in layers]
    kept = [tensor.clone() for tensor in tensors]
    with torch.no_grad():
        try:
            for tensor in tensors:
                tensor /= temperature
            yield
        finally:
            for tensor, before in zip(tensors, kept, strict=True):
                tensor.copy_(before)
