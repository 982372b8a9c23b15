"""Divide a user's images into train and val: by folders, by lists, or by hashes of their names."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from danet.data.custom.layout import SPLITS, Folders, list_layout_images
from danet.data.custom.settings import Settings
from danet.data.custom.split_lists import read_splits
from danet.data.samples import Pair, PairedFiles, pair_files
from danet.errors import InputError

_ROBOFLOW = re.compile(r"(_(jpg|jpeg|png|bmp|tif|webp))?\.rf\.[0-9a-zA-Z]{20,}$")
"""The end that Roboflow adds to names; augmented copies of an image differ only in it."""


def load_split(settings: Settings, split: str) -> PairedFiles:
    """Load "train" or "val" of a user's folder, sorted by file name, or in the order of its list.

    If neither folders nor lists divide the images, hashes of their names decide which are used for validation.

    Raises:
        InputError: no images, missing masks, too few images to divide, or an invalid list.
    """
    layout = settings.layout
    own = layout.split_folders(split)
    pairs = list_pairs(settings, own or layout.undivided_folders)
    if layout.lists:
        listed = read_splits(layout, [pair.image for pair in list_pairs(settings, layout.undivided_folders, False)])
        if split not in listed:
            raise InputError(layout.root / "dataset.yaml", f"splits: lists no {split}", f"use {' or '.join(listed)}")
        by_image = {pair.image: pair for pair in pairs}
        pairs = [by_image[image] for image in listed[split] if image in by_image]
    elif own is None:
        if split not in SPLITS:
            raise InputError(layout.root / layout.images, f"has no {split!r} folder", f"use {' or '.join(SPLITS)}")
        names = [pair.name for pair in pairs]
        held_out = choose_validation(names, settings.val, bool(settings.by_sequence))
        chosen = [pair for pair in pairs if (pair.name in held_out) == (split == "val")]
        if not chosen:
            what = f"too few images to divide into train and val: {len(pairs)}"
            if len(pairs) > 1:
                what += f", all copies of {without_copy_mark(names[0])} that Roboflow made"
            raise InputError(layout.root / layout.images, what, "add images")
        pairs = chosen
    return settings.samples(pairs)


def list_pairs(settings: Settings, folders: Sequence[Folders], complete: bool | None = None) -> list[Pair]:
    """List the images in some folders with their masks; names are unique.

    Args:
        settings: the content of dataset.yaml.
        folders: the folders.
        complete: whether missing masks are errors; None: unless dataset.yaml says that such images are left out, and
            then they are.

    Raises:
        InputError: no images; missing masks.
    """
    skip, pairs = settings.skip_missing and complete is None, []
    complete = not settings.skip_missing if complete is None else complete
    for each in folders:
        files = list_layout_images(each, settings.layout.naming, settings.bands)
        found = pair_files(files, each.masks, each.images, settings.layout.naming, complete)
        pairs += [replace(pair, name=each.name_of(pair.image)) for pair in found]
    if skip and not (pairs := [pair for pair in pairs if pair.mask.is_file()]):
        what = f"contains no mask of the images in {folders[0].images}"
        raise InputError(folders[0].masks, what, "add the masks, or correct dataset.yaml")
    return pairs


def choose_validation(names: Sequence[str], fraction: float, by_sequence: bool) -> set[str]:
    """Return the names of the images used for validation, chosen by hashes of names.

    By sequence, whole sequences are chosen in the order of their hashes, as long as they fit into the fraction. If they
    are too long to reach half of it, the shortest is chosen, or, if it is too long too, the end of the longest. Copies
    of one image that Roboflow made stay together.

    Args:
        names: the names of all images.
        fraction: of the images, in (0, 1).
        by_sequence: whether frames of one sequence stay together; otherwise, images are chosen one by one.
    """
    count = max(1, round(fraction * len(names)))
    if not by_sequence:
        return _first(sorted(copies(names), key=lambda group: _digest(without_copy_mark(group[0]))), count)
    sequences = find_sequences(names)
    chosen: set[str] = set()
    for frames in sorted(sequences.values(), key=lambda frames: _digest(frames[0])):
        if len(chosen) + len(frames) <= count:
            chosen.update(frames)
    if 2 * len(chosen) < count:
        rest = [frames for frames in sequences.values() if frames[0] not in chosen]
        shortest, longest = min(rest, key=len), max(rest, key=len)
        whole = len(chosen) + len(shortest) <= 2 * fraction * len(names) and len(rest) > 1
        chosen.update(shortest if whole else _first(copies(longest)[::-1], count - len(chosen)))
    return chosen


def _first(groups: Sequence[list[str]], count: int) -> set[str]:
    """Return the first `count` names, and the rest of the last one's group; never all groups if there are several."""
    chosen: set[str] = set()
    for group in groups[: max(1, len(groups) - 1)]:
        if len(chosen) < count:
            chosen.update(group)
    return chosen


def find_sequences(names: Sequence[str]) -> dict[str, list[str]]:
    """Group names that differ only in their last number: pattern of the sequence -> names, in the order of the numbers.

    >>> find_sequences(["a_2", "a_10", "b"])
    {'a_#': ['a_2', 'a_10'], 'b': ['b']}
    """
    sequences: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        folder, slash, stem = name.rpartition("/")
        found = re.fullmatch(r"(.*?)(\d+)(\D*)", without_copy_mark(stem), re.DOTALL)
        key, number = (f"{found[1]}#{found[3]}", int(found[2])) if found else (without_copy_mark(stem), 0)
        sequences.setdefault(f"{folder}{slash}{key}", []).append((number, name))
    return {key: [name for _, name in sorted(frames)] for key, frames in sequences.items()}


def without_copy_mark(name: str) -> str:
    """Return a name without the end that tells the copies of an image apart which Roboflow made."""
    return _ROBOFLOW.sub("", name)


def copies(names: Sequence[str]) -> list[list[str]]:
    """Group the copies of one image that Roboflow made, in the order of their first names."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(without_copy_mark(name), []).append(name)
    return [*groups.values()]


def divided_sequences(names: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the sequences that have frames in several splits; `names` maps splits to the names of their images."""
    splits_of: dict[str, set[str]] = {}
    for split, own in names.items():
        for sequence in find_sequences(own):
            splits_of.setdefault(sequence, set()).add(split)
    return [sequence for sequence, splits in splits_of.items() if len(splits) > 1]


def _digest(name: str) -> bytes:
    return hashlib.sha256(name.encode(errors="surrogateescape")).digest()
