"""Divide a user's images into train and val."""

import hashlib

from danet.data.custom.layout import SPLITS, list_layout_images
from danet.data.custom.settings import Settings
from danet.data.samples import PairedFiles, pair_files
from danet.errors import InputError


def load_split(settings: Settings, split: str) -> PairedFiles:
    """Load "train" or "val" of a user's folder, sorted by file name.

    If the images are not divided into folders, hashes of their names decide which are used for validation.

    Raises:
        InputError: no images, missing masks, or too few images to divide.
    """
    layout = settings.layout
    own = layout.split_folders(split)
    folders = own or layout.undivided_folders
    files = list_layout_images(folders, layout.naming, settings.bands)
    pairs = pair_files(files, folders.masks, folders.images, layout.naming, not settings.skip_missing)
    if settings.skip_missing and not (pairs := [pair for pair in pairs if pair.mask.is_file()]):
        what = f"contains no mask of the images in {folders.images}"
        raise InputError(folders.masks, what, "add the masks, or correct dataset.yaml")
    if own is None:
        if split not in SPLITS:
            raise InputError(folders.images, f"has no {split!r} folder", f"use {' or '.join(SPLITS)}")
        count = max(1, round(settings.val * len(pairs)))
        held_out = {pair.name for pair in sorted(pairs, key=lambda pair: _digest(pair.name))[:count]}
        chosen = [pair for pair in pairs if (pair.name in held_out) == (split == "val")]
        if not chosen:
            what = f"too few images to divide into train and val: {len(pairs)}"
            raise InputError(folders.images, what, "add images")
        pairs = chosen
    return PairedFiles(settings.classes, pairs, settings.label_map, settings.read_mask, settings.bands)


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
