"""The files of an export: annotation files, and the images that they name."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import takewhile
from pathlib import Path, PurePosixPath
from typing import Literal

from danet.data.images.pillow import regular_file
from danet.data.images.read import SUFFIXES
from danet.data.naming import composed
from danet.errors import InputError, list_names, missing_folder
from danet.files import walk_files
from danet.text import decode_text

_SPLIT = re.compile(r"(?:^|[^a-z])(train|val|test)(?:ing|id|idation)?(?:\d+|[^a-z]|$)")
_HEAD = 1 << 16  # bytes that show the format of an annotation file
_MAX_HEADS = 200  # annotation files that are looked at to recognize a format
_NAMED = 5  # images that a note names

Order = Literal["columns", "rows"]


@dataclass(frozen=True)
class Source:
    """A user's export.

    Args:
        path: its folder, or its annotation file.
        images: the folder of the images, if they are elsewhere.
        class_attribute: name of the attribute that holds the class, for formats that do not define it.
        run_order: how the pixels of run lengths are counted, for formats that do not define it.
    """

    path: Path
    images: Path | None = None
    class_attribute: str | None = None
    run_order: Order | None = None
    _guessed: dict[str, None] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self):
        if self.path.is_file() and self.path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar"):
            raise InputError(self.path, "is an archive", "unpack it, and specify the folder")
        if not self.path.exists():
            raise missing_folder(self.path, "specify the folder or the file of an export")
        if self.images is not None and not self.images.is_dir():
            raise missing_folder(self.images, "specify the folder that contains the images")

    @property
    def folder(self) -> Path:
        """The folder of the export."""
        return self.path if self.path.is_dir() else self.path.parent

    @cached_property
    def all_files(self) -> Sequence[Path]:
        """All files below the folder, sorted; hidden ones are left out."""
        return tuple(walk_files(self.folder))

    @cached_property
    def all_images(self) -> Sequence[Path]:
        """All images below the folder and below `images`, recognized by their suffix."""
        others = walk_files(self.images) if self.images and not self.images.is_relative_to(self.folder) else ()
        return tuple(file for file in (*self.all_files, *others) if file.suffix.lower() in SUFFIXES)

    @property
    def notes(self) -> tuple[str, ...]:
        """A note about the images that `find_image` found in other folders than the export says, if any.

        A reader adds it to the notes of its `Export`.
        """
        what = "images found by file name, in other folders than the export says"
        return (f"{what}: {len(self._guessed)} ({list_names([*self._guessed], _NAMED)})",) if self._guessed else ()

    def files(self, *suffixes: str) -> list[Path]:
        """Return the annotation files with one of these suffixes: the given file, or all below the folder."""
        files = self.all_files if self.path.is_dir() else (self.path,)
        return [file for file in files if file.suffix.lower() in suffixes]

    def heads(self, suffix: str) -> Iterator[tuple[Path, str]]:
        """Yield annotation files with this suffix, and the beginning of their text; unreadable files are left out."""
        for file in self.files(suffix)[:_MAX_HEADS]:
            with suppress(InputError, OSError), regular_file(file) as opened:
                yield file, decode_text(opened.read(_HEAD), "replace")

    def has_head(self, suffix: str, *patterns: str) -> bool:
        """Return whether an annotation file with this suffix begins with text that contains all patterns."""
        return any(all(re.search(pattern, head) for pattern in patterns) for _, head in self.heads(suffix))

    def find_image(
        self, name: str, near: Path, place: str, split: str | None = None, not_in: Sequence[Path] = ()
    ) -> Path | None:
        r"""Find an image that an annotation file names, or return None.

        Files outside the export are not found, whatever path the name contains. If the folders in the name are not
        those of the file, `notes` says so.

        Args:
            name: a file name or a path, with / or \; without a suffix, any image with this stem.
            near: the folder of the annotation file.
            place: where the name is written, for messages.
            split: the split of the annotation file, which decides between images with the same name.
            not_in: folders of masks.

        Raises:
            InputError: several images have this name.
        """
        path = PurePosixPath(composed(name).replace("\\", "/"))
        *folders, last = [part for part in path.parts if part not in ("/", "..", ".")] or [""]
        found = self._by_name.get(last) or self._by_stem.get(last, [])
        found = [file for file in found if not any(file.is_relative_to(folder) for folder in not_in)]
        if len(found) > 1:
            found = self._closest(found, folders, near, split)
        if len(found) > 1:
            what = f"{name!r} names several images: {found[0]} and {found[1]}"
            raise InputError(place, what, "keep one of them, or specify their folder as `images`")
        if not found:
            return None
        roots = (root for root in (self.images, self.folder) if root and found[0].is_relative_to(root))
        below = found[0].relative_to(next(roots))
        if folders and _shared(found[0], folders) < max(min(len(folders), len(below.parent.parts)), 1):
            self._guessed[f"{name} is {below}"] = None
        return found[0]

    def below(self, path: Path) -> Path:
        """Return a path relative to the export; of a path outside it, relative to the given folder of images."""
        root = self.folder if path.is_relative_to(self.folder) or self.images is None else self.images
        return path.relative_to(root)

    def folders_of(self, path: Path) -> tuple[str, ...]:
        """Return the parts of a path: below the export, or from the given folder of images on."""
        if path.is_relative_to(self.folder):
            return path.relative_to(self.folder).parts
        given = self.images
        return (given.name, *path.relative_to(given).parts) if given and path.is_relative_to(given) else path.parts

    def split_of(self, *names: str | Path) -> str | None:
        """Return the split that a name contains, "train", "val" or "test"; the first name that contains one decides.

        Of a path, only `folders_of` it are considered, innermost names first.
        """
        for name in names:
            for part in reversed(self.folders_of(name) if isinstance(name, Path) else (name,)):
                if found := _SPLIT.search(part.lower()):
                    return found[1]
        return None

    @cached_property
    def _by_name(self) -> dict[str, list[Path]]:
        by_name: dict[str, list[Path]] = {}
        for file in self.all_images:
            by_name.setdefault(composed(file.name), []).append(file)
        return by_name

    @cached_property
    def _by_stem(self) -> dict[str, list[Path]]:
        by_stem: dict[str, list[Path]] = {}
        for file in self.all_images:
            by_stem.setdefault(composed(file.stem), []).append(file)
        return by_stem

    def _closest(self, found: list[Path], folders: Sequence[str], near: Path, split: str | None) -> list[Path]:
        """Return the images whose path ends most like the name; if these are several, those that are nearest."""

        def rank(file: Path) -> tuple[int, ...]:
            given = self.images is not None and file.is_relative_to(self.images)
            exact = self.images is not None and _is_in(file, self.images, folders)
            same = split is not None and self.split_of(file.parent) == split
            near_by = len(os.path.commonpath((file.absolute(), near.absolute())))
            return _shared(file, folders), exact, given, _is_in(file, near, folders), same, near_by

        ranks = {file: rank(file) for file in found}
        best = max(ranks.values())
        return [file for file in found if ranks[file] == best]


def _shared(file: Path, folders: Sequence[str]) -> int:
    """Return how many folders, from the innermost one on, a file shares with a name."""
    pairs = zip(reversed(file.parent.absolute().parts), reversed(folders), strict=False)
    return sum(1 for _ in takewhile(lambda pair: composed(pair[0]) == pair[1], pairs))


def _is_in(file: Path, base: Path, folders: Sequence[str]) -> bool:
    """Return whether a file is in exactly these folders below `base`."""
    return composed(str(file.parent)) == composed(str(base.joinpath(*folders)))
