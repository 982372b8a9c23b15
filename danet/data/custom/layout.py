"""The folders of a user's images and masks, as dataset.yaml names them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from danet.data.images.channels import RGB, Bands
from danet.data.images.formats import SUFFIXES
from danet.data.images.read import ARRAYS, list_images
from danet.data.images.results import is_label_map, is_result
from danet.data.naming import SAME_STEM, Naming
from danet.errors import InputError

SPLITS = ("train", "val")
SPLIT_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""What the splits are called in users' folders and lists."""

PLACEHOLDER = "{split}"
"""Replaced by the name of the split's folder."""

STAR = "*"
"""Matches any text in a folder's name. The n-th * of `masks` is what the n-th * of `images` matches."""


class Folders(NamedTuple):
    """A folder of images and the folder of their masks, which may be the same.

    Args:
        images: the folder of the images.
        masks: the folder of the masks.
        part: what the * of the layout match, joined with /; distinguishes several folders of a split.
    """

    images: Path
    masks: Path
    part: str = ""

    def name_of(self, image: Path) -> str:
        """Return the name of an image in this folder, unique in its dataset."""
        return f"{self.part}/{image.stem}" if self.part else image.stem


@dataclass(frozen=True)
class Layout:
    """The layout of a user's folder.

    Args:
        root: the user's folder.
        images: folder of the images, relative to `root`. "{split}" is replaced by the name of the split's folder.
            Without it, the folder contains either one folder per split or the images of all splits. With *, there are
            several folders.
        masks: folder of the masks, likewise; without *, all folders of images share it.
        naming: how masks are named after their images.
        splits: "train" and "val" -> the names of their folders.
        lists: split -> the list of its images, relative to `root`; empty if folders or hashes divide the images.
    """

    root: Path
    images: str = "images"
    masks: str = "masks"
    naming: Naming = SAME_STEM
    splits: Mapping[str, str] = field(default_factory=lambda: {split: split for split in SPLITS})
    lists: Mapping[str, str] = field(default_factory=dict)

    def split_folders(self, split: str) -> list[Folders] | None:
        """Return the folders of one split, or None if the images are not divided into splits.

        If the images are divided but the masks are not, all splits share the folder of the masks.

        Raises:
            InputError: no folder matches `images`.
        """
        if self.lists:
            return None
        name = self.splits.get(split, split)
        if PLACEHOLDER in self.images:
            images = self.images.replace(PLACEHOLDER, name)
        else:
            names = {name, *self.splits.values()}
            if STAR in self.images or not any(holds_images(self.root / self.images / each) for each in names):
                return None
            images = f"{self.images}/{name}"
        if PLACEHOLDER in self.masks:
            return self._expand(images, self.masks.replace(PLACEHOLDER, name))
        folders = self._expand(images, self.masks)
        return [each._replace(masks=_split_or_shared(each.masks, name)) for each in folders]

    @property
    def undivided_folders(self) -> list[Folders]:
        """The folders of images that are not divided into splits.

        Raises:
            InputError: the masks are divided; no folder matches `images`.
        """
        if PLACEHOLDER in self.masks:
            what = f"masks: {self.masks} has train and val folders, but the images have none"
            raise InputError(self.root / "dataset.yaml", what, f"add {PLACEHOLDER} to images, or remove it from masks")
        return self._expand(self.images, self.masks)

    def folders(self) -> list[Folders]:
        """Return the folders of all splits, each once.

        Raises:
            InputError: see `undivided_folders`.
        """
        splits = self.splits or SPLITS
        found = [each for split in splits for each in self.split_folders(split) or self.undivided_folders]
        return list(dict.fromkeys(found))

    def _expand(self, images: str, masks: str) -> list[Folders]:
        """Return the folders that match patterns with *."""
        if STAR not in images:
            return [Folders(self.root / images, self.root / masks)]
        found = []
        for folder, matched in _matches(self.root, images.split("/")):
            rest = iter(matched)
            own_masks = re.sub(r"\*", lambda _, rest=rest: next(rest, STAR), masks)
            if holds_images(folder):
                found.append(Folders(folder, self.root / own_masks, "/".join(matched)))
        if not found:
            what = f"no folder that matches images: {images} contains images"
            raise InputError(self.root, what, "correct images in dataset.yaml")
        return found


def _split_or_shared(masks: Path, name: str) -> Path:
    """Return the folder of a split inside `masks`, or `masks` itself if only this one contains masks."""
    return masks if not (masks / name).is_dir() and holds_images(masks) else masks / name


def _matches(folder: Path, pattern: list[str], matched: tuple[str, ...] = ()) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """Yield the folders that match a pattern, sorted, and the text that each * matches."""
    if not pattern:
        yield folder, matched
        return
    first, *rest = pattern
    if STAR not in first:
        yield from _matches(folder / first, rest, matched)
        return
    form = re.compile(re.escape(first).replace(r"\*", "(.*)"))
    for child in sorted(folder.iterdir()) if folder.is_dir() else ():
        if (found := form.fullmatch(child.name)) and not child.name.startswith(".") and child.is_dir():
            yield from _matches(child, rest, (*matched, *found.groups()))


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
    what = f"contains only masks ({naming.masks}), no images"
    raise InputError(folders.images, what, "add the images, or correct the names of masks in dataset.yaml")


def image_files_or_arrays(folder: Path) -> list[Path]:
    """List the image files in a folder, or its arrays if there are no image files.

    Raises:
        InputError: no such folder.
    """
    return image_files(folder) or sorted(p for p in folder.iterdir() if p.suffix.lower() in ARRAYS)


def image_files(folder: Path, predicted: bool = False) -> list[Path]:
    """List the files in a folder with the suffix of an image: images, masks or both.

    Results of danet are left out.

    Args:
        folder: the folder.
        predicted: list danet's label maps too.

    Raises:
        InputError: no such folder.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "create it, with the masks of the images")
    files = [p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
    return sorted(p for p in files if not is_result(p) or (predicted and is_label_map(p)))


def holds_images(folder: Path) -> bool:
    """Return whether a folder exists and contains an image, a mask or an array."""
    return _holds(folder, SUFFIXES + ARRAYS)


def holds_arrays(folder: Path) -> bool:
    """Return whether a folder exists and contains an array."""
    return _holds(folder, ARRAYS)


def _holds(folder: Path, suffixes: Sequence[str]) -> bool:
    return folder.is_dir() and any(
        not file.name.startswith(".") and file.suffix.lower() in suffixes for file in folder.iterdir()
    )
