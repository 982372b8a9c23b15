"""Propose the dataset.yaml of a user's folder from its masks. Command: danet init DIR."""

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from danet.data.classes import IGNORE, Classes, Color, distinct_palette
from danet.data.custom.layout import SPLITS, Layout
from danet.data.custom.proposal import Pixels, Proposal
from danet.data.custom.scan_masks import MaskKind, MaskScan, Meaning, infer_meaning, scan
from danet.data.datasets import cityscapes
from danet.errors import InputError, list_names
from danet.files import read_limited

_CLASS_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "labelmap.txt")
_FIRST_INSTANCE = 1000  # instance ids of class 1 begin at 1000 in Cityscapes
_MAX_CODES = 64  # masks with more values above 255 contain instance ids, not class codes
_BINARY = ("background", "foreground")
_NAME_CLASSES = "class names cannot be inferred from masks: replace the names under classes"
_UNLABELED_COLOR = "if a color means unlabeled, remove it from classes and colors, and write it as ignore: [r, g, b]"


def propose(root: Path, ignore: int | None = None) -> Proposal:
    """Read every mask below a folder and propose its dataset.yaml.

    Args:
        root: the folder that contains the images and masks.
        ignore: the mask value of unlabeled pixels, if known.

    Raises:
        InputError: no images or masks were found; the masks contain smoothed colors or instance ids; no mask has the
            value `ignore`.
    """
    scanned = scan(root)
    listed = _listed_classes(root, scanned.layout)
    masks = root / scanned.layout.masks
    if scanned.colors:
        classes, notes = _colored_classes(masks, scanned.colors, listed)
        return _proposal(scanned, "colors", scanned.colors, classes, None, None, notes)
    _check_values(masks, scanned.values, ignore)
    meaning = infer_meaning(scanned, len(listed), ignore)
    if not meaning.ids:
        raise InputError(masks, f"every pixel is unlabeled (value {meaning.ignore})", "label some pixels")
    if meaning.kind == "Cityscapes label ids":
        others = {value: IGNORE for value in range(34) if value not in meaning.ids}
        label_map = {value: train_id for train_id, value in enumerate(meaning.ids)} | others
        return _proposal(scanned, meaning.kind, scanned.values, cityscapes.CLASSES, IGNORE, label_map, meaning.notes)
    meaning = _with_absent_classes(meaning, len(listed))
    label_map = {value: train_id for train_id, value in enumerate(meaning.ids)}
    if meaning.ignore not in (None, IGNORE) and IGNORE in scanned.values:
        label_map[IGNORE] = IGNORE
    names, name_notes = _names(meaning, listed)
    spare = distinct_palette(256)
    classes = Classes(names, tuple(scanned.palette.get(v, spare[i]) for i, v in enumerate(meaning.ids)))
    identity = all(value == train_id for value, train_id in label_map.items())
    notes = (*meaning.notes, *name_notes)
    mapping = None if identity else label_map
    return _proposal(scanned, meaning.kind, scanned.values, classes, meaning.ignore, mapping, notes)


def _check_values(masks: Path, values: Mapping[int, int], ignore: int | None) -> None:
    low, high = min(values), max((value for value in values if value != 65535), default=0)
    if low < 0 or high >= _FIRST_INSTANCE or (high > IGNORE and len(values) > _MAX_CODES):
        what = f"the masks have {len(values)} values from {low} to {high}: instance ids, not class ids"
        raise InputError(masks, what, "use masks of class ids (Cityscapes: *_labelIds.png)")
    if ignore not in (None, IGNORE, *values):
        remedy = f"choose one of {list_names([str(value) for value in values])}, or omit `ignore`"
        raise InputError("ignore", f"no mask has the value {ignore}", remedy)


def _with_absent_classes(meaning: Meaning, listed: int) -> Meaning:
    """Add the listed classes without pixels, whose values may occur in other masks; value 0 is the first class."""
    absent = listed - len(meaning.ids)
    if absent <= 0 or max(meaning.ids) >= listed or meaning.ignore is None or meaning.ignore < listed:
        return meaning
    note = f"{absent} of the {listed} listed classes have no pixels; value 0 is read as the first class in the list"
    return replace(meaning, ids=tuple(range(listed)), notes=(*meaning.notes, note))


def _proposal(
    scanned: MaskScan,
    kind: MaskKind,
    values: Pixels,
    classes: Classes,
    ignore: int | None,
    label_map: dict[int, int] | None,
    notes: tuple[str, ...],
) -> Proposal:
    bands = scanned.channels, scanned.transparent
    notes = (*scanned.notes, *notes)
    return Proposal(scanned.layout, scanned.pairs, kind, values, classes, ignore, label_map, notes, *bands)


def _names(meaning: Meaning, listed: Mapping[str, Color | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if len(listed) == len(meaning.ids):
        return tuple(listed), ()
    what = f"the list of class names is not used: it has {len(listed)} names, but the masks have {len(meaning.ids)}"
    notes = (f"{what} classes",) if listed else ()
    if meaning.kind == "0/255" or meaning.ids == (0, 1):
        return _BINARY, notes
    return tuple(f"class_{value}" for value in meaning.ids), (*notes, _NAME_CLASSES)


def _colored_classes(
    masks: Path, colors: Mapping[Color, int], listed: Mapping[str, Color | None]
) -> tuple[Classes, tuple[str, ...]]:
    if len(colors) > IGNORE:
        frequent = ", ".join(str(list(color)) for color in sorted(colors, key=lambda c: -colors[c])[:8])
        what = f"the masks have {len(colors)} colors, probably from smoothed edges (most frequent: {frequent})"
        raise InputError(masks, what, "save them as PNG without smoothing, with one exact color per class")
    colors_of = {name: color for name, color in listed.items() if color is not None}
    if colors_of and colors.keys() <= set(colors_of.values()):
        return Classes(tuple(colors_of), tuple(colors_of.values())), (_UNLABELED_COLOR,)
    palette = tuple(colors)
    if len(palette) == 2 and palette[0] == (0, 0, 0):
        return Classes(_BINARY, palette), ()
    names = tuple("rgb_{}_{}_{}".format(*color) for color in palette)
    return Classes(names, palette), (_UNLABELED_COLOR, _NAME_CLASSES)


def _listed_classes(root: Path, layout: Layout) -> dict[str, Color | None]:
    """Read the names of classes, and their colors if given, from a list in the folder.

    A text file has one name per line, or CVAT's NAME:R,G,B:: lines. Roboflow's _classes.csv is next to the images.
    """
    file = next((root / name for name in _CLASS_LISTS if (root / name).is_file()), None)
    if file is None:
        folders = layout.split_folders(SPLITS[0]) or layout.undivided_folders
        return _csv_classes(folders.images / "_classes.csv")
    listed: dict[str, Color | None] = {}
    for line in _read_text(file).splitlines():
        name, _, rest = line.partition(":")
        channels = rest.split(":")[0].split(",")
        color = tuple(int(c) for c in channels if c.strip().isdecimal() and int(c) < 256)
        if name.strip() and not name.startswith(("#", "__ignore__")):
            listed[name.strip()] = (color[0], color[1], color[2]) if len(color) == 3 else None
    return listed


def _csv_classes(file: Path) -> dict[str, Color | None]:
    """Read rows of VALUE, NAME; return no names unless the values are 0, 1, 2, ..."""
    try:
        rows = list(csv.reader(_read_text(file).splitlines())) if file.is_file() else []
    except csv.Error:
        return {}
    names = {int(row[0]): row[1].strip() for row in rows if len(row) == 2 and row[0].strip().isdecimal()}
    return {names[value]: None for value in sorted(names)} if sorted(names) == list(range(len(names))) else {}


def _read_text(file: Path) -> str:
    try:
        return read_limited(file).decode("utf-8-sig", errors="replace")
    except (OSError, ValueError) as error:
        raise InputError(file, f"cannot be read ({error})", "correct it, or move it away") from error
