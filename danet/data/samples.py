"""Samples from files: images paired with their masks. What every dataset on disk is made of."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from danet.data.classes import Classes, LabelMap
from danet.data.images.channels import RGB, Bands
from danet.data.images.read import read_image, read_mask
from danet.data.naming import SAME_STEM, Naming
from danet.errors import InputError


class Sample(NamedTuple):
    """One image with its labels: image H,W,N (RGB as a rule) uint8, or float32 of deeper files, 255 being white;
    labels H,W uint8 train ids, 255 = ignore.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray


@runtime_checkable
class Samples(Protocol):
    """What training and evaluation need of a dataset; the same index gives the same sample, always."""

    @property
    def classes(self) -> Classes: ...
    @property
    def bands(self) -> Bands: ...
    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...
    def labels(self, index: int) -> np.ndarray:
        """The sample's labels alone, sparing its image."""
        ...


@dataclass(frozen=True)
class Pair:
    """A sample's name (unique in its set) and its two files."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairedFiles:
    """A dataset on disk: `Samples` read from an image and a mask file each."""

    classes: Classes
    pairs: Sequence[Pair]
    label_map: LabelMap
    read_mask: Callable[[Path], np.ndarray] = read_mask
    bands: Bands = RGB

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_image(pair.image, bands=self.bands)
        mask = self.read_mask(pair.mask)
        if mask.shape != image.shape[:2]:
            raise InputError(pair.mask, _size_mismatch(image, mask), "make both of one size, pixel on pixel")
        return Sample(pair.name, image, self.label_map.apply(mask, pair.mask))

    def labels(self, index: int) -> np.ndarray:
        """H,W uint8 train ids, the image left unread."""
        mask = self.pairs[index].mask
        return self.label_map.apply(self.read_mask(mask), mask)


def pair_files(
    images: Sequence[Path], masks: Path, folder: Path, naming: Naming = SAME_STEM, complete: bool = True
) -> list[Pair]:
    """Each image with its mask in the folder `masks`, named by its stem; unless `complete` also where there is none.

    Raises:
        InputError: images without a mask (up to ten named), or two images of one stem or mask.
    """
    by_mask: dict[str, Path] = {}
    for image in images:
        if (other := by_mask.setdefault(naming.mask_of(image), image)) is not image:
            shared = "stem" if other.stem == image.stem else "mask"
            raise InputError(image, f"has the same {shared} as {other.name}", "rename one of them")
    pairs = [Pair(image.stem, image, masks / name) for name, image in by_mask.items()]
    missing = [pair.mask.name for pair in pairs if not pair.mask.is_file()]
    if missing and complete:
        shown = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        raise InputError(
            masks,
            f"{len(missing)} of {len(pairs)} masks are missing: {shown}",
            f"add them, or remove the images from {folder}",
        )
    return pairs


def _size_mismatch(image: np.ndarray, mask: np.ndarray) -> str:
    height, width = image.shape[:2]
    text = f"mask of {mask.shape[1]} x {mask.shape[0]} pixels for an image of {width} x {height}"
    return text + (" (the image is turned by its EXIF orientation)" if mask.shape == (width, height) else "")
