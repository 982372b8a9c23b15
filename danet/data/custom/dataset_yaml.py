"""Read dataset.yaml, which describes a user's own folder of images and masks, and load the folder.

By default, the mask of images/a.jpg is masks/a.png. Images and masks may be divided into train and val folders, as
images/train and masks/train or as train/images and train/masks. If they are not, some images are used for validation.

    # dataset.yaml (danet init writes one)
    classes: [background, crack]       # one name per class; the first is class 0

    # the rest is optional
    palette: [[0, 0, 0], [255, 0, 0]]  # display color of each class (R, G, B)
    ignore: 255                        # mask value of unlabeled pixels, excluded from the loss and all metrics; or a
                                       # list of several values
    label_map: {0: 0, 255: 1}          # mask value: class id (or 255), if the masks do not contain 0, 1, 2, ...
    images: images                     # folder of the images; "{split}/images" for train/images and val/images
    masks: masks                       # folder of the masks, likewise
    splits: {train: training}          # names of the train and val folders
    mask_suffix: _mask.png             # the mask of a.jpg is a_mask.png
    image_suffix: _sat                 # with mask_suffix: _mask.png, the mask of a_sat.jpg is a_mask.png
    missing_masks: skip                # leave out images without a mask; otherwise they are errors
    val: 0.2                           # fraction of the images used for validation without train and val folders
    channels: 4                        # number of bands of the images (PNG, TIFF, .npy); without it, RGB
    white: 10000                       # value that the network reads as 1, if not the largest of 8 or 16 bits

Masks whose classes are colors have, instead of palette and label_map:

    colors: [[0, 0, 0], [255, 0, 0]]   # exact mask color of each class (R, G, B), or a list of several colors
    ignore: [255, 255, 255]            # optional: mask color of unlabeled pixels, or a list of several colors

Classes can be merged or left out:

    merge: {vehicle: [car, bus]}       # car and bus become one class, vehicle
    keep: [road, vehicle]              # the only classes that are kept ...
    others: background                 # ... and what the others become: background, or ignore
"""

import difflib
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danet.data.custom.class_keys import CLASS_KEYS, read_class_settings
from danet.data.custom.layout import SPLITS, Layout
from danet.data.custom.settings import Settings
from danet.data.custom.splits import load_split
from danet.data.images.channels import MAX_CHANNELS, Bands
from danet.data.images.read import ARRAYS, SUFFIXES
from danet.data.samples import LOSSLESS, Naming, PairedFiles
from danet.errors import InputError, missing_folder, warn_renamed
from danet.files import read_yaml

_KEYS = (
    *(*CLASS_KEYS, "channels", "white"),
    *("images", "masks", "splits", "mask_suffix", "image_suffix", "missing_masks", "val"),
)
_RENAMED = {"colours": "colors"}  # vocabulary: old name
_MAX_VALUE = 65535


def load(root: Path, split: str) -> PairedFiles:
    """Load a split of a user's folder: `load_split` of its dataset.yaml.

    Raises:
        InputError: see `read_settings` and `load_split`.
    """
    return load_split(read_settings(root), split)


def read_settings(root: Path) -> Settings:
    """Read the dataset.yaml in a folder.

    Raises:
        InputError: no dataset.yaml, or an invalid one.
    """
    file = root / "dataset.yaml"
    values = _read(file)
    try:
        return _settings(root, file, values)
    except InputError as error:
        if error.where == file:
            raise
        raise InputError(file, f"{error.where}: {error.what}", error.remedy) from error


def _settings(root: Path, file: Path, values: Mapping[str, Any]) -> Settings:
    layout = Layout(
        root,
        _text(file, values, "images", "images"),
        _text(file, values, "masks", "masks"),
        Naming(_mask_suffix(file, values), _image_suffix(file, values)),
        _splits(file, values),
    )
    val = values.get("val", 0.2)
    if isinstance(val, bool) or not isinstance(val, int | float) or not 0 < val < 1:
        raise InputError(file, f"val: must be a number between 0 and 1, got {val!r}", "for example: val: 0.2")
    bands = Bands(_number(file, values, "channels", MAX_CHANNELS), _number(file, values, "white", _MAX_VALUE))
    missing = values.get("missing_masks")
    if missing not in (None, "skip"):
        remedy = "write missing_masks: skip, or remove the line"
        raise InputError(file, f"missing_masks: must be skip, got {missing!r}", remedy)
    return Settings(*read_class_settings(file, values), layout, missing == "skip", val, bands)


def _read(file: Path) -> dict[str, Any]:
    """Read the keys and values, under their present names."""
    try:
        values = read_yaml(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not file.parent.is_dir():
            raise missing_folder(file.parent, "use the folder that contains dataset.yaml") from error
        if (above := file.parents[1]) != file.parent and (above / file.name).is_file():
            raise InputError(file, f"no such file, but {above / file.name} exists", f"use {above} instead") from error
        raise InputError(
            file, "no such file", f"run danet init {shlex.quote(str(file.parent))} to create it"
        ) from error
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "check its permissions") from error
    except ValueError as error:
        raise InputError(file, str(error), "correct it") from error
    if not isinstance(values, Mapping):
        raise InputError(
            file, "contains no lines of the form KEY: VALUE", "write at least classes: [background, crack]"
        )
    values = dict(values)
    for old, new in _RENAMED.items():
        if old not in values:
            continue
        if new in values:
            raise InputError(file, f"{old} and {new} are the same setting", f"remove {old}")
        values[new] = values.pop(old)
        warn_renamed(file, old, new)
    for key in values:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(_KEYS)}"
            raise InputError(file, f"unknown key {key!r}", remedy)
    return values


def _text(file: Path, values: Mapping[str, Any], key: str, default: str) -> str:
    value = values.get(key, default)
    if not isinstance(value, str):
        what = "file name suffix" if key.endswith("suffix") else "folder name"
        remedy = f"for example: {key}: {default or '_image'}"
        raise InputError(file, f"{key}: must be a {what}, got {value!r}", remedy)
    return value


def _image_suffix(file: Path, values: Mapping[str, Any]) -> str:
    suffix = _text(file, values, "image_suffix", "")
    if suffix.lower().endswith(SUFFIXES + ARRAYS):
        shorter = suffix[: suffix.rindex(".")]
        remedy = f"write image_suffix: {shorter}" if shorter else "remove the line"
        raise InputError(file, f"image_suffix: must not include the file extension, got {suffix!r}", remedy)
    return suffix


def _mask_suffix(file: Path, values: Mapping[str, Any]) -> str:
    suffix = _text(file, values, "mask_suffix", ".png")
    if "/" in suffix or not suffix.lower().endswith(LOSSLESS):
        what = f"mask_suffix: must end in {', '.join(LOSSLESS)}, got {suffix!r}"
        raise InputError(file, what, "for example: mask_suffix: _mask.png")
    return suffix


def _splits(file: Path, values: Mapping[str, Any]) -> dict[str, str]:
    names = values.get("splits", {})
    if not isinstance(names, Mapping) or not all(
        split in SPLITS and isinstance(name, str) and name for split, name in names.items()
    ):
        remedy = "for example: splits: {train: training, val: validation}"
        raise InputError(file, f"splits: must name the train and val folders, got {names!r}", remedy)
    splits = {split: names.get(split, split) for split in SPLITS}
    if len(set(splits.values())) < len(splits):
        raise InputError(file, f"splits: train and val are the same folder, {splits['train']}", "use two folders")
    return splits


def _number(file: Path, values: Mapping[str, Any], key: str, largest: int) -> int | None:
    value = values.get(key)
    if value is not None and (type(value) is not int or not 1 <= value <= largest):
        what = f"{key}: must be a whole number from 1 to {largest}, got {value!r}"
        raise InputError(file, what, "correct it, or remove the line")
    return value
