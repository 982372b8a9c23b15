"""Quantize an OpenVINO model to int8 with NNCF: post-training quantization, calibrated on a folder of images.

Command: `danet export W --to openvino --int8 --calibration FOLDER`. No labels and no training are needed. Convolutions
compute in int8, with symmetric weights (one scale per channel) and asymmetric inputs (NNCF's preset "mixed"). The
products and softmaxes of the attention modules stay in float32.
"""

from collections.abc import Sequence
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

CALIBRATION_COUNT = 100
"""The default number of calibration images; 40 and 200 of CamVid's gave the same mIoU within 0.1 (docs/log.md)."""


def calibration_images(folder: Path, count: int, card: Card) -> tuple[Path, ...]:
    """Return `count` images of a folder, evenly spaced in the order of their names; all if there are fewer.

    Raises:
        InputError: no such folder, no images in it, or a count below 1.
    """
    if count < 1:
        raise InputError(
            "calibration_count", f"must be at least 1, got {count}", f"for example, use {CALIBRATION_COUNT}"
        )
    images = list_images(folder, card.bands)
    step = max(1.0, len(images) / count)
    return tuple(images[int(i * step)] for i in range(min(count, len(images))))


def load_normalized(file: Path, card: Card) -> Float[Tensor, "1 N H W"]:
    """Read an image, and resize and normalize it as the card says."""
    pixels = resize_long_side(read_image(file, bands=card.bands), card.size)
    return normalize(torch.tensor(pixels)[None], card.mean, card.std)


def quantize(model: Any, card: Card, images: Sequence[Path]) -> Any:
    """Return an int8 version of an OpenVINO model with the input `images`, calibrated on these files.

    Raises:
        InputError: NNCF is not installed, or an image cannot be read.
    """
    runtimes.import_openvino("int8")  # before NNCF, which sends telemetry if OpenVINO's package for it is found
    with runtimes.silence():
        nncf = runtimes.import_optional("nncf", "openvino", "int8")
        data = nncf.Dataset(list(images), lambda file: {"images": load_normalized(file, card).contiguous().numpy()})
        return nncf.quantize(
            model,
            data,
            preset=nncf.QuantizationPreset.MIXED,
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(types=["MatMul", "Softmax"], validate=False),
        )
