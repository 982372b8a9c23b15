"""The folders of a user's images and masks, as dataset.yaml names them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from danet.data.images.channels import RGB, Bands
from danet.data.images.read import ARRAYS, SUFFIXES, list_images
from danet.data.samples import SAME_STEM, Naming
from danet.errors import InputError

SPLITS = ("train", "val")
PLACEHOLDER = "{split}"
"""Replaced by the name of the split's folder."""


class Folders(NamedTuple):
    """A folder of images and the folder of their masks, which may be the same."""

    images: Path
    masks: Path


@dataclass(frozen=True)
class Layout:
    """The layout of a user's folder.

    Args:
        root: the user's folder.
        images: folder of the images, relative to `root`. "{split}" is replaced by the name of the split's folder.
            Without it, the folder contains either one folder per split or the images of all splits.
        masks: folder of the masks, likewise.
        naming: how masks are named after their images.
        splits: "train" and "val" -> the names of their folders.
    """

    root: Path
    images: str = "images"
    masks: str = "masks"
    naming: Naming = SAME_STEM
    splits: Mapping[str, str] = field(default_factory=lambda: {split: split for split in SPLITS})

    def split_folders(self, split: str) -> Folders | None:
        """Return the folders of one split, or None if the images are not divided into splits.

        If the images are divided but the masks are not, all splits share the folder of the masks.
        """
        name = self.splits.get(split, split)
        names = {name, *self.splits.values()}
        if PLACEHOLDER not in self.images and not any(holds_images(self._folder(self.images, each)) for each in names):
            return None
        masks, all_masks = self._folder(self.masks, name), self.root / self.masks
        if not masks.is_dir() and PLACEHOLDER not in self.masks and holds_images(all_masks):
            masks = all_masks
        return Folders(self._folder(self.images, name), masks)

    @property
    def undivided_folders(self) -> Folders:
        """The folders of images that are not divided into splits.

        Raises:
            InputError: the masks are divided.
        """
        if PLACEHOLDER in self.masks:
            what = f"masks: {self.masks} has train and val folders, but the images have none"
            raise InputError(self.root / "dataset.yaml", what, f"add {PLACEHOLDER} to images, or remove it from masks")
        return Folders(self.root / self.images, self.root / self.masks)

    def folders(self) -> list[Folders]:
        """Return the folders of all splits, each once.

        Raises:
            InputError: see `undivided_folders`.
        """
        splits = self.splits or SPLITS
        return list(dict.fromkeys(self.split_folders(split) or self.undivided_folders for split in splits))

    def _folder(self, pattern: str, name: str) -> Path:
        return self.root / pattern.replace(PLACEHOLDER, name) if PLACEHOLDER in pattern else self.root / pattern / name


def list_layout_images(folders: Folders, naming: Naming, bands: Bands = RGB) -> list[Path]:
    """List the images in a folder, without the masks if these are in the same folder.

    Raises:
        InputError: see `list_images`; or the folder contains only masks.
    """
    files = list_images(folders.images, bands)
    if folders.images != folders.masks:
        return files
    if images := [file for file in files if not naming.is_mask(file)]:
        return images
    what = f"contains only masks (*{naming.mask_suffix}), no images"
    raise InputError(folders.images, what, "add the images, or correct mask_suffix in dataset.yaml")


def image_files_or_arrays(folder: Path) -> list[Path]:
    """List the image files in a folder, or its arrays if there are no image files.

    Raises:
        InputError: no such folder.
    """
    return image_files(folder) or sorted(p for p in folder.iterdir() if p.suffix.lower() in ARRAYS)


def image_files(folder: Path) -> list[Path]:
    """List the files in a folder with the suffix of an image: images, masks or both.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "create it, with the masks of the images")
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def holds_images(folder: Path) -> bool:
    """Return whether a folder exists and contains an image or an array."""
    return folder.is_dir() and any(
        not file.name.startswith(".") and file.suffix.lower() in SUFFIXES + ARRAYS for file in folder.iterdir()
    )
