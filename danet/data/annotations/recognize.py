"""All annotation formats, and which of them a folder or file is in."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from danet.data.annotations import (
    coco,
    cvat,
    cvat_masks,
    label_studio,
    label_studio_png,
    labelme,
    mask_files,
    rle_csv,
    supervisely,
    via,
    yolo,
)
from danet.data.annotations.shapes import Export
from danet.data.annotations.source import Source
from danet.errors import InputError, unknown_name
from danet.text import shell_path


@dataclass(frozen=True)
class Format:
    """An annotation format.

    Args:
        title: its name for users.
        recognize: returns whether an export is in this format.
        read: reads an export.
    """

    title: str
    recognize: Callable[[Source], bool]
    read: Callable[[Source], Export]


FORMATS = {
    "coco": Format("COCO", coco.recognize, coco.read),
    "labelme": Format("LabelMe", labelme.recognize, labelme.read),
    "cvat": Format("CVAT for images", cvat.recognize, cvat.read),
    "cvat-masks": Format("CVAT segmentation mask", cvat_masks.recognize, cvat_masks.read),
    "label-studio": Format("Label Studio", label_studio.recognize, label_studio.read),
    "label-studio-png": Format("Label Studio PNG", label_studio_png.recognize, label_studio_png.read),
    "supervisely": Format("Supervisely", supervisely.recognize, supervisely.read),
    "via": Format("VGG Image Annotator", via.recognize, via.read),
    "yolo": Format("YOLO", yolo.recognize, yolo.read),
    "rle-csv": Format("run-length CSV", rle_csv.recognize, rle_csv.read),
    "masks": Format("separate masks", mask_files.recognize, mask_files.read),
}
"""Name -> format."""


def recognize(source: Source, formats: Iterable[str] = FORMATS) -> list[str]:
    """Return those of the formats that an export is in, usually one."""
    found = [name for name in formats if FORMATS[name].recognize(source)]
    if "label-studio-png" in found and "label-studio" in found:
        found.remove("label-studio")  # the JSON only names the images of the masks
    return found


def choose_format(source: Source, name: str | None = None) -> Format:
    """Return the format of an export.

    Args:
        source: the export.
        name: of the format, if known.

    Raises:
        InputError: an unknown name; no format, or several, were recognized.
    """
    if name is not None:
        if name not in FORMATS:
            raise unknown_name("format", name, FORMATS)
        return FORMATS[name]
    found = recognize(source)
    if not found:
        labelme.check_old_folders(source)
        titles = ", ".join(each.title for each in FORMATS.values())
        remedy = f"known formats: {titles}; for images with masks, run danet init {shell_path(source.folder)}"
        raise InputError(source.path, "no annotations of a known format were found", remedy)
    if len(found) > 1:
        titles = " and ".join(f"{name} ({FORMATS[name].title})" for name in found)
        raise InputError(source.path, f"contains annotations in several formats: {titles}", "choose one with `format`")
    return FORMATS[found[0]]


def import_advice(source: Source, formats: Iterable[str] = FORMATS) -> InputError | None:
    """Return the error that tells how to import a folder, or None if it contains no annotations.

    Args:
        source: the folder.
        formats: the formats to look for.
    """
    if not (found := recognize(source, formats)):
        return None
    folder = source.folder
    titles = " and ".join(FORMATS[name].title for name in found)
    destination = Path(os.path.normpath(folder / "..")) / f"{folder.resolve().name}_imported"
    command = f"danet import {shell_path(folder)} {shell_path(destination)}"
    return InputError(folder, f"this is a {titles} export", f"run {command}")
