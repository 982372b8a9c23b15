"""Folders with one mask file per class or per object of an image; where a mask is not black, it is inside.

Four layouts are read; NAME is a class, or a number for one of several objects:

    images/a.jpg  masks/NAME/a.png                  images/a.jpg  masks/a_NAME.png, masks/a_NAME_2.png
    images/a.jpg  masks/a/NAME.png                  a/images/a.png  a/masks/NAME.png
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from pathlib import Path

from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Shape
from danet.data.annotations.source import Source
from danet.data.images.binary_masks import read_binary_mask
from danet.data.images.read import SUFFIXES, image_size
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
    assigned = _assign(source).masks if source.path.is_dir() else {}
    masks = {image: [mask for mask in found if _is_lossless(mask.file)] for image, found in assigned.items()}
    several = [found for found in masks.values() if len(found) > 1]
    folders = {mask.file.parent for found in masks.values() for mask in found if mask.in_class_folder}
    if (not several and len(folders) < 2) or any(names_masks(mask.name) for found in several for mask in found):
        return False
    try:
        for mask in next(found for found in several or masks.values() if found)[:_CHECKED]:
            read_binary_mask(mask.file, two_values=True)
    except InputError:
        return False
    return True


def read(source: Source) -> Export:
    """Read all masks. Names of folders tell the split.

    Raises:
        InputError: a mask belongs to no image, or to several; it is in a lossy format; masks of an image differ in
            size.
    """
    assigned = _assign(source)
    masks = assigned.masks
    if assigned.others:
        what = f"belongs to no image (and {len(assigned.others) - 1} other masks)"
        raise InputError(assigned.others[0], what, "rename it, or remove it")
    for file, found in assigned.unclear.items():
        what = f"may be a mask of {found[0]} or of {found[1]}"
        raise InputError(file, what, "rename or remove one of these images")
    for mask in (mask for found in masks.values() for mask in found if not _is_lossless(mask.file)):
        read_binary_mask(mask.file, two_values=True)  # which refuses lossy formats: not at the end of a long import
    images = []
    for file in _image_files(source):
        found = tuple(masks.get(file, ()))
        place = str(found[0].file if found else file)
        size = masks_size([mask.file for mask in found])
        split = source.split_of(file.parent)
        images.append(AnnotatedImage(file.name, place, file, _MaskShapes(found), size, split))
    names = sorted({mask.name for found in masks.values() for mask in found})
    notes = [f"classes are named after the masks' files or folders, in alphabetical order: {list_names(names)}"]
    if names == [_ONLY_CLASS]:
        notes = ["the masks' names contain no class, so each is an object of one class"]
    if assigned.copies:
        copies = list_names([str(file.relative_to(source.folder)) for file in assigned.copies], 5)
        what = "masks in a lossy format beside a lossless one with the same name, left out"
        notes.append(f"{what}: {len(assigned.copies)} ({copies})")
    return Export(images, dict.fromkeys(names), notes=tuple(notes))


def masks_size(masks: Sequence[Path]) -> tuple[int, int] | None:
    """Return height and width of the masks of one image, as stored; None if there are none.

    Raises:
        InputError: they differ, or a mask is not an image.
    """
    first: tuple[int, int] | None = None
    for mask in masks:
        size = image_size(mask, upright=False)
        first = first or size
        if size != first:
            what = f"is {size[1]} x {size[0]}, but {masks[0]}, a mask of the same image, is {first[1]} x {first[0]}"
            raise InputError(mask, what, "save all masks in the size of the image")
    return first


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
def _masks_folder(source: Source, folder: Path) -> Path | None:
    """Return the folder of masks that a folder is, or that it is in; the export itself only if its images are apart."""
    count = len(source.folders_of(folder)) + (source.images is not None)
    return next((each for each in (folder, *folder.parents)[:count] if each.name.lower() in _MASKS), None)


def _image_files(source: Source) -> list[Path]:
    return [file for file in source.all_images if _masks_folder(source, file.parent) is None]


def _is_lossless(mask: Path) -> bool:
    return mask.suffix.lower() in LOSSLESS


@dataclass(frozen=True)
class _Assigned:
    """Which masks belong to which images.

    Args:
        masks: image -> its masks.
        others: masks that belong to no image.
        unclear: masks that may belong to several images -> these images; in `masks`, each is one of the first image.
        copies: masks in a lossy format that are left out, as there is a lossless one.
    """

    masks: dict[Path, list[_Mask]]
    others: list[Path] = field(default_factory=list)
    unclear: dict[Path, list[Path]] = field(default_factory=dict)
    copies: list[Path] = field(default_factory=list)


class _Images:
    """The images of an export by their stems, in folders whose names tell images with the same stem apart."""

    def __init__(self, source: Source):
        self.source = source
        self.split_of = cache(source.split_of)
        self.folders_of = cache(lambda folder: frozenset(source.folders_of(folder)))
        self.by_stem: dict[tuple[str | None, str], list[Path]] = defaultdict(list)
        self.beside: dict[Path, list[Path]] = defaultdict(list)  # folder -> the images in its subfolders
        for file in _image_files(source):
            self.by_stem[self.split_of(file.parent), file.stem].append(file)
            self.beside[file.parent.parent].append(file)
        parents = {file.parent for found in self.by_stem.values() for file in found}
        self.parents = {folder.name for folder in parents}
        self.folders = frozenset().union(*map(self.folders_of, parents))

    def find(self, stem: str, mask: Path) -> list[Path]:
        """Return the images with a stem that a mask may belong to.

        A mask in a folder cam1 belongs to no image outside a folder cam1, if there are images in a folder of this name.
        """
        own = self.folders_of(mask.parent)
        found = [
            file
            for file in self.by_stem.get((self.split_of(mask.parent), stem), ())
            if own & self.folders <= self.folders_of(file.parent)
        ]
        return self.closest(found, mask) if len(found) > 1 else found

    def closest(self, found: list[Path], mask: Path) -> list[Path]:
        """Return the images in the given folder, and of these the one nearest to a mask; several if this is unclear.

        masks/car/a.png is nearer to images/a.jpg than to images/old/a.jpg, as all folders of the first are also
        folders of the second.
        """
        given = self.source.images
        found = [file for file in found if given and file.is_relative_to(given)] or found
        more = {file: self.folders_of(file.parent) - self.folders_of(mask.parent) for file in found}
        fewest = [file for file in found if all(more[file] <= each for each in more.values())]
        return fewest or found

    def find_prefix(self, mask: Path) -> list[Path]:
        """Return the images with the longest stem that the name of a mask begins with, and that is not all of it."""
        stem = mask.stem
        ends = (i for i in range(len(stem) - 1, 0, -1) if not (stem[i].isalnum() and stem[i - 1].isalnum()))
        return next((found for i in ends if (found := self.find(stem[:i], mask))), [])


def _assign(source: Source) -> _Assigned:
    """Find the image of each mask."""
    images, assigned = _Images(source), _Assigned(defaultdict(list))
    files = [file for file in source.all_files if file.suffix.lower() in (*LOSSLESS, *SUFFIXES)]
    lossless = {file.with_suffix("") for file in files if _is_lossless(file)}
    for file in files:
        if (folder := _masks_folder(source, file.parent)) is None:
            continue
        if not _is_lossless(file) and file.with_suffix("") in lossless:
            assigned.copies.append(file)
            continue
        found, mask = _find_images(file, folder, images)
        if len(found) > 1:
            assigned.unclear[file] = found
        if found:
            assigned.masks[found[0]].append(mask)
        else:
            assigned.others.append(file)
    return replace(assigned, masks=_without_unique_names(assigned.masks))


def _find_images(file: Path, folder: Path, images: _Images) -> tuple[list[Path], _Mask]:
    """Return the images that a mask below a folder of masks may belong to, and the mask with its class."""
    inner = [name for name in file.parent.relative_to(folder).parts if images.source.split_of(name) is None]
    if inner and inner[-1] not in images.parents and (found := images.find(file.stem, file)):
        return found, _Mask(file, inner[-1], in_class_folder=True)
    if inner:
        return images.find(inner[-1], file), _Mask(file, _class_name(file.stem))
    if found := images.find(file.stem, file):  # not one of several of a.jpg, if there is also an image a_flip.jpg
        return found, _Mask(file, _ONLY_CLASS)
    if found := images.find_prefix(file):
        return found, _Mask(file, _class_name(file.stem.removeprefix(found[0].stem)))
    alone = images.beside[folder.parent] if folder.parent != images.source.folder else []
    return alone if len({image.stem for image in alone}) == 1 else [], _Mask(file, file.stem)


def _class_name(name: str) -> str:
    return _NUMBER.sub("", name).strip("_ .-") or _ONLY_CLASS


def _without_unique_names(assigned: dict[Path, list[_Mask]]) -> dict[Path, list[_Mask]]:
    """Replace names of files that only one image has by one class: they are names of objects."""
    if any(mask.in_class_folder for masks in assigned.values() for mask in masks):
        return assigned
    images = Counter(name for masks in assigned.values() for name in {mask.name for mask in masks})
    if len(assigned) < 2 or max(images.values(), default=0) > 1:
        return assigned
    return {image: [replace(mask, name=_ONLY_CLASS) for mask in masks] for image, masks in assigned.items()}
