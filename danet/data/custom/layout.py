"""Where the images and masks of a user's folder lie, as dataset.yaml says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from danet.data.images.channels import RGB, Bands
from danet.data.images.read import ARRAYS, SUFFIXES, list_images
from danet.data.naming import SAME_STEM, Naming
from danet.errors import InputError

SPLITS = ("train", "val")
SPLIT = "{split}"
"""What stands for the split in the names of folders."""


@dataclass(frozen=True)
class Layout:
    """The folders of images and masks.

    Args:
        root: the user's folder.
        images, masks: folders below it. "{split}" in a name is where the split's folder is meant; without it these
            folders may hold one for each split, or all images.
        naming: how masks are called.
        splits: "train" and "val" -> what their folders are called.
    """

    root: Path
    images: str = "images"
    masks: str = "masks"
    naming: Naming = SAME_STEM
    splits: Mapping[str, str] = field(default_factory=lambda: {split: split for split in SPLITS})

    def of(self, split: str) -> tuple[Path, Path] | None:
        """The folders of a split's images and masks; None where the images of all splits lie together: no split
        has a folder with images. Masks may lie together where the images do not.
        """
        name = self.splits.get(split, split)
        names = {name, *self.splits.values()}
        if SPLIT not in self.images and not any(holds_images(self._inside(self.images, each)) for each in names):
            return None
        masks, all_masks = self._inside(self.masks, name), self.root / self.masks
        if not masks.is_dir() and SPLIT not in self.masks and holds_images(all_masks):
            masks = all_masks
        return self._inside(self.images, name), masks

    @property
    def together(self) -> tuple[Path, Path]:
        """The folders of images and masks without train and val folders.

        Raises:
            InputError: the masks have such folders all the same.
        """
        if SPLIT in self.masks:
            what = f"masks: {self.masks}, but no train and val folders of images"
            raise InputError(self.root / "dataset.yaml", what, f"write {SPLIT} in images: too, or leave it out")
        return self.root / self.images, self.root / self.masks

    def _inside(self, pattern: str, name: str) -> Path:
        return self.root / pattern.replace(SPLIT, name) if SPLIT in pattern else self.root / pattern / name


def images_without_masks(places: tuple[Path, Path], naming: Naming, bands: Bands = RGB) -> list[Path]:
    """The images directly in the first folder; where the masks lie there too, without these.

    Raises:
        InputError: see `list_images`; nothing but masks.
    """
    folder, masks = places
    found = list_images(folder, bands)
    if folder != masks:
        return found
    if images := [file for file in found if not naming.is_mask(file)]:
        return images
    what = f"no image in it beside the masks, STEM{naming.mask_suffix}"
    raise InputError(folder, what, "add them, or mend mask_suffix in dataset.yaml")


def images_in(place: Path) -> list[Path]:
    """The images directly in a folder; arrays where there are no others."""
    return masks_in(place) or sorted(p for p in place.iterdir() if p.suffix.lower() in ARRAYS)


def masks_in(place: Path) -> list[Path]:
    """What may be masks directly in a folder.

    Raises:
        InputError: no such folder.
    """
    if not place.is_dir():
        raise InputError(place, "no such folder, but one of images", "make it, with the masks of those images")
    return sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def holds_images(place: Path) -> bool:
    """Whether an image, or an array, lies directly in a folder; not, where there is no such folder."""
    return place.is_dir() and any(
        not file.name.startswith(".") and file.suffix.lower() in SUFFIXES + ARRAYS for file in place.iterdir()
    )
