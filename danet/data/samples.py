"""Samples on disk: how masks are named after images, the lists of a split, and image-mask pairs read as samples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from danet.data.classes import Classes, LabelMap
from danet.data.images.channels import RGB, Bands
from danet.data.images.pillow import SWAPPING
from danet.data.images.read import read_header, read_image, read_mask
from danet.data.naming import SAME_STEM, Naming, match_masks
from danet.errors import InputError, list_names
from danet.files import read_limited
from danet.text import decode_text

_LIST_BYTES = 64 << 20


class Sample(NamedTuple):
    """An image with its labels.

    Args:
        name: unique in its dataset.
        image: H,W,N, RGB by default: uint8, or float32 with 255 as white if the file has more than 8 bits.
        labels: H,W uint8 train ids; 255 = ignore.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray


@runtime_checkable
class Samples(Protocol):
    """What training and evaluation need from a dataset. An index always gives the same sample."""

    @property
    def classes(self) -> Classes:
        """The classes of the labels."""
        ...

    @property
    def bands(self) -> Bands:
        """How the images are read."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, index: int) -> Sample: ...

    def labels(self, index: int) -> np.ndarray:
        """Return the labels of a sample without reading its image."""
        ...


@dataclass(frozen=True)
class Pair:
    """The files of a sample, and its name, which is unique in its dataset."""

    name: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class PairedFiles:
    """A dataset on disk: `Samples` with one image file and one mask file each.

    Args:
        classes: the classes of the labels.
        pairs: the files.
        label_map: mask value -> train id.
        read_mask: reads a mask as H,W integers.
        bands: how the images are read.
        upright: whether the EXIF orientation of the images is applied; that of masks never is.
        by_sequence: whether images whose names differ only in their last number are frames of one sequence, which
            stay together in a fold.
    """

    classes: Classes
    pairs: Sequence[Pair]
    label_map: LabelMap
    read_mask: Callable[[Path], np.ndarray] = read_mask
    bands: Bands = RGB
    upright: bool = True
    by_sequence: bool = False

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        pair = self.pairs[index]
        image = read_image(pair.image, bands=self.bands, upright=self.upright)
        mask = self.read_mask(pair.mask)
        if mask.shape != image.shape[:2]:
            raise _size_mismatch(pair, image, mask)
        return Sample(pair.name, image, self.label_map.apply(mask, pair.mask))

    def labels(self, index: int) -> np.ndarray:
        """Return the H,W uint8 train ids of a sample without reading its image."""
        mask = self.pairs[index].mask
        return self.label_map.apply(self.read_mask(mask), mask)


def pair_files(
    images: Sequence[Path], masks: Path, source: Path, naming: Naming = SAME_STEM, complete: bool = True
) -> list[Pair]:
    """Pair each image with its mask.

    Args:
        images: the images.
        masks: the folder of the masks.
        source: the folder or list that the images come from, for messages.
        naming: how the masks are named.
        complete: if False, also return pairs whose mask does not exist.

    Raises:
        InputError: images without a mask (up to ten are named); two images with the same stem or mask.
    """
    by_mask: dict[Path, Path] = {}
    matched = match_masks(images, masks, naming)
    for image in images:
        if (other := by_mask.setdefault(matched[image], image)) is not image:
            shared = "stem" if other.stem == image.stem else "mask"
            raise InputError(image, f"has the same {shared} as {other.name}", "rename one of them")
    pairs = [Pair(image.stem, image, mask) for image, mask in matched.items()]
    missing = [pair.mask.name for pair in pairs if not pair.mask.is_file()]
    if missing and complete:
        what = f"{len(missing)} of {len(pairs)} masks are missing: {list_names(missing)}"
        raise InputError(masks, what, f"add them, or remove the images from {source}")
    return pairs


def root_remedy(contents: str, split: str, splits: Iterable[str]) -> str:
    """Return what to do if a split of a public dataset is not found: correct the root, or an unknown split.

    Args:
        contents: what the root contains.
        split: the split.
        splits: the known splits.
    """
    known = tuple(splits)
    other = "" if split in known else f", and `split` to one of {', '.join(known)}"
    return f"set `root` to the folder that contains {contents}{other}"


def read_list(file: Path, remedy: str) -> list[str]:
    """Read the list of a split: one image stem per line.

    Raises:
        InputError: the list cannot be read; with this remedy.
    """
    try:
        return decode_text(read_limited(file, _LIST_BYTES), "replace").split()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", remedy) from error
    except ValueError as error:
        raise InputError(file, str(error), remedy) from error


def listed_images(folder: Path, stems: Sequence[str], source: Path, complete: bool = True) -> list[Path]:
    """Return the JPEG files of all stems.

    Args:
        folder: the folder of the images.
        stems: file names without suffix.
        source: the list that the stems come from, for messages.
        complete: if False, also return paths that do not exist.

    Raises:
        InputError: no stems; images are missing (up to ten are named).
    """
    if not stems:
        raise InputError(source, "lists no images", "copy it again")
    images = [folder / f"{stem}.jpg" for stem in stems]
    missing = [image.name for image in images if not image.is_file()]
    if missing and complete:
        what = f"{len(missing)} of {len(images)} images are missing: {list_names(missing)}"
        raise InputError(folder, what, f"add them, or remove them from {source}")
    return images


def _size_mismatch(pair: Pair, image: np.ndarray, mask: np.ndarray) -> InputError:
    height, width = image.shape[:2]
    what = f"mask of {mask.shape[1]} x {mask.shape[0]} pixels for an image of {width} x {height}"
    orientation = read_header(pair.image).orientation
    if mask.shape != (width, height) or orientation not in SWAPPING:
        return InputError(pair.mask, what, "make both the same size")
    what += f" (the image has EXIF orientation {orientation})"
    return InputError(pair.mask, what, "turn the mask, or set exif in dataset.yaml to apply or ignore")
