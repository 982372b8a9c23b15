"""The splits of YOLO exports: train, val and test of data.yaml are folders of images, or lists with a path per line."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from posixpath import normpath
from typing import NamedTuple

from danet.data.annotations.records import Record, read_text
from danet.data.annotations.source import Source
from danet.data.naming import composed
from danet.errors import list_names

_SPLITS = ("train", "val", "test")
_NAMED = 5  # files or lines that a note names


def divide(
    source: Source, settings: Record | None, images: Sequence[Path], texts: Sequence[Path]
) -> tuple[Mapping[Path, str | None], list[str]]:
    """Return the split of each image, and notes.

    An image in several entries of data.yaml is in the split with the fewest images: `train: images` may contain those
    of `val: images/val`.

    Args:
        source: the export.
        settings: its data.yaml.
        images: its images.
        texts: its text files, of which some may be lists of images.

    Raises:
        InputError: a line of a list may name several images.
    """
    entries = list(_entries(settings))
    members, notes = (
        _members(source, settings, entries, _Paths(source, images, texts)) if settings and entries else ({}, [])
    )
    splits: dict[Path, str | None] = {}
    for split in sorted(members, key=lambda split: len(members[split])):
        splits = dict.fromkeys(members[split], split) | splits
    several = [image for image in images if sum(image in found for found in members.values()) > 1]
    guessed = []
    for image in images:
        if image not in splits:
            splits[image] = source.split_of(*reversed(source.below(image.parent).parts))
            guessed += [image] if entries and splits[image] else []
    for what, found in (
        ("images in several splits of data.yaml, kept in the one with the fewest images", several),
        ("images in no split of data.yaml, in the one that their folder is named after", guessed),
    ):
        shown = list_names([source.below(image).as_posix() for image in found], _NAMED)
        notes += [f"{what}: {len(found)} ({shown})"] if found else []
    return splits, notes


def _entries(settings: Record | None) -> Iterator[tuple[str, Record]]:
    """Yield the splits of data.yaml, and their folders and lists."""
    for split in _SPLITS:
        if settings and (value := settings.get(split)):
            for entry in value.items() if isinstance(value.value, list) else (value,):
                yield split, entry


class _Line(NamedTuple):
    """A line of a list of images.

    Args:
        record: the text.
        found: the images that it may name.
        agrees: whether their folders, or those that are left of them, are those of the line.
    """

    record: Record
    found: Sequence[Path]
    agrees: bool


def _members(
    source: Source, settings: Record, entries: Sequence[tuple[str, Record]], paths: "_Paths"
) -> tuple[dict[str, set[Path]], list[str]]:
    """Return the images of each split in data.yaml, and notes about guesses, and entries and lines without an image.

    Raises:
        InputError: a line may name several images.
    """
    members: dict[str, set[Path]] = {split: set() for split in _SPLITS}
    lists: dict[tuple[str, Path], list[_Line]] = {}
    notes = []
    root, base = settings.get("path"), source.below(settings.file.parent).as_posix()
    path = root.text() if root and root.value != "" else "."
    for split, entry in entries:
        places = list(_places(base, path, entry.text()))
        place = next((place for place in places if place in paths.texts or place in paths.folders), "")
        lines = paths.read_list(paths.texts[place]) if place in paths.texts else []
        if lines:
            lists[split, paths.texts[place]] = lines
        members[split].update(paths.folders.get(place, ()))
        if not lines and place not in paths.folders:
            notes.append(f"not used: {settings.file.name}: {entry.place}: {entry.text()!r} matches no image")
        elif not place.endswith("/".join(("", *_plain(entry.text())))) and _plain(entry.text()):
            notes.append(f"{settings.file.name}: {entry.place}: {entry.text()!r} is taken for {place[1:] or '.'}")
    notes += _add_listed(source, lists, members)
    return members, list(dict.fromkeys(notes))


def _add_listed(
    source: Source, lists: Mapping[tuple[str, Path], Sequence[_Line]], members: Mapping[str, set[Path]]
) -> list[str]:
    """Add the images that the lists of each split name to its members, and return notes.

    Raises:
        InputError: a line may name several images.
    """
    notes = []
    # cam2/0.jpg is not cam1/0.jpg, if the folders of other lines are there
    agree = any(line.agrees for lines in lists.values() for line in lines)
    for (split, file), lines in lists.items():
        unnamed, loose = [], []
        for line in lines:
            if not line.found or (agree and not line.agrees):
                unnamed.append(line.record.value)
                continue
            if len(line.found) > 1:
                shown = list_names([source.below(image).as_posix() for image in line.found], 3)
                raise line.record.error(f"{line.record.value!r} may be {shown}", "write the path of the image")
            members[split].add(line.found[0])
            loose += [] if line.agrees else [line.record.value]
        name = source.below(file).as_posix()
        for what, texts in (("name no image", unnamed), ("name an image in another folder by its file name", loose)):
            shown = list_names(texts, _NAMED)
            notes += [f"lines of {name} that {what}: {len(texts)} of {len(lines)} ({shown})"] if texts else []
    return notes


def _normal(path: str) -> str:
    """Return a path below the export as "/a/b", with . and .. resolved; what would be above the export is below it."""
    return normpath("/" + composed(path).replace("\\", "/").lstrip("/"))


def _plain(path: str) -> list[str]:
    """Return the parts of a path as Linux or Windows writes it, except . and .. parts."""
    return [part for part in composed(path).replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _places(base: str, path: str, entry: str) -> Iterator[str]:
    """Yield what an entry of data.yaml may mean, the likeliest first.

    Args:
        base: the folder of data.yaml below the export.
        path: the root of the dataset in data.yaml.
        entry: the path of a folder or list.
    """
    yield _normal(f"{base}/{path}/{entry}")
    yield _normal(f"{base}/{entry}")
    parts = _plain(f"{path}/{entry}")
    for start in range(len(parts) - min(2, len(_plain(entry))) + 1):  # where the dataset was, or Roboflow's ../train
        for root in (base, "."):
            yield _normal("/".join((root, *parts[start:])))


class _Paths:
    """The images and text files of an export by their paths below it.

    Args:
        source: the export.
        images: its images.
        texts: its text files.
    """

    def __init__(self, source: Source, images: Sequence[Path], texts: Sequence[Path]):
        self._source = source
        self.texts = {_normal(source.below(file).as_posix()): file for file in texts}
        self.folders: dict[str, list[Path]] = defaultdict(list)
        self._whole: dict[str, list[Path]] = defaultdict(list)
        self._ends: dict[str, list[Path]] = defaultdict(list)
        for image in images:
            parts = _plain(source.below(image).as_posix())
            self._whole["/" + "/".join(parts)].append(image)
            for i in range(len(parts)):
                self.folders["/" + "/".join(parts[:i])].append(image)
                self._ends["/".join(parts[i:])].append(image)

    def read_list(self, file: Path) -> list[_Line]:
        """Read the lines of a list of images that are not empty."""
        folder, lines = self._source.below(file.parent).as_posix(), []
        for number, text in enumerate(read_text(file).splitlines(), 1):
            if text.strip():
                record = Record(file, f"line {number}", text.strip())
                lines.append(_Line(record, *self._named(record.value, folder)))
        return lines

    def _named(self, text: str, folder: str) -> tuple[list[Path], bool]:
        """Return the images that a line may name, and whether their folders agree.

        They are those whose path ends most like the line. Whole paths come first: d/images/a.jpg may be images/a.jpg,
        and then the export was in d, but hardly cam1/images/a.jpg.
        """
        if found := self._whole.get(_normal(f"{folder}/{text}")):
            return found, True
        parts = _plain(text)
        for start in range(len(parts)):
            end = "/".join(parts[start:])
            if found := self._whole.get(f"/{end}"):
                return found, True
            if found := self._ends.get(end):
                return found, start == 0 or start < len(parts) - 1
        return [], False
