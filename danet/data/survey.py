"""A look at a user's folder before it has a dataset.yaml: where pictures and masks lie, and what the masks hold."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from danet.data.bands import Bands
from danet.data.colours import count_colours, palette_of, read_colours
from danet.data.examine import each, histogram
from danet.data.images import ARRAYS, SUFFIXES, read_header, read_image, read_mask
from danet.data.labels import Colour
from danet.data.rasters import Header
from danet.errors import InputError

_IMAGES = (
    *("images", "imgs", "img", "image", "jpegimages", "leftimg8bit", "pictures", "photos"),
    *("inputs", "input", "frames", "rgb", "raw"),
)
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "segmentationclass"),
    *("segmentations", "segmentation", "seg", "gt", "gtfine", "groundtruth", "groundtruths", "targets", "target"),
)
_SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")


@dataclass(frozen=True)
class Survey:
    """What lies in a folder.

    Args:
        images, masks: the folders, as they are written in dataset.yaml.
        mask_suffix: what follows a picture's stem in its mask's name.
        splits: those of "train" and "val" that have folders of their own; none if all pictures lie together.
        pairs: pictures with a mask.
        values: mask value -> pixels; empty if the masks are to be read as colours.
        colours: colour -> pixels; empty unless the masks are to be read as colours.
        palette: mask value -> colour, for palette masks.
        label_ids: whether the masks' names say that they hold Cityscapes' labelIds.
        notes: what a user should know, a line each.
        channels: the bands of a picture, where they are not read as RGB; else None.
        transparent: the bands of a picture with its transparency, where that differs within a picture; else None.
    """

    images: str
    masks: str
    mask_suffix: str
    splits: tuple[str, ...]
    pairs: int
    values: dict[int, int]
    colours: dict[Colour, int]
    palette: dict[int, Colour]
    label_ids: bool
    notes: tuple[str, ...]
    channels: int | None = None
    transparent: int | None = None


def survey(root: Path) -> Survey:
    """Find pictures and masks below `root` by the usual names of their folders, and read every mask.

    Raises:
        InputError: no such folders, an order of folders that dataset.yaml cannot name, no mask named like a picture, or
            none that can be read.
    """
    if not root.is_dir():
        raise InputError(root, "no such folder", "give the folder that holds images and masks")
    images, masks = _find(root, _IMAGES, "pictures"), _find(root, _MASKS, "masks")
    splits, notes = _splits(images)
    places = [(images / split, masks / split) for split in splits] or [(images, masks)]
    pictures = [(picture, place) for where, place in places for picture in _pictures(where)]
    found = [mask for _, place in places for mask in _mask_files(place)]
    suffix = _suffix({picture.stem for picture, _ in pictures}, [mask.name for mask in found], masks)
    wanted = [place / f"{picture.stem}{suffix}" for picture, place in pictures]
    paired = sorted(set(wanted) & set(found))
    notes += _without_partner("pictures have no mask", [mask.name for mask in wanted if mask not in set(found)])
    notes += _without_partner("masks have no picture", [mask.name for mask in found if mask not in set(wanted)])
    values, colours, palette, more = _contents(paired)
    channels, transparent, told = _bands([picture for picture, _ in pictures])
    return Survey(
        images.relative_to(root).as_posix(),
        masks.relative_to(root).as_posix(),
        suffix,
        splits,
        len(paired),
        values,
        colours,
        palette,
        "labelids" in suffix.lower(),
        (*notes, *more, *told),
        channels,
        transparent,
    )


def _find(root: Path, usual: Sequence[str], what: str) -> Path:
    found = []
    for place in _below(root, 3):
        name = "".join(c for c in place.name.lower() if c.isalnum())
        if name in usual and _picture_folders(place):
            found.append((len(place.parts), usual.index(name), place))
    if not found:
        shown = ", ".join(usual[:6])
        raise InputError(root, f"no folder of {what} in it ({shown}, ...)", f"put all {what} into {root / usual[0]}")
    place = min(found)[2]
    above = next((part for part in place.relative_to(root).parts[:-1] if part.lower() in _SPLITS), None)
    if above is not None:
        remedy = f"move {above}/{place.name} to {place.name}/{above}, and the others likewise"
        raise InputError(place, f"{above} must lie in {place.name}, not above it", remedy)
    return place


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            yield child
            if depth > 1:
                yield from _below(child, depth - 1)


def _picture_folders(place: Path) -> list[str]:
    """Where in a folder pictures lie: "" for the folder itself, and the names of the folders directly in it."""
    inner = sorted(child.name for child in place.iterdir() if child.is_dir())
    return [name for name in ("", *inner) if _pictures(place / name)]


def _pictures(place: Path) -> list[Path]:
    """The pictures directly in a folder; arrays where there are no others."""
    return _mask_files(place) or sorted(p for p in place.iterdir() if p.suffix.lower() in ARRAYS)


def _mask_files(place: Path) -> list[Path]:
    if not place.is_dir():
        raise InputError(place, "no such folder, but one of pictures", "make it, with the masks of those pictures")
    return sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _splits(images: Path) -> tuple[tuple[str, ...], list[str]]:
    inner = _picture_folders(images)
    splits = tuple(split for split in ("train", "val") if split in inner)
    if not splits and "" not in inner:
        shown = ", ".join(inner[:4])
        raise InputError(images, f"pictures in {shown}, not in train and val", "rename the folders, of the masks too")
    notes = []
    unused = [name or "the folder itself" for name in inner if name not in splits] if splits else inner[1:]
    if unused:
        notes.append(f"not used: pictures of {images.name} in {', '.join(unused)}")
    if len(splits) == 1:
        other = "val" if splits == ("train",) else "train"
        notes.append(f"there is no {images.name}/{other}: make it, or move all pictures and masks one folder up")
    return splits, notes


def _suffix(stems: set[str], masks: Sequence[str], folder: Path) -> str:
    """What most masks' names have after the longest picture's stem that they begin with: ".png", "_mask.png"."""
    ends = (next((name[i:] for i in range(len(name), 0, -1) if name[:i] in stems), None) for name in masks)
    votes = Counter(end for end in ends if end is not None)
    if not votes:
        shown = f"masks such as {masks[0]}, " if masks else ""
        what = f"no mask is named like a picture ({shown}pictures such as {min(stems)})"
        raise InputError(folder, what, f"name the mask of {min(stems)}.jpg {min(stems)}.png, and so on")
    return votes.most_common(1)[0][0]


def _without_partner(what: str, names: list[str]) -> list[str]:
    return [f"{len(names)} {what}: {', '.join(names[:5])}{' ...' if names[5:] else ''}"] if names else []


class _Mask(NamedTuple):
    values: dict[int, int]
    palette: tuple[Colour, ...] | None
    coloured: bool
    problem: InputError | None


def _contents(files: Sequence[Path]) -> tuple[dict[int, int], dict[Colour, int], dict[int, Colour], list[str]]:
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
        notes.append("the palette differs from mask to mask: their colours count, not their indices")
    if disagree or any(mask.coloured for mask in masks):
        colours: Counter[Colour] = Counter()
        for counts in each(_colours, files):
            colours.update(counts)
        return {}, dict(sorted(colours.items())), {}, notes
    values: Counter[int] = Counter()
    for mask in masks:
        values.update(mask.values)
    whole = next((dict(enumerate(mask.palette)) for mask in masks if mask.palette), {})
    palette = {} if all(colour == (value,) * 3 for value, colour in used) else {**whole, **dict(used)}
    return dict(sorted(values.items())), {}, palette, notes


def _look(file: Path) -> _Mask:
    try:
        return _Mask(histogram(read_mask(file)), palette_of(file), False, None)
    except InputError as error:
        coloured = bool(_colours(file))
        return _Mask({}, None, coloured, None if coloured else error)


def _colours(file: Path) -> dict[Colour, int]:
    try:
        return count_colours(read_colours(file))
    except InputError:
        return {}


def _bands(pictures: Sequence[Path]) -> tuple[int | None, int | None, list[str]]:
    """`Survey.channels`, `Survey.transparent` and notes of pictures."""
    headers = [(file, header) for file, header in zip(pictures, each(_header, pictures), strict=True) if header]
    if not headers:
        return None, None, []
    counts = Counter((header.channels, header.alpha) for _, header in headers)
    count, alpha = counts.most_common(1)[0][0]
    arrays = any(file.suffix.lower() in ARRAYS for file, _ in headers)
    channels = count if arrays or (count not in (1, 3) and not alpha) else None
    notes = []
    others = [file.name for file, header in headers if header.channels != count]
    if channels is not None and others:
        notes.append(f"{len(others)} pictures have not {count} bands as most: {', '.join(others[:5])}")
    deep = sum(header.bits == 16 for _, header in headers)
    if deep:
        notes.append(f"{deep} pictures have 16 bits a value: if 65535 is not what means white, write white: VALUE")
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
