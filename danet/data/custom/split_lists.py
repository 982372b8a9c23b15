"""Read and find lists of the images of each split: text files with a name per line, or a CSV file with a split column.

A line names an image by its path, file name or stem, or by that of its mask; further columns are ignored. With a split
column, rows of splits other than train, val and test are left out.
"""

import contextlib
import csv
import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from danet.data.custom.layout import SPLIT_NAMES, Layout
from danet.data.images.formats import SUFFIXES
from danet.data.images.read import ARRAYS
from danet.data.naming import composed
from danet.errors import InputError, list_names
from danet.files import read_limited
from danet.text import decode_text

LISTS = (".txt", ".lst", ".csv", ".tsv")
"""Suffixes of lists; other names under `splits` are folders."""

_PLACES = ("ImageSets/Segmentation", "ImageSets", "splits", "split", "lists", "list", "")
_FORMS = ("{}.txt", "{}_list.txt", "{}list.txt", "{}.lst", "{}.csv", "{}_images.txt")
_FILES = ("image", "images", "image path", "img", "filename", "file name", "file", "filepath", "path", "name", "stem")
_FILES += ("image id", "image name", "img path", "id")
_SPLIT_COLUMNS = ("split", "set", "subset", "partition", "is valid", "usage")
_BOOLEANS = {"true": "val", "1": "val", "false": "train", "0": "train"}
_SPLITS = tuple(form.rpartition(".")[0].format(name) for own in SPLIT_NAMES.values() for name in own for form in _FORMS)
_MAX_BYTES = 64 << 20


class Line(NamedTuple):
    """A line of a list: its number, the name in it, and its split if the list has a split column."""

    number: int
    name: str
    split: str | None


def read_splits(layout: Layout, images: Sequence[Path]) -> dict[str, list[Path]]:
    """Return the images of each split in `layout.lists`, in the order of the lists.

    Args:
        layout: the folders, and the lists.
        images: all images.

    Raises:
        InputError: a list cannot be read, is empty, or names an image that does not exist, or one twice.
    """
    known = _Names(layout, images)
    splits: dict[str, list[Path]] = {}
    first: dict[Path, str] = {}
    for split, name in layout.lists.items():
        file = layout.root / name
        lines = _of_split(read_list_lines(file), split, file)
        for line in lines:
            place, image = f"line {line.number}", known.find(line.name, file, line.number)
            if image in first:
                what = f"{place}: {line.name!r} is listed already, in {first[image]}"
                raise InputError(file, what, "list each image once")
            first[image] = f"{name} {place}"
            splits.setdefault(split, []).append(image)
    return splits


def find_lists(layout: Layout, images: Sequence[Path]) -> tuple[dict[str, str], list[str]]:
    """Find the lists of the train and val images in a folder.

    Returns:
        Split -> list, relative to the root; empty if there are none. And notes for the user, one line each.
    """
    known, notes = _Names(layout, images), []
    for lists in _candidates(layout):
        try:
            lines = {s: _of_split(read_list_lines(layout.root / n), s, layout.root / n) for s, n in lists.items()}
        except InputError as error:
            if len(set(lists.values())) > 1:  # a single CSV file may be anything
                notes.append(f"not used: {error.where}: {error.what}")
            continue
        if len(set(lists.values())) == 1 and any(line.split is None for line in lines["train"]):
            continue
        found = sum(known.get(line.name) is not None for own in lines.values() for line in own)
        total = sum(map(len, lines.values()))
        shown = " and ".join(dict.fromkeys(lists.values()))
        if 2 * found <= total:
            notes.append(f"not used: {shown}: {total - found} of {total} lines name no image")
            continue
        unlisted = len(images) - found
        counts = list_names([f"{split} ({len(own)})" for split, own in lines.items()])
        notes.append(
            f"images are divided by {shown}: {counts}"
            + (f"; images in none of them: {unlisted}" if unlisted > 0 else "")
            + (f"; lines that name no image, see danet check: {total - found}" if found < total else "")
        )
        return lists, notes
    return {}, [*notes, *_alone(layout, known)]


def _alone(layout: Layout, known: "_Names") -> Iterator[str]:
    """Note lists of images that are not used, since they are not of both train and val."""
    for file in dict.fromkeys(name for lists in _candidates(layout, complete=False) for name in lists.values()):
        with contextlib.suppress(InputError):
            lines = read_list_lines(layout.root / file)
            found = sum(known.get(line.name) is not None for line in lines)
            divides = not file.endswith(".csv") or Path(file).stem.lower() in _SPLITS or lines[0].split is not None
            if divides and 2 * found > len(lines):
                what = f"not used: {file} names {found} images, but train and val must both be listed"
                yield f"{what}; list the other too, delete dataset.yaml, and run danet init again"


def read_list_lines(file: Path) -> list[Line]:
    """Read the lines of a list that are not empty.

    Raises:
        InputError: the file cannot be read, is too large, or lists nothing.
    """
    try:
        text = decode_text(read_limited(file, _MAX_BYTES), "surrogateescape")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        what = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({reason})"
        raise InputError(file, what, "create it, or correct splits in dataset.yaml") from error
    if file.suffix.lower() in (".csv", ".tsv"):
        lines = _read_table(file, text)
    else:
        lines = [Line(number, line.strip(), None) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if not lines:
        raise InputError(file, "lists no images", "write one name per line, or correct splits in dataset.yaml")
    return lines


def _read_table(file: Path, text: str) -> list[Line]:
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    try:
        rows = [(number, row) for number, row in enumerate(csv.reader(text.splitlines(), delimiter=delimiter), 1)]
    except csv.Error as error:
        raise InputError(file, f"cannot be read as CSV ({error})", "correct it") from error
    rows = [(number, [cell.strip() for cell in row]) for number, row in rows if any(row)]
    header = [" ".join(cell.lower().replace("_", " ").split()) for cell in rows[0][1]] if rows else []
    names = [header.index(column) for column in _FILES if column in header]
    splits = [header.index(column) for column in _SPLIT_COLUMNS if column in header]
    lines = []
    for number, row in rows[bool(names or splits) :]:
        place, split = names[0] if names else 0, None
        if splits:
            given = row[splits[0]].lower() if splits[0] < len(row) else ""
            given = _BOOLEANS.get(given, given) if header[splits[0]] == "is valid" else given
            split = next((split for split, known in SPLIT_NAMES.items() if given in known), given)
        lines.append(Line(number, row[place] if place < len(row) else "", split))
    return lines


def _of_split(lines: Sequence[Line], split: str, file: Path) -> list[Line]:
    """Return the lines of a split; all if the list has no split column."""
    own = [line for line in lines if line.split in (None, split)]
    if not own:
        found = list_names(sorted({line.split or "" for line in lines}), 6)
        raise InputError(file, f"no row has the split {split}, but {found}", "use train, val and test")
    return own


def _candidates(layout: Layout, complete: bool = True) -> Iterator[dict[str, str]]:
    """Yield the lists of each split, and CSV files that may have a split column, as paths relative to the root.

    Args:
        layout: the folders.
        complete: whether there must be lists of both train and val; otherwise, only others and CSV files are yielded.
    """
    folders = [layout.root, *dict.fromkeys(each.images.parent for each in layout.folders())]
    for folder in dict.fromkeys(folder for folder in folders if folder.is_relative_to(layout.root)):
        for place in _PLACES:
            inside = {p.name.lower(): p for p in (folder / place).iterdir()} if (folder / place).is_dir() else {}
            for form in _FORMS:
                found = {
                    split: next((inside[n] for name in SPLIT_NAMES[split] if (n := form.format(name)) in inside), None)
                    for split in SPLIT_NAMES
                }
                lists = {split: f.relative_to(layout.root).as_posix() for split, f in found.items() if f is not None}
                if ({"train", "val"} <= lists.keys()) == complete:
                    yield lists
            for file in inside.values() if place == "" else ():
                if file.suffix.lower() == ".csv" and file.is_file():
                    yield dict.fromkeys(("train", "val"), file.relative_to(layout.root).as_posix())


class _Names:
    """The names by which lists may call images: path, file name and stem of the image, and of a mask named alike."""

    def __init__(self, layout: Layout, images: Sequence[Path]):
        self._layout = layout
        self._found: dict[str, set[Path]] = {}
        self._several = len({image.parent for image in images}) > 1
        for image in images:
            path = PurePosixPath(Path(os.path.relpath(image, layout.root)).as_posix())
            mask = Path(layout.naming.mask_of(image))
            tails = [PurePosixPath(*path.parts[start:]) for start in range(len(path.parts))]
            for name in {mask.name, mask.stem, *map(str, tails), *(str(tail.with_suffix("")) for tail in tails)}:
                self._found.setdefault(composed(name), set()).add(image)

    def get(self, text: str) -> Path | None:
        """Return the image that a line names, or None if there is none."""
        return next((next(iter(found)) for found in self._named(text)), None)

    def find(self, text: str, file: Path, number: int) -> Path:
        """Return the image that a line of a list names.

        Raises:
            InputError: there is none, or there are several.
        """
        found = next(self._named(text), set())
        if not found:
            where = self._layout.images
            what = f"line {number}: {text!r} is not an image in {where}"
            raise InputError(file, what, "add the image, or remove the line")
        if len(found) > 1:
            names = list_names(sorted(image.relative_to(self._layout.root).as_posix() for image in found), 3)
            raise InputError(file, f"line {number}: {text!r} may be {names}", "write the path of the image")
        return next(iter(found))

    def _named(self, text: str) -> Iterator[set[Path]]:
        """Yield what a line may name, the most exact first."""
        for whole in dict.fromkeys((text, text.split("\t")[0], text.split(",")[0], text.split()[0] if text else "")):
            path = PurePosixPath(whole.replace("\\", "/").strip().lstrip("/"))
            last = len(path.parts) - (self._several and len(path.parts) > 1)
            for start in range(last):  # /data/set/images/a.jpg, images/a.jpg, a.jpg
                tail = PurePosixPath(*path.parts[start:])
                for name in (tail, tail.with_suffix("")) if tail.suffix.lower() in SUFFIXES + ARRAYS else (tail,):
                    if (found := self._found.get(composed(str(name)))) is not None:
                        yield found
