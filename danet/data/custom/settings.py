"""The content of dataset.yaml."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danet.data.classes import Classes, LabelMap
from danet.data.custom.layout import Layout
from danet.data.images.channels import Bands
from danet.data.samples import Pair, PairedFiles

VAL = 0.2
"""The fraction of the images used for validation, if dataset.yaml gives none."""


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
        by_sequence: whether frames of one sequence stay together when that fraction is chosen, and in folds; None:
            dataset.yaml does not say it, as in version 0.1.0, so they do not.
        bands: how images are read.
        upright: whether the EXIF orientation of images is applied; None: dataset.yaml does not say it, so it is.
    """

    classes: Classes
    label_map: LabelMap
    read_mask: Callable[[Path], np.ndarray]
    layout: Layout
    skip_missing: bool
    val: float
    by_sequence: bool | None
    bands: Bands
    upright: bool | None = None

    def samples(self, pairs: Sequence[Pair]) -> PairedFiles:
        """Return the samples of some pairs."""
        upright, by_sequence = self.upright is not False, bool(self.by_sequence)
        return PairedFiles(self.classes, pairs, self.label_map, self.read_mask, self.bands, upright, by_sequence)
