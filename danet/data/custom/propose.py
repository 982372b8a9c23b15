"""A proposal for the dataset.yaml of a user's folder: `danet init DIR`.

The values of all masks are listed, what they mean is guessed, and what is doubtful is said. The proposal is to be read:
names of classes stand in no mask.
"""

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import yaml

from danet.data.classes import IGNORE, Classes, Color, distinct_palette
from danet.data.custom.layout import SPLIT, SPLITS, Layout
from danet.data.custom.meaning import Kind, Meaning, meaning_of
from danet.data.custom.scan_masks import Survey, survey
from danet.data.datasets import cityscapes
from danet.data.naming import SAME_STEM
from danet.errors import InputError

_LISTS = ("classes.txt", "class_names.txt", "labels.txt", "labelmap.txt")
_INSTANCES, _MOST_CODES = 1000, 64  # instances are numbered from 1000 times their class on; codes of classes are few
_BINARY = ("background", "foreground")


@dataclass(frozen=True)
class Proposal:
    """What dataset.yaml should say.

    Args:
        layout: the folders; `splits` is empty if the images of train and val lie together.
        pairs: images with a mask.
        kind: what the masks hold.
        values: what was found in the masks: value, or color of "rgb" masks -> pixels.
        classes: names, and colors; of "rgb" masks the colors that the masks hold.
        ignore: the mask value that means unlabeled; None if there is none.
        label_map: mask value -> train id or 255; None if the values are the train ids.
        notes: what is doubtful or missing, a line each.
        channels, transparent: see `Survey`.
    """

    layout: Layout
    pairs: int
    kind: Kind
    values: Mapping[int, int] | Mapping[Color, int]
    classes: Classes
    ignore: int | None
    label_map: dict[int, int] | None
    notes: tuple[str, ...]
    channels: int | None
    transparent: int | None


def propose(root: Path, ignore: int | None = None) -> Proposal:
    """Look at every mask below `root` and guess what it means.

    Args:
        ignore: the mask value that means unlabeled, where the user knows it.

    Raises:
        InputError: no images or masks found, or masks that hold no classes (smoothed colors, instances).
    """
    found = survey(root)
    listed = _listed(root, found.layout)
    masks = root / found.layout.masks
    if found.colors:
        classes, more = _colored_classes(masks, found.colors, listed)
        return _proposal(found, "rgb", found.colors, classes, None, None, more)
    low, high = min(found.values), max((value for value in found.values if value != 65535), default=0)
    if low < 0 or high >= _INSTANCES or (high > IGNORE and len(found.values) > _MOST_CODES):
        what = f"{len(found.values)} values from {low} to {high}: numbers of instances, not of classes"
        raise InputError(masks, what, "give the masks of classes (Cityscapes: *_labelIds.png)")
    if ignore not in (None, IGNORE, *found.values):
        held = ", ".join(map(str, list(found.values)[:10])) + (" ..." if len(found.values) > 10 else "")
        raise InputError("--ignore", f"no mask holds the value {ignore}", f"give one of {held}, or leave it out")
    meaning = meaning_of(found, len(listed), ignore)
    if not meaning.ids:
        raise InputError(masks, f"every pixel has the value {meaning.ignore}: unlabeled", "label some")
    if meaning.kind == "cityscapes labelIds":
        others = {value: IGNORE for value in range(34) if value not in meaning.ids}
        label_map = {value: train_id for train_id, value in enumerate(meaning.ids)} | others
        return _proposal(found, meaning.kind, found.values, cityscapes.CLASSES, IGNORE, label_map, meaning.notes)
    meaning = _with_all_names(meaning, len(listed))
    label_map = {value: train_id for train_id, value in enumerate(meaning.ids)}
    if meaning.ignore not in (None, IGNORE) and IGNORE in found.values:
        label_map[IGNORE] = IGNORE
    names, more = _names(meaning, listed)
    spare = distinct_palette(256)
    classes = Classes(names, tuple(found.palette.get(v, spare[i]) for i, v in enumerate(meaning.ids)))
    plain = all(value == train_id for value, train_id in label_map.items())
    notes = (*meaning.notes, *more)
    return _proposal(found, meaning.kind, found.values, classes, meaning.ignore, None if plain else label_map, notes)


def _with_all_names(meaning: Meaning, listed: int) -> Meaning:
    """With the classes of a longer list too, whose values may well be in other masks: value 0 is the first of it."""
    absent = listed - len(meaning.ids)
    if absent <= 0 or max(meaning.ids) >= listed or meaning.ignore is None or meaning.ignore < listed:
        return meaning
    note = f"{absent} of the {listed} listed names are in no mask; value 0 is taken as the first"
    return replace(meaning, ids=tuple(range(listed)), notes=(*meaning.notes, note))


def _proposal(
    found: Survey,
    kind: Kind,
    values: Mapping[int, int] | Mapping[Color, int],
    classes: Classes,
    ignore: int | None,
    label_map: dict[int, int] | None,
    notes: tuple[str, ...],
) -> Proposal:
    bands = found.channels, found.transparent
    notes = (*found.notes, *notes)
    return Proposal(found.layout, found.pairs, kind, values, classes, ignore, label_map, notes, *bands)


def _names(meaning: Meaning, listed: Mapping[str, Color | None]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if len(listed) == len(meaning.ids):
        return tuple(listed), ()
    more = (
        (f"the list of {len(listed)} names is not used: the masks have {len(meaning.ids)} classes",) if listed else ()
    )
    if meaning.kind == "0/255" or meaning.ids == (0, 1):
        return _BINARY, more
    return tuple(f"class_{value}" for value in meaning.ids), (*more, "name the classes: their names stand in no mask")


def _colored_classes(
    masks: Path, colors: Mapping[Color, int], listed: Mapping[str, Color | None]
) -> tuple[Classes, tuple[str, ...]]:
    if len(colors) > IGNORE:
        common = ", ".join(str(list(color)) for color in sorted(colors, key=lambda c: -colors[c])[:8])
        what = f"{len(colors)} colors, the most frequent {common}: smoothed edges, not one color a class"
        raise InputError(masks, what, "save the masks without smoothing, as PNG")
    note = "a color that means unlabeled: take it out of classes and colors, and write it as ignore: [r, g, b]"
    known = {name: color for name, color in listed.items() if color is not None}
    if known and colors.keys() <= set(known.values()):
        return Classes(tuple(known), tuple(known.values())), (note,)
    palette = tuple(colors)
    if len(palette) == 2 and palette[0] == (0, 0, 0):
        return Classes(_BINARY, palette), ()
    names = tuple("rgb_{}_{}_{}".format(*color) for color in palette)
    return Classes(names, palette), (note, "name the classes: their names stand in no mask")


def _listed(root: Path, layout: Layout) -> dict[str, Color | None]:
    """Names of classes from a text file beside the folders: one a line, in CVAT's form with a color, NAME:R,G,B::; or
    from a _classes.csv beside the images, as Roboflow writes it: VALUE, NAME after a line of headings.
    """
    file = next((root / name for name in _LISTS if (root / name).is_file()), None)
    if file is None:
        images, _ = layout.of(SPLITS[0]) or layout.together
        return _numbered(images / "_classes.csv")
    listed: dict[str, Color | None] = {}
    for line in _text(file).splitlines():
        name, _, rest = line.partition(":")
        channels = rest.split(":")[0].split(",")
        color = tuple(int(c) for c in channels if c.strip().isdecimal() and int(c) < 256)
        if name.strip() and not name.startswith(("#", "__ignore__")):
            listed[name.strip()] = (color[0], color[1], color[2]) if len(color) == 3 else None
    return listed


def _numbered(file: Path) -> dict[str, Color | None]:
    """The names of VALUE, NAME in the order of their values, where these are 0, 1, 2, ..."""
    try:
        rows = list(csv.reader(_text(file).splitlines())) if file.is_file() else []
    except csv.Error:
        return {}
    names = {int(row[0]): row[1].strip() for row in rows if len(row) == 2 and row[0].strip().isdecimal()}
    return {names[value]: None for value in sorted(names)} if sorted(names) == list(range(len(names))) else {}


def _text(file: Path) -> str:
    return file.read_text(encoding="utf-8-sig", errors="replace")


def write(root: Path, proposal: Proposal) -> Path:
    """Write ROOT/dataset.yaml, each line explained, and return its path.

    Raises:
        InputError: there is one, or it cannot be written.
    """
    file = root / "dataset.yaml"
    try:
        with open(file, "x", encoding="utf-8", errors="backslashreplace") as opened:
            opened.write("\n".join(_lines(proposal)) + "\n")
    except FileExistsError as error:
        raise InputError(file, "exists", "change it by hand, or rename it first") from error
    except OSError as error:
        raise InputError(file, f"cannot be written ({error.strerror})", "give a folder that can be written") from error
    return file


def _lines(proposal: Proposal) -> list[str]:
    """dataset.yaml, as danet/data/custom/dataset_yaml.py reads it."""
    names, palette = proposal.classes.names, proposal.classes.palette
    total = sum(proposal.values.values())
    text = [
        "# Written by danet init, a proposal: mend what is wrong, then run danet check.",
        f"# Found in {proposal.pairs} masks ({proposal.kind}):",
        *(f"#   {_shown(v):16} {100 * pixels / total:6.2f} % of the pixels" for v, pixels in proposal.values.items()),
        *(f"# NOTE: {_printable(note)}" for note in proposal.notes),
        "",
        *_folders(proposal.layout),
    ]
    if proposal.channels is not None:
        text.append(f"channels: {proposal.channels}   # the bands of an image, as they are stored")
    elif proposal.transparent is not None:
        what = "if the last band is no transparency but data, such as near infrared"
        text.append(f"# channels: {proposal.transparent}   # {what}")
    text += ["", "classes:   # the id of a class is its place in this list, from 0"]
    text += [f"  - {_yaml(name)}   # {i}" for i, name in enumerate(names)]
    if proposal.kind == "rgb":
        text.append("colors:   # the color that each class has in the masks")
    else:
        text.append("palette:   # the color in which each class is drawn")
    text += [f"  - {list(color)}   # {_printable(name)}" for name, color in zip(names, palette, strict=True)]
    if proposal.ignore is not None:
        text.append(f"ignore: {proposal.ignore}   # the mask value that means unlabeled: no loss and no metric sees it")
    if proposal.label_map is not None:
        text.append(f"label_map:   # mask value: id of its class, or {IGNORE} to ignore it")
        text += [f"  {value}: {train_id}" for value, train_id in proposal.label_map.items()]
    return text


def _folders(layout: Layout) -> list[str]:
    """The lines of dataset.yaml that say where the files lie."""
    names = " and ".join(layout.splits.values())
    inside = (f", {SPLIT} is {names}" if SPLIT in layout.images else f", in {names}") if names else ""
    text = [
        f"images: {_yaml(layout.images)}   # folder of the images{inside}",
        f"masks: {_yaml(layout.masks)}   # folder of the masks{inside}",
    ]
    if any(split != name for split, name in layout.splits.items()):
        text.append("splits:   # what the folders of train and val are called")
        text += [f"  {split}: {_yaml(name)}" for split, name in layout.splits.items()]
    suffix, of_image = layout.naming
    if layout.naming != SAME_STEM:
        text.append(f"mask_suffix: {_yaml(suffix)}   # the mask of a{of_image}.jpg is a{suffix}")
    if of_image:
        text.append(f"image_suffix: {_yaml(of_image)}")
    if not names:
        text.append("val: 0.2   # the share of the images that validates; which, depends on their names alone")
    return text


def _shown(value: int | Color) -> str:
    return str(value) if isinstance(value, int) else str(list(value))


def _yaml(text: str) -> str:
    """A text as YAML, in quotes if it needs them."""
    if not text.isprintable():
        return json.dumps(text)
    return yaml.safe_dump(text, default_style=None, allow_unicode=True, width=10**6).splitlines()[0]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
