"""CVAT's Segmentation mask 1.1: labelmap.txt, ImageSets/Segmentation/*.txt, and SegmentationClass/*.png.

The colors of the masks are exactly those of labelmap.txt. Images are in JPEGImages if they were exported.
Format: https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from danet.data.annotations.records import read_text
from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Shape
from danet.data.annotations.source import Source
from danet.data.classes import Color
from danet.data.images.color_masks import read_colored_mask
from danet.errors import InputError

_MASKS, _LABELS = "SegmentationClass", "labelmap.txt"


def recognize(source: Source) -> bool:
    """Return whether an export contains labelmap.txt and SegmentationClass."""
    names = {file.name for file in source.all_files}
    return source.path.is_dir() and _LABELS in names and any(_MASKS in file.parent.parts for file in source.all_files)


def read(source: Source) -> Export:
    """Read the masks that the lists name, or all masks if there are no lists. The name of a list is the split.

    Raises:
        InputError: labelmap.txt is invalid, a list names a mask that does not exist, or a mask has other colors.
    """
    labels = next((file for file in source.all_files if file.name == _LABELS), None)
    if labels is None:
        raise InputError(source.folder, f"contains no {_LABELS}", "export again, as Segmentation mask 1.1")
    root, classes = labels.parent, _read_labels(labels)
    masks = {
        file.relative_to(root / _MASKS).with_suffix("").as_posix(): file
        for file in source.all_files
        if file.suffix.lower() == ".png" and file.is_relative_to(root / _MASKS)
    }
    lists = [file for file in source.files(".txt") if file.parent == root / "ImageSets" / "Segmentation"]
    splits = {name: (source.split_of(file.stem), file) for file in lists for name in _read_names(file)}
    if missing := [name for name in splits if name not in masks]:
        what = f"names {missing[0]!r}, but {root / _MASKS} contains no such mask"
        raise InputError(splits[missing[0]][1], what, "export again, or remove the name from the list")
    chosen = splits or dict.fromkeys(masks, (None, labels))
    notes = tuple(f"masks that no list names, left out: {name}" for name in masks if name not in chosen)
    images, objects = [], root / "SegmentationObject"
    for name, (split, _) in chosen.items():
        file = source.find_image(name, root / "JPEGImages", str(masks[name]), split, not_in=(root / _MASKS, objects))
        images.append(AnnotatedImage(name, str(masks[name]), file, _MaskShapes(masks[name], classes), None, split))
    return Export(images, classes, notes=notes)


@dataclass(frozen=True)
class _MaskShapes:
    """The shapes of a mask: one for each class in it. The mask is read anew for each iteration."""

    file: Path
    classes: dict[str, Color | None]

    def __iter__(self) -> Iterator[Shape]:
        ids = {color: i for i, color in enumerate(self.classes.values()) if color is not None}
        labels = read_colored_mask(self.file, ids)
        for i, name in enumerate(self.classes):
            if (pixels := labels == i).any():
                yield Shape(name, (Bitmap(pixels),), str(self.file))


def _read_labels(file: Path) -> dict[str, Color | None]:
    """Read lines NAME:R,G,B:PARTS:ACTIONS."""
    classes: dict[str, Color | None] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        channels = rest.split(":")[0].split(",")
        if len(channels) != 3 or not all(part.strip().isdecimal() and int(part) < 256 for part in channels):
            raise InputError(file, f"line {number}: must be NAME:R,G,B::, got {line[:40]!r}", "export again")
        color = int(channels[0]), int(channels[1]), int(channels[2])
        if color in classes.values():
            raise InputError(file, f"line {number}: another class has the color {list(color)}", "change one of them")
        classes[name.strip()] = color
    if not classes:
        raise InputError(file, "names no classes", "export again")
    return classes


def _read_names(file: Path) -> list[str]:
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]
