"""Folders with one mask file per class or per object of an image; where a mask is not black, it is inside.

Four layouts are read; NAME is a class, or a number for one of several objects:

    images/a.jpg  masks/NAME/a.png                  images/a.jpg  masks/a_NAME.png, masks/a_NAME_2.png
    images/a.jpg  masks/a/NAME.png                  a/images/a.png  a/masks/NAME.png
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path

from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Shape
from danet.data.annotations.source import Source
from danet.data.images.binary_masks import read_binary_mask
from danet.data.naming import LOSSLESS, names_masks
from danet.errors import InputError, list_names

_MASKS = ("masks", "mask")
_ONLY_CLASS = "foreground"
_NUMBER = re.compile(r"(^|[ _.-])\d+$")
_CHECKED = 8  # masks of an image whose values are counted to recognize the layout


def recognize(source: Source) -> bool:
    """Return whether images have several masks each, or masks in a folder per class, with two values in each mask.

    Files such as a_label.png and a_instances.png are one mask in several forms.
    """
    masks, _ = _assign(source) if source.path.is_dir() else ({}, [])
    several = [found for found in masks.values() if len(found) > 1]
    folders = {mask.file.parent for found in masks.values() for mask in found if mask.in_class_folder}
    if (not several and len(folders) < 2) or any(names_masks(mask.name) for found in several for mask in found):
        return False
    try:
        for mask in next(iter(several or masks.values()))[:_CHECKED]:
            read_binary_mask(mask.file, two_values=True)
    except InputError:
        return False
    return True


def read(source: Source) -> Export:
    """Read all masks. Names of folders tell the split.

    Raises:
        InputError: a mask belongs to no image.
    """
    masks, others = _assign(source)
    if others:
        what = f"belongs to no image (and {len(others) - 1} other masks)"
        raise InputError(others[0], what, "rename it, or remove it")
    images = []
    for file in _image_files(source):
        found = tuple(masks.get(file, ()))
        images.append(
            AnnotatedImage(file.name, str(file), file, _MaskShapes(found), None, source.split_of(file.parent))
        )
    names = sorted({mask.name for found in masks.values() for mask in found})
    notes = [f"classes are named after the masks' files or folders, in alphabetical order: {list_names(names)}"]
    if names == [_ONLY_CLASS]:
        notes = ["the masks' names contain no class, so each is an object of one class"]
    return Export(images, dict.fromkeys(names), notes=tuple(notes))


@dataclass(frozen=True)
class _Mask:
    file: Path
    name: str
    in_class_folder: bool = False


@dataclass(frozen=True)
class _MaskShapes:
    """The shapes of an image, each a mask file, which is read anew for each iteration."""

    masks: Sequence[_Mask]

    def __iter__(self) -> Iterator[Shape]:
        for mask in self.masks:
            yield Shape(mask.name, (Bitmap(read_binary_mask(mask.file, two_values=True)),), str(mask.file))


@lru_cache
def _masks_folder(folder: Path) -> Path | None:
    """Return the folder of masks that a folder is, or that it is in."""
    return next((each for each in (folder, *folder.parents) if each.name.lower() in _MASKS), None)


def _image_files(source: Source) -> list[Path]:
    return [file for file in source.all_images if _masks_folder(file.parent) is None]


def _assign(source: Source) -> tuple[dict[Path, list[_Mask]], list[Path]]:
    """Return the masks of each image, and the masks that belong to no image."""
    split_of = cache(source.split_of)
    by_stem = {(split_of(file.parent), file.stem): file for file in _image_files(source)}
    parallel = {file.parent.name for file in _image_files(source)}  # images/sunny/a.jpg, masks/sunny/a.png
    beside: dict[Path, list[Path]] = defaultdict(list)
    for file in by_stem.values():
        beside[file.parent.parent].append(file)
    assigned: dict[Path, list[_Mask]] = defaultdict(list)
    others: list[Path] = []
    for mask in source.all_files:
        folder = _masks_folder(mask.parent)
        if folder is None or mask.suffix.lower() not in LOSSLESS:
            continue
        split, inner = split_of(mask.parent), mask.parent.relative_to(folder).parts
        inner = [name for name in inner if split_of(name) is None]
        alone = beside[folder.parent] if folder.parent != source.folder else []
        if inner and inner[-1] not in parallel and (image := by_stem.get((split, mask.stem))):
            assigned[image].append(_Mask(mask, inner[-1], in_class_folder=True))
        elif inner and (image := by_stem.get((split, inner[-1]))):
            assigned[image].append(_Mask(mask, _class_name(mask.stem)))
        elif not inner and (image := _longest_prefix(mask.stem, split, by_stem)):
            assigned[image].append(_Mask(mask, _class_name(mask.stem.removeprefix(image.stem))))
        elif not inner and len(alone) == 1:
            assigned[alone[0]].append(_Mask(mask, mask.stem))
        else:
            others.append(mask)
    return _without_unique_names(assigned), others


def _longest_prefix(stem: str, split: str | None, by_stem: Mapping[tuple[str | None, str], Path]) -> Path | None:
    """Return the image with the longest stem that the name of a mask begins with, and that is not all of it."""
    ends = (i for i in range(len(stem) - 1, 0, -1) if not (stem[i].isalnum() and stem[i - 1].isalnum()))
    return next((image for i in ends if (image := by_stem.get((split, stem[:i])))), None)


def _class_name(name: str) -> str:
    return _NUMBER.sub("", name).strip("_ .-") or _ONLY_CLASS


def _without_unique_names(assigned: dict[Path, list[_Mask]]) -> dict[Path, list[_Mask]]:
    """Replace names that only one image has by one class: they are names of objects."""
    images = Counter(name for masks in assigned.values() for name in {mask.name for mask in masks})
    if len(assigned) < 2 or max(images.values(), default=0) > 1:
        return assigned
    return {image: [replace(mask, name=_ONLY_CLASS) for mask in masks] for image, masks in assigned.items()}
