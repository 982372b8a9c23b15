"""A user's own pictures: a folder with images, masks of the same stems, and dataset.yaml.

ROOT/dataset.yaml
ROOT/images/{train,val}/*.jpg    ROOT/masks/{train,val}/*.png     or, without train and val folders, one part of the
pictures is kept for validation

# dataset.yaml
classes: [background, crack]      # the id of a class is its place in this list, from 0
palette: [[0, 0, 0], [255, 0, 0]] # optional
ignore: 255                       # optional: the mask value that no loss and no metric sees
label_map: {0: 0, 255: 1}         # optional: mask value -> class id (or 255), where the masks hold other values than 0,
1, 2, ... images: images                    # optional: the folders' names
masks: masks
val: 0.2                          # optional: the share kept for validation if there are no train and val folders
"""

import difflib
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from danet.data.images import list_images
from danet.data.labels import IGNORE, Classes, LabelMap
from danet.data.pairs import PairedFiles, pair_files
from danet.errors import InputError

_KEYS = ("classes", "palette", "ignore", "label_map", "images", "masks", "val")


def load(root: Path, split: str) -> PairedFiles:
    """The samples of `split`, "train" or "val", by file name. Which pictures validate depends on their names alone.

    Raises:
        InputError: no or a wrong dataset.yaml, no pictures, masks missing.
    """
    file = root / "dataset.yaml"
    settings = _read(file)
    classes = _classes(file, settings)
    label_map = _label_map(file, settings, len(classes))
    images, masks = (root / _text(file, settings, key) for key in ("images", "masks"))
    if (images / split).is_dir():
        pairs = pair_files(list_images(images / split), masks / split, images / split)
        return PairedFiles(classes, pairs, label_map)
    share = settings.get("val", 0.2)
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 < share < 1:
        raise InputError(file, f"val: {share!r} is no share between 0 and 1", "write for example val: 0.2")
    pairs = pair_files(list_images(images), masks, images)
    held_back = {
        pair.name for pair in sorted(pairs, key=lambda p: _digest(p.name))[: max(1, round(share * len(pairs)))]
    }
    chosen = [pair for pair in pairs if (pair.name in held_back) == (split == "val")]
    if not chosen or split not in ("train", "val"):
        raise InputError(images, f"{len(pairs)} pictures give no {split!r} part", "add pictures, or use train or val")
    return PairedFiles(classes, chosen, label_map)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()


def _read(file: Path) -> dict[str, Any]:
    try:
        settings = yaml.safe_load(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(file, "no such file", "write it: classes: [background, thing]; see docs/guide.md") from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise InputError(file, f"cannot be read ({' '.join(str(error).split())})", "mend the YAML") from error
    if not isinstance(settings, Mapping):
        raise InputError(file, "holds no `key: value` lines", "write at least classes: [background, thing]")
    for key in settings:
        if key not in _KEYS:
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise InputError(
                file, f"unknown key {key!r}", f"did you mean {near[0]}?" if near else f"use {', '.join(_KEYS)}"
            )
    return dict(settings)


def _classes(file: Path, settings: Mapping[str, Any]) -> Classes:
    names = settings.get("classes")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(file, f"classes: {names!r} is no list of names", "write classes: [background, thing]")
    palette = settings.get("palette")
    if palette is None:
        return Classes.named(tuple(names))
    good = isinstance(palette, list) and all(
        isinstance(c, list) and len(c) == 3 and all(type(v) is int and 0 <= v <= 255 for v in c) for c in palette
    )
    if not good:
        raise InputError(file, "palette is no list of [r, g, b] with numbers 0 to 255", "mend it or leave it out")
    return Classes(tuple(names), tuple(tuple(colour) for colour in palette))


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


def _text(file: Path, settings: Mapping[str, Any], key: str) -> str:
    value = settings.get(key, key)
    if not isinstance(value, str):
        raise InputError(file, f"{key}: {value!r} is no folder name", f"write for example {key}: {key}")
    return value
