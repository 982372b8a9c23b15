"""A look at a user's folder before it has a dataset.yaml: what its masks hold, and how its images are stored."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from danet.data.classes import Color
from danet.data.custom.discover import find_layout
from danet.data.custom.layout import SPLITS, Layout, images_in, masks_in
from danet.data.custom.verify import each, histogram
from danet.data.images.channels import Bands
from danet.data.images.color_masks import count_colors, palette_of, read_colors
from danet.data.images.read import ARRAYS, read_header, read_image, read_mask
from danet.data.images.tiff_npy import Header
from danet.errors import InputError


@dataclass(frozen=True)
class Survey:
    """What lies in a folder.

    Args:
        layout: the folders; `splits` is empty if the images of train and val lie together.
        pairs: images with a mask.
        values: mask value -> pixels; empty if the masks are to be read as colors.
        colors: color -> pixels; empty unless the masks are to be read as colors.
        palette: mask value -> color, for palette masks.
        label_ids: whether the masks' names say that they hold Cityscapes' labelIds.
        notes: what a user should know, a line each.
        channels: the bands of an image, where they are not read as RGB; else None.
        transparent: the bands of an image with its transparency, where that differs within an image; else None.
    """

    layout: Layout
    pairs: int
    values: dict[int, int]
    colors: dict[Color, int]
    palette: dict[int, Color]
    label_ids: bool
    notes: tuple[str, ...]
    channels: int | None = None
    transparent: int | None = None


def survey(root: Path) -> Survey:
    """Find images and masks below `root`, and read every mask.

    Raises:
        InputError: see `find_layout`; no mask that can be read.
    """
    layout, notes = find_layout(root)
    places = dict.fromkeys(layout.of(split) or layout.together for split in layout.splits or SPLITS)
    images = [(file, masks) for results, masks in places for file in _images(results, masks, layout)]
    found = [file for place in dict.fromkeys(masks for _, masks in places) for file in masks_in(place)]
    if layout.images == layout.masks:
        found = [file for file in found if layout.naming.is_mask(file)]
    wanted = [masks / layout.naming.mask_of(image) for image, masks in images]
    there, asked = set(found), set(wanted)
    paired = sorted(there & asked)
    told = "images have no mask (missing_masks: skip in dataset.yaml leaves them out)"
    notes += _without_partner(told, [mask.name for mask in wanted if mask not in there])
    notes += _without_partner("masks have no image", [mask.name for mask in found if mask not in asked])
    values, colors, palette, more = _contents(paired)
    channels, transparent, more_notes = _bands([image for image, _ in images])
    return Survey(
        layout,
        len(paired),
        values,
        colors,
        palette,
        "labelids" in layout.naming.mask_suffix.lower(),
        (*notes, *more, *more_notes),
        channels,
        transparent,
    )


def _images(images: Path, masks: Path, layout: Layout) -> list[Path]:
    together = images == masks
    return [file for file in images_in(images) if not (together and layout.naming.is_mask(file))]


def _without_partner(what: str, names: list[str]) -> list[str]:
    return [f"{len(names)} {what}: {', '.join(names[:5])}{' ...' if names[5:] else ''}"] if names else []


class _Mask(NamedTuple):
    values: dict[int, int]
    palette: tuple[Color, ...] | None
    colored: bool
    problem: InputError | None


def _contents(files: Sequence[Path]) -> tuple[dict[int, int], dict[Color, int], dict[int, Color], list[str]]:
    masks = each(_look, files)
    problems = [mask.problem for mask in masks if mask.problem]
    if len(problems) == len(masks):
        raise problems[0]
    notes = (
        [f"{len(problems)} masks cannot be read (danet check names all), the first: {problems[0]}"] if problems else []
    )
    used = {(v, mask.palette[v]) for mask in masks if mask.palette for v in mask.values if v < len(mask.palette)}
    disagree = len({value for value, _ in used}) < len(used)
    if disagree:
        notes.append("the palette differs from mask to mask: their colors count, not their indices")
    if disagree or any(mask.colored for mask in masks):
        colors: Counter[Color] = Counter()
        for counts in each(_colors, files):
            colors.update(counts)
        return {}, dict(sorted(colors.items())), {}, notes
    values: Counter[int] = Counter()
    for mask in masks:
        values.update(mask.values)
    whole = next((dict(enumerate(mask.palette)) for mask in masks if mask.palette), {})
    palette = {} if all(color == (value,) * 3 for value, color in used) else {**whole, **dict(used)}
    return dict(sorted(values.items())), {}, palette, notes


def _look(file: Path) -> _Mask:
    try:
        return _Mask(histogram(read_mask(file)), palette_of(file), False, None)
    except InputError as error:
        colored = bool(_colors(file))
        return _Mask({}, None, colored, None if colored else error)


def _colors(file: Path) -> dict[Color, int]:
    try:
        return count_colors(read_colors(file))
    except InputError:
        return {}


def _bands(images: Sequence[Path]) -> tuple[int | None, int | None, list[str]]:
    """`Survey.channels`, `Survey.transparent` and notes of images."""
    headers = [(file, header) for file, header in zip(images, each(_header, images), strict=True) if header]
    if not headers:
        return None, None, []
    counts = Counter((header.channels, header.alpha) for _, header in headers)
    count, alpha = counts.most_common(1)[0][0]
    arrays = any(file.suffix.lower() in ARRAYS for file, _ in headers)
    channels = count if arrays or (count not in (1, 3) and not alpha) else None
    notes = []
    others = [file.name for file, header in headers if header.channels != count]
    if channels is not None and others:
        notes.append(f"{len(others)} images have not {count} bands as most: {', '.join(others[:5])}")
    deep = sum(header.bits == 16 for _, header in headers)
    if deep:
        notes.append(f"{deep} images have 16 bits a value: if 65535 is not what means white, write white: VALUE")
    seen = [file for file, header in headers if header.alpha and header.channels == count][:50]
    varies = alpha and any(each(lambda file: _varies(file, count), seen))
    return channels, count if varies else None, notes


def _header(file: Path) -> Header | None:
    try:
        return read_header(file)
    except InputError:  # danet check names it
        return None


def _varies(file: Path, count: int) -> bool:
    try:
        last = read_image(file, bands=Bands(count))[..., -1]
    except InputError:
        return False
    return bool(last.min() != last.max())
