"""A user's own images: a folder with images, masks of the same stems, and dataset.yaml.

ROOT/dataset.yaml
ROOT/images/{train,val}/*.jpg    ROOT/masks/{train,val}/*.png     or, without train and val folders, one part of the
images is kept for validation; or ROOT/{train,val}/{images,masks}, or images and masks in one folder

# dataset.yaml (danet init proposes one)
classes: [background, crack]      # the id of a class is its place in this list, from 0
palette: [[0, 0, 0], [255, 0, 0]] # optional: the colors in which the classes are drawn
ignore: 255                       # optional: the mask value that no loss and no metric sees
label_map: {0: 0, 255: 1}         # optional: mask value -> class id (or 255), where the masks do not hold 0, 1, 2, ...
images: images                    # optional: the folders' names; "{split}/images" for train/images and val/images
masks: masks
splits: {train: training}         # optional: what the folders of train and val are called
mask_suffix: .png                 # optional: the mask of a.jpg is a.png
image_suffix: _sat                # optional: with mask_suffix: _mask.png, the mask of a_sat.jpg is a_mask.png
missing_masks: skip               # optional: images without a mask are left out; without this line, an error
val: 0.2                          # optional: the share kept for validation if there are no train and val folders
channels: 4                       # optional: images of so many bands (PNG, TIFF, .npy) as stored; without it, RGB
white: 10000                      # optional: the value that means 1, if not the largest of 8 or 16 bits

Masks in colors have, in place of palette and label_map,
colors: [[0, 0, 0], [255, 0, 0]] # one a class, met exactly
ignore: [255, 255, 255]           # optional
"""

import difflib
import hashlib
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from danet.data.classes import IGNORE, Classes, Color, LabelMap
from danet.data.custom.layout import SPLITS, Layout, images_without_masks
from danet.data.images.channels import MAX_CHANNELS, Bands
from danet.data.images.color_masks import read_colored_mask
from danet.data.images.read import ARRAYS, SUFFIXES, read_mask
from danet.data.naming import LOSSLESS, Naming
from danet.data.samples import PairedFiles, pair_files
from danet.errors import InputError
from danet.files import read_yaml

_KEYS = (
    *("classes", "palette", "colors", "ignore", "label_map", "channels", "white"),
    *("images", "masks", "splits", "mask_suffix", "image_suffix", "missing_masks", "val"),
)


@dataclass(frozen=True)
class Settings:
    """What dataset.yaml says: the classes, the folders, and how masks and images are read. `val` is the share for
    validation; images without a mask are left out if `skip`, else an error.
    """

    classes: Classes
    label_map: LabelMap
    read_mask: Callable[[Path], np.ndarray]
    layout: Layout
    skip: bool
    val: float
    bands: Bands


def read_settings(root: Path) -> Settings:
    """ROOT/dataset.yaml.

    Raises:
        InputError: no or a wrong dataset.yaml.
    """
    file = root / "dataset.yaml"
    settings = _read(file)
    try:
        return _settings(root, file, settings)
    except InputError as error:
        if error.where == file:
            raise
        raise InputError(file, f"{error.where}: {error.what}", error.remedy) from error


def _settings(root: Path, file: Path, settings: Mapping[str, Any]) -> Settings:
    layout = Layout(
        root,
        _text(file, settings, "images", "images"),
        _text(file, settings, "masks", "masks"),
        Naming(_mask_suffix(file, settings), _image_suffix(file, settings)),
        _splits(file, settings),
    )
    share = settings.get("val", 0.2)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise InputError(file, f"val: {share!r} is no share between 0 and 1", "write for example val: 0.2")
    bands = Bands(_number(file, settings, "channels", MAX_CHANNELS), _number(file, settings, "white", 65535))
    missing = settings.get("missing_masks")
    if missing not in (None, "skip"):
        raise InputError(file, f"missing_masks: {missing!r} is unknown", "write missing_masks: skip, or leave it out")
    where = layout, missing == "skip", share, bands
    if "colors" not in settings:
        classes = _classes(file, settings)
        return Settings(classes, _label_map(file, settings, len(classes)), read_mask, *where)
    classes = _classes(file, {"classes": settings.get("classes"), "palette": settings["colors"]}, "colors")
    both = [key for key in ("palette", "label_map") if key in settings]
    if both:
        raise InputError(file, f"{both[0]} and colors", "leave one of them out: colors say what each pixel is")
    if len(set(classes.palette)) < len(classes):
        raise InputError(file, "colors: one stands there twice", "give each class its own color")
    reader = partial(read_colored_mask, colors=classes.palette, ignore=_ignored_color(file, settings))
    return Settings(classes, LabelMap.identity(len(classes)), reader, *where)


def load(root: Path, split: str) -> PairedFiles:
    """The samples of `split`, "train" or "val", by file name. Which images validate depends on their names alone.

    Raises:
        InputError: no or a wrong dataset.yaml, no images, masks missing.
    """
    said = read_settings(root)
    own = said.layout.of(split)
    images, masks = own or said.layout.together
    naming = said.layout.naming
    pairs = pair_files(images_without_masks((images, masks), naming, said.bands), masks, images, naming, not said.skip)
    if said.skip and not (pairs := [pair for pair in pairs if pair.mask.is_file()]):
        raise InputError(masks, f"no mask of the images in {images}", "add them, or mend dataset.yaml")
    if own is None:
        count = max(1, round(said.val * len(pairs)))
        held_back = {pair.name for pair in sorted(pairs, key=lambda p: _digest(p.name))[:count]}
        chosen = [pair for pair in pairs if (pair.name in held_back) == (split == "val")]
        if not chosen or split not in ("train", "val"):
            what = f"{len(pairs)} images give no {split!r} part"
            raise InputError(images, what, "add images, or use train or val")
        pairs = chosen
    return PairedFiles(said.classes, pairs, said.label_map, said.read_mask, said.bands)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = read_yaml(file)
    except FileNotFoundError as error:
        if not file.parent.is_dir():
            raise InputError(file.parent, "no such folder", "check the path") from error
        raise InputError(file, "no such file", f"let danet init {shlex.quote(str(file.parent))} write it") from error
    except (OSError, ValueError) as error:
        raise InputError(file, f"cannot be read ({error})", "mend the YAML") from error
    if not isinstance(settings, Mapping):
        raise InputError(file, "holds no `key: value` lines", "write at least classes: [background, thing]")
    for key in settings:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise InputError(
                file, f"unknown key {key!r}", f"did you mean {near[0]}?" if near else f"use {', '.join(_KEYS)}"
            )
    return dict(settings)


def _classes(file: Path, settings: Mapping[str, Any], key: str = "palette") -> Classes:
    names = settings.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        remedy = "write classes: [background, thing], in quotes what YAML reads as something else ('no', '1')"
        raise InputError(file, f"classes: {names!r} is no list of names", remedy)
    palette = settings.get("palette")
    if palette is None and key == "palette":
        return Classes.named(tuple(names))
    if not isinstance(palette, list) or not all(_is_color(color) for color in palette):
        raise InputError(file, f"{key} is no list of [r, g, b] with numbers 0 to 255", "mend it or leave it out")
    if len(palette) != len(names):
        raise InputError(file, f"{len(palette)} {key} for {len(names)} classes", "give one [r, g, b] a class")
    return Classes(tuple(names), tuple(tuple(color) for color in palette))


def _is_color(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 3 and all(type(v) is int and 0 <= v <= 255 for v in value)


def _ignored_color(file: Path, settings: Mapping[str, Any]) -> Color | None:
    ignore = settings.get("ignore")
    if ignore is None:
        return None
    if not _is_color(ignore) or ignore in settings["colors"]:
        raise InputError(file, f"ignore: {ignore!r} is no color of its own", "write for example ignore: [0, 0, 0]")
    return ignore[0], ignore[1], ignore[2]


def _label_map(file: Path, settings: Mapping[str, Any], count: int) -> LabelMap:
    ignore = settings.get("ignore", IGNORE)
    if type(ignore) is not int or not 0 <= ignore < 1 << 16:
        raise InputError(file, f"ignore: {ignore!r} is no mask value", "write a number from 0 to 65535")
    mapping = settings.get("label_map")
    if mapping is None:
        return LabelMap.identity(count, ignore)
    if not isinstance(mapping, Mapping) or not all(type(v) is int for pair in mapping.items() for v in pair):
        raise InputError(
            file, f"label_map: {mapping!r} maps no numbers to numbers", "write for example label_map: {0: 0, 255: 1}"
        )
    return LabelMap({ignore: IGNORE, **mapping}, count)


def _text(file: Path, settings: Mapping[str, Any], key: str, default: str) -> str:
    value = settings.get(key, default)
    if not isinstance(value, str):
        what = "ending" if key.endswith("suffix") else "folder name"
        raise InputError(file, f"{key}: {value!r} is no {what}", f"write for example {key}: {default or '_image'}")
    return value


def _image_suffix(file: Path, settings: Mapping[str, Any]) -> str:
    suffix = _text(file, settings, "image_suffix", "")
    if suffix.lower().endswith(SUFFIXES + ARRAYS):
        shorter = suffix[: suffix.rindex(".")]
        remedy = f"write {shorter}" if shorter else "leave it out"
        raise InputError(file, f"image_suffix: {suffix!r} has the ending of a file", remedy)
    return suffix


def _mask_suffix(file: Path, settings: Mapping[str, Any]) -> str:
    suffix = _text(file, settings, "mask_suffix", ".png")
    if "/" in suffix or not suffix.lower().endswith(LOSSLESS):
        remedy = f"write what ends in {', '.join(LOSSLESS)}, for example mask_suffix: _mask.png"
        raise InputError(file, f"mask_suffix: {suffix!r} is no ending of a mask's file", remedy)
    return suffix


def _splits(file: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    said = settings.get("splits", {})
    if not isinstance(said, Mapping) or not all(
        split in SPLITS and isinstance(name, str) and name for split, name in said.items()
    ):
        remedy = "write for example splits: {train: training, val: validation}"
        raise InputError(file, f"splits: {said!r} names no folders of train and val", remedy)
    splits = {split: said.get(split, split) for split in SPLITS}
    if len(set(splits.values())) < len(splits):
        raise InputError(file, f"splits: train and val are both {splits['train']}", "name two folders")
    return splits


def _number(file: Path, settings: Mapping[str, Any], key: str, most: int) -> int | None:
    value = settings.get(key)
    if value is not None and (type(value) is not int or not 1 <= value <= most):
        raise InputError(file, f"{key}: {value!r} is no number from 1 to {most}", f"mend it or leave {key} out")
    return value
