"""The content of dataset.yaml."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danet.data.classes import Classes, LabelMap
from danet.data.custom.layout import Layout
from danet.data.images.channels import Bands


@dataclass(frozen=True)
class Settings:
    """The content of dataset.yaml.

    Args:
        classes: names and palette.
        label_map: mask value -> train id.
        read_mask: reads a mask as H,W integers.
        layout: the folders.
        skip_missing: whether images without a mask are left out; otherwise they are errors.
        val: fraction of the images used for validation if the folder is not divided.
        bands: how images are read.
    """

    classes: Classes
    label_map: LabelMap
    read_mask: Callable[[Path], np.ndarray]
    layout: Layout
    skip_missing: bool
    val: float
    bands: Bands
