"""An OpenVINO model to int8 by a folder of images: NNCF's post-training quantization, no labels, no training.
Command: `danet export W --to openvino --int8 --calibration FOLDER`.

Convolutions compute in int8; their weights are symmetric, a scale a channel, their inputs asymmetric (NNCF's preset
"mixed"). The attention modules' products and softmaxes stay in float32.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from danet.data.images.channels import resize_long_side
from danet.data.images.read import list_images, read_image
from danet.errors import InputError
from danet.model.preprocess import normalize
from danet.weights import runtimes
from danet.weights.file import Card

COUNT = 100
"""Images for calibration; 40 and 200 of CamVid's gave the same score within 0.1 points (docs/log.md)."""


def spaced(folder: Path, count: int, card: Card) -> tuple[Path, ...]:
    """`count` images of a folder, evenly spaced in the order of their names; all if it holds fewer.

    Raises:
        InputError: no such folder, no image in it, a count below 1.
    """
    if count < 1:
        raise InputError("--calibration-count", f"{count} is less than 1", f"give {COUNT}")
    found = list_images(folder, card.bands)
    step = max(1.0, len(found) / count)
    return tuple(found[int(i * step)] for i in range(min(count, len(found))))


def normalized(file: Path, card: Card) -> Float[Tensor, "1 N H W"]:
    """An image as the network is shown it."""
    pixels = resize_long_side(read_image(file, bands=card.bands), card.size)
    return normalize(torch.tensor(pixels)[None], card.mean, card.std)


def quantized(model: Any, card: Card, images: Sequence[Path]) -> Any:
    """An int8 version of an OpenVINO model whose input is `images`.

    Raises:
        InputError: NNCF is missing; images that cannot be read.
    """
    runtimes.openvino("--int8")  # before NNCF, which would take its telemetry from it
    with _silent():
        nncf = runtimes.optional("nncf", "openvino", "--int8")
        data = nncf.Dataset(list(images), lambda file: {"images": normalized(file, card).contiguous().numpy()})
        return nncf.quantize(
            model,
            data,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(types=["MatMul", "Softmax"], validate=False),
        )


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """NNCF prints bars and advice to standard output, and makes torch warn that it found no CUDA."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
