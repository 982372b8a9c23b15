"""Read dataset.yaml, which describes a user's own folder of images and masks, and load the folder.

By default, the mask of images/a.jpg is masks/a.png. Images and masks may be divided into train and val folders, as
images/train and masks/train or as train/images and train/masks. If they are not, some images are used for validation.

    # dataset.yaml (danet init writes one)
    classes: [background, crack]       # one name per class; the first is class 0

    # the rest is optional
    palette: [[0, 0, 0], [255, 0, 0]]  # display color of each class (R, G, B)
    label_map: {0: 0, 255: 1}          # mask value: class id (or 255), if the masks do not contain 0, 1, 2, ...
    threshold: 128                     # instead, for masks with gray edges: values from 128 on are class 1, others 0
    ignore: 254                        # mask value of unlabeled pixels, excluded from the loss and all metrics, or a
                                       # list; without it, 255, unless label_map has a class for 255
    images: images                     # folder of the images; "{split}/images" for train/images and val/images
    masks: masks                       # folder of the masks, likewise
                                       # "*/images" and "*/masks" for several folders, each with its own masks
    splits: {train: training}          # names of the train and val folders
    mask_suffix: _mask.png             # the mask of a.jpg is a_mask.png
    image_suffix: _sat                 # with mask_suffix: _mask.png, the mask of a_sat.jpg is a_mask.png
    mask_prefix: mask_                 # the mask of 001.jpg is mask_001.png
    mask_replace: {camera: label}      # the mask of 7_camera_left.jpg is 7_label_left.png
    missing_masks: skip                # leave out images without a mask; otherwise they are errors
    val: 0.2                           # fraction of the images used for validation without train and val folders
    split_by: sequence                 # then keep frames of one sequence (same name but the last number) together; or
                                       # image, to choose images one by one, which is the default
    splits: {train: a.txt, val: b.txt} # or lists of images, one per line; or a CSV file with a split column
    exif: ignore                       # masks were drawn on images as stored; without it, EXIF orientations are applied
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from danet.data.custom.class_keys import CLASS_KEYS, read_class_settings
from danet.data.custom.layout import SPLIT_NAMES, SPLITS, STAR, Layout
from danet.data.custom.settings import VAL, Settings
from danet.data.custom.split_lists import LISTS
from danet.data.custom.splits import load_split
from danet.data.images.channels import MAX_CHANNELS, Bands
from danet.data.images.formats import SUFFIXES
from danet.data.images.read import ARRAYS
from danet.data.naming import LOSSLESS, Naming
from danet.data.samples import PairedFiles
from danet.errors import InputError, missing_folder, warn_renamed
from danet.text import shell_path
from danet.yaml_files import read_yaml

_KEYS = (
    *(*CLASS_KEYS, "channels", "white"),
    *("images", "masks", "splits", "mask_suffix", "image_suffix", "mask_prefix", "mask_replace"),
    *("missing_masks", "val", "split_by", "exif"),
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
    images, masks = (_text(file, values, key, key) for key in ("images", "masks"))
    _check_stars(file, images, masks)
    layout = Layout(root, images, masks, _naming(file, values), *_splits(file, values))
    val = values.get("val", VAL)
    if isinstance(val, bool) or not isinstance(val, int | float) or not 0 < val < 1:
        raise InputError(file, f"val: must be a number between 0 and 1, got {val!r}", "for example: val: 0.2")
    by_sequence = _choice(file, values, "split_by", "sequence", "image")
    upright = _choice(file, values, "exif", "apply", "ignore")
    bands = Bands(_number(file, values, "channels", MAX_CHANNELS), _number(file, values, "white", _MAX_VALUE))
    missing = values.get("missing_masks")
    if missing not in (None, "skip"):
        remedy = "write missing_masks: skip, or remove the line"
        raise InputError(file, f"missing_masks: must be skip, got {missing!r}", remedy)
    return Settings(*read_class_settings(file, values), layout, missing == "skip", val, by_sequence, bands, upright)


def _read(file: Path) -> dict[str, Any]:
    """Read the keys and values, under their present names."""
    try:
        values = read_yaml(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not file.parent.is_dir():
            raise missing_folder(file.parent, "use the folder that contains dataset.yaml") from error
        above = file.parent / ".." if file.parent == Path() else file.parent.parent
        if (above / file.name).is_file() and not above.samefile(file.parent):
            raise InputError(file, f"no such file, but {above / file.name} exists", f"use {above} instead") from error
        raise InputError(file, "no such file", f"run danet init {shell_path(file.parent)} to create it") from error
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


def _naming(file: Path, values: Mapping[str, Any]) -> Naming:
    suffixes = _mask_suffix(file, values), _image_suffix(file, values)
    prefix, replaced = _text(file, values, "mask_prefix", ""), values.get("mask_replace")
    if replaced is None:
        return Naming(*suffixes, "", prefix)
    if prefix:
        raise InputError(file, "mask_prefix and mask_replace exclude each other", "write only mask_replace")
    if not isinstance(replaced, Mapping) or len(replaced) != 1:
        what = f"mask_replace: must map one text in the images' names to that in the masks' names, got {replaced!r}"
        raise InputError(file, what, "for example: mask_replace: {image: mask}")
    (old, new), *_ = replaced.items()
    if not isinstance(old, str) or not isinstance(new, str) or not old:
        what = f"mask_replace: must map a text to a text, got {replaced!r}"
        raise InputError(file, what, "put quotes around numbers and empty texts")
    return Naming(*suffixes, old, new)


def _check_stars(file: Path, images: str, masks: str) -> None:
    counts = images.count(STAR), masks.count(STAR)
    if counts[1] not in (0, counts[0]):
        what = f"masks: has {counts[1]} *, but images has {counts[0]}"
        raise InputError(file, what, "use the same number, or none if all images share a folder of masks")


def _splits(file: Path, values: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, str]]:
    """Return the names of the train and val folders, and the lists of the splits; one of them is the default."""
    given = values.get("splits", {})
    default: dict[str, str] = {split: split for split in SPLITS}
    if _is_list_file(given):
        return default, dict.fromkeys(SPLITS, given)
    names: dict[Any, Any] = dict(given) if isinstance(given, Mapping) else {None: None}
    if any(map(_is_list_file, names.values())):
        if not set(SPLITS) <= names.keys() <= SPLIT_NAMES.keys() or not all(map(_is_list_file, names.values())):
            remedy = "for example: splits: {train: train.txt, val: val.txt}"
            raise InputError(file, f"splits: must give a list for train and one for val, got {given!r}", remedy)
        return default, names
    if not names.keys() <= set(SPLITS) or not all(isinstance(name, str) and name for name in names.values()):
        remedy = "for example: splits: {train: training, val: validation}, or {train: train.txt, val: val.txt}"
        raise InputError(file, f"splits: must name the train and val folders or lists, got {given!r}", remedy)
    splits: dict[str, str] = default | names
    if len(set(splits.values())) < len(splits):
        raise InputError(file, f"splits: train and val are the same folder, {splits['train']}", "use two folders")
    return splits, {}


def _is_list_file(name: Any) -> bool:
    return isinstance(name, str) and name.lower().endswith(LISTS)


def _choice(file: Path, values: Mapping[str, Any], key: str, yes: str, no: str) -> bool | None:
    """Return whether the value of a key is the first of two words; None if the key is missing."""
    value = values.get(key)
    if value not in (None, yes, no):
        raise InputError(file, f"{key}: must be {yes} or {no}, got {value!r}", "correct it, or remove the line")
    return None if value is None else value == yes


def _number(file: Path, values: Mapping[str, Any], key: str, largest: int) -> int | None:
    value = values.get(key)
    if value is not None and (type(value) is not int or not 1 <= value <= largest):
        what = f"{key}: must be a whole number from 1 to {largest}, got {value!r}"
        raise InputError(file, what, "correct it, or remove the line")
    return value
