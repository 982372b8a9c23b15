"""A proposed dataset.yaml, and its text with a comment on each setting."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from danet.data.classes import IGNORE, Classes, Color
from danet.data.custom.layout import PLACEHOLDER, Layout
from danet.data.custom.scan_masks import MaskKind
from danet.data.custom.settings import VAL
from danet.data.naming import SAME_STEM
from danet.files import check_new, write_atomically

Pixels = Mapping[int, int] | Mapping[Color, int]


@dataclass(frozen=True)
class Proposal:
    """The proposed content of dataset.yaml.

    Args:
        layout: the folders; `splits` is empty if the images are not divided into train and val.
        pairs: number of images with a mask.
        kind: what the masks contain.
        values: mask value, or color if `kind` is "colors" -> pixels.
        classes: names and palette; if `kind` is "colors", the palette is the colors in the masks.
        ignore: the mask value of unlabeled pixels; None if there is none.
        label_map: mask value -> train id or 255; None if the values are the train ids.
        notes: what the user should review, one line each.
        channels: see `MaskScan`.
        transparent: see `MaskScan`.
        colors: the mask colors of each class if `kind` is "colors", else None.
        by_sequence: whether frames of one sequence stay together when images are chosen for validation.
        exif: "apply" or "ignore", if the masks show which; else None.
        threshold: see `Meaning`.
        white: see `MaskScan`.
        division: how the images are divided into train and val, in one line.
    """

    layout: Layout
    pairs: int
    kind: MaskKind
    values: Pixels
    classes: Classes
    ignore: int | None
    label_map: dict[int, int] | None
    notes: tuple[str, ...]
    channels: int | None
    transparent: int | None
    colors: tuple[tuple[Color, ...], ...] | None = None
    by_sequence: bool = False
    exif: str | None = None
    threshold: int | None = None
    white: int | None = None
    division: str = ""


def write(root: Path, proposal: Proposal, title: str | None = None) -> Path:
    """Write dataset.yaml, with a comment on each setting.

    Args:
        root: the folder.
        proposal: its content.
        title: the first comment; None: how many masks the proposal is based on.

    Returns:
        Its path.

    Raises:
        InputError: it already exists, or cannot be written.
    """
    file = new_file(root)
    title = (
        title or f"Proposed by danet init from {proposal.pairs} masks ({proposal.kind}). Edit it, then run danet check."
    )
    content = ("\n".join(_lines(proposal, title)) + "\n").encode(errors="backslashreplace")
    write_atomically(file, content, overwrite=False)
    return file


def new_file(root: Path) -> Path:
    """Return the path of a dataset.yaml that does not exist yet.

    Raises:
        InputError: it already exists.
    """
    file = root / "dataset.yaml"
    check_new(file, remedy="edit it, or rename it to get a new proposal")
    return file


def _lines(proposal: Proposal, title: str) -> list[str]:
    """Format dataset.yaml."""
    names, palette = proposal.classes.names, proposal.classes.palette
    total = sum(proposal.values.values())
    lines = [f"# {_printable(title)}"]
    if proposal.notes:
        lines += ["#", "# Please review:", *(f"# - {_printable(note)}" for note in proposal.notes)]
    lines += [
        "#",
        f"# {'Colors' if proposal.kind == 'colors' else 'Values'} in the masks, and their share of all pixels:",
    ]
    lines += [f"#   {_value(v):16} {100 * pixels / total:6.2f}%" for v, pixels in proposal.values.items()]
    lines += ["#", f"# {_printable(proposal.division)}"] if proposal.division else []
    lines += ["", *_folder_lines(proposal.layout, proposal.by_sequence)]
    if proposal.exif is not None:
        lines.append(f"exif: {proposal.exif}   # the EXIF orientation of images, to fit the masks")
    if proposal.channels is not None:
        lines.append(f"channels: {proposal.channels}   # number of bands of each image")
    elif proposal.transparent is not None:
        comment = "uncomment if the last band is data, such as near infrared, and not transparency"
        lines.append(f"# channels: {proposal.transparent}   # {comment}")
    if proposal.white is not None:
        lines.append(f"white: {proposal.white}   # value that the network reads as 1; otherwise 65535")
    lines += ["", "classes:   # one name per class; class ids start at 0"]
    lines += [f"  - {_yaml(name)}   # {i}" for i, name in enumerate(names)]
    if proposal.colors is not None:
        lines.append("colors:   # color of each class in the masks (R, G, B)")
        shown = [list(own[0]) if len(own) == 1 else [list(color) for color in own] for own in proposal.colors]
    else:
        lines.append("palette:   # color of each class in overlays and plots (R, G, B)")
        shown = [list(color) for color in palette]
    lines += [f"  - {color}   # {_printable(name)}" for name, color in zip(names, shown, strict=True)]
    if proposal.ignore is not None:
        lines.append(
            f"ignore: {proposal.ignore}   # mask value of unlabeled pixels; not used in training or evaluation"
        )
    if proposal.threshold is not None:
        lines.append(f"threshold: {proposal.threshold}   # values from {proposal.threshold} on are {names[1]}")
    if proposal.label_map is not None:
        lines.append(f"label_map:   # mask value: class id, or {IGNORE} for unlabeled")
        lines += [f"  {value}: {train_id}" for value, train_id in proposal.label_map.items()]
    return lines


def _folder_lines(layout: Layout, by_sequence: bool) -> list[str]:
    names = " and ".join(layout.splits.values())
    divided = f"; {PLACEHOLDER} is {names}" if PLACEHOLDER in layout.images else f", with {names} inside"
    settings = [
        (f"images: {_yaml(layout.images)}", f"folder of the images{divided if names else ''}"),
        (f"masks: {_yaml(layout.masks)}", "folder of the masks"),
    ]
    if any(split != name for split, name in layout.splits.items()):
        settings.append(("splits:", "names of the train and val folders"))
        settings += [(f"  {split}: {_yaml(name)}", "") for split, name in layout.splits.items()]
    suffix, image_suffix, image_part, mask_part = layout.naming
    example = f"a{image_part}{image_suffix}.jpg"
    if layout.naming != SAME_STEM:
        comment = f"the mask of {example} is {layout.naming.mask_of(Path(example))}"
        settings.append((f"mask_suffix: {_yaml(suffix)}", comment))
    if image_suffix:
        settings.append((f"image_suffix: {_yaml(image_suffix)}", ""))
    if image_part:
        settings.append((f"mask_replace: {{{_yaml(image_part)}: {_yaml(mask_part)}}}", ""))
    elif mask_part:
        settings.append((f"mask_prefix: {_yaml(mask_part)}", ""))
    if layout.lists:
        files = list(dict.fromkeys(layout.lists.values()))
        if len(files) == 1:
            settings.append((f"splits: {_yaml(files[0])}", "the split of each image"))
        else:
            settings.append(("splits:", "lists of the images of each split"))
            settings += [(f"  {split}: {_yaml(name)}", "") for split, name in layout.lists.items()]
    elif not names:
        settings.append((f"val: {VAL}", "fraction of the images used for validation; file names decide which"))
        if by_sequence:
            settings.append(("split_by: sequence", "frames of one sequence are all in train or all in val"))
    width = max(len(setting) for setting, _ in settings)
    return [f"{setting:{width}}   # {comment}" if comment else setting for setting, comment in settings]


def _value(value: int | Color) -> str:
    return str(value) if isinstance(value, int) else str(list(value))


def _yaml(text: str) -> str:
    """Format a text as YAML, in quotes if necessary."""
    if not text.isprintable():
        return json.dumps(text)
    return yaml.safe_dump(text, default_style=None, allow_unicode=True, width=10**6).splitlines()[0]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)
