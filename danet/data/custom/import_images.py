"""Choose which images of an export are imported, and their names and splits in the destination."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePath
from typing import NamedTuple

from danet.data.annotations.frames import Frame
from danet.data.annotations.label_studio_png import is_mask
from danet.data.annotations.shapes import AnnotatedImage, Export
from danet.data.annotations.source import Source
from danet.data.custom.layout import SPLITS
from danet.errors import InputError, list_names

_NAMED = 5  # files or records that a note names
_MAGIC = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}


class Placed(NamedTuple):
    """A frame and its place in the destination.

    Args:
        frame: the image.
        split: name of its folder; "" if the images are not divided.
        image: name of the image file.
        mask: name of the mask file.
    """

    frame: Frame
    split: str
    image: str
    mask: str


def listed(what: str, names: Sequence[str]) -> list[str]:
    """Return a note "WHAT: COUNT (NAME, NAME, ...)", or none if there are no names."""
    return [f"{what}: {len(names)} ({list_names(names, _NAMED)})"] if names else []


def usable_images(
    export: Export, source: Source, skip_empty: bool, skip_missing: bool, unlabeled: str
) -> tuple[list[AnnotatedImage], list[str]]:
    """Return the images to import, and notes.

    Args:
        export: the export.
        source: its files.
        skip_empty: leave out images without shapes.
        skip_missing: leave out images that were not found; otherwise they are an error.
        unlabeled: what pixels without a shape are, for the notes.

    Raises:
        InputError: images were not found, or have two records; none is left.
    """
    missing = [image for image in export.images if image.file is None and image.embedded is None]
    if missing and not skip_missing:
        what = f"{len(missing)} of {len(export.images)} images were not found: "
        what += f"{list_names([image.name for image in missing], _NAMED)} ({missing[0].place})"
        remedy = "add them, specify their folder as `images`, or leave these images out with `skip_missing`"
        raise InputError(source.path, what, remedy)
    notes = listed("images that were not found, left out", [image.name for image in missing])
    images = [image for image in export.images if image.file or image.embedded]
    by_file: dict[Path, AnnotatedImage] = {}
    for image in images:
        if image.file and (other := by_file.setdefault(image.file.resolve(), image)) is not image:
            what = f"has two records: {other.place} and {image.place}"
            raise InputError(image.file, what, "remove one of them, or merge their shapes")
    embedded = [image.name for image in images if image.file is None]
    notes += listed("images taken from the annotation files, as there are no image files", embedded)
    empty = {image for image in images if next(iter(image.shapes), None) is None}
    names = [str(_path_below(image, source)) for image in images if image in empty]
    if skip_empty:
        images = [image for image in images if image not in empty]
        notes += listed("images without shapes, left out", names)
    else:
        notes += listed(f"images without shapes, all {unlabeled} (`skip_empty` leaves them out)", names)
    if not images:
        raise InputError(source.path, "contains no annotated images", "annotate some images, and export again")
    folders = {image.file.parent for image in images if image.file}
    known = {image.file for image in export.images}
    unknown = [file for file in source.all_images if file.parent in folders and file not in known]
    others = [file.name for file in unknown if not is_mask(file)]
    return images, notes + listed("images that the annotations do not name, left out", others)


def place_images(frames: Sequence[Frame], source: Source) -> tuple[list[Placed], list[str]]:
    """Choose the splits and the file names, which are the images' own ones, made unique; and return notes."""
    given = Counter(frame.image.split for frame in frames)
    splits = {split for split in given if split is not None}
    notes: list[str] = []
    if len(splits) == 1:
        notes.append(f"all images are in the split {min(splits)}: a fifth of them is used for validation")
        splits = set()
    elif splits and not set(SPLITS) <= splits:
        names = " and ".join(sorted(splits))
        notes.append(f"the splits are {names}: a fifth of {main_split(splits)} is used for validation")
    if splits:
        unsplit = [frame.image.name for frame in frames if frame.image.split is None]
        notes += listed(f"images without a split, added to {main_split(splits)}", unsplit)
    taken: set[tuple[str, str]] = set()
    placed, renamed = [], []
    for frame in frames:
        path, suffix = _path_below(frame.image, source), _suffix(frame.image)
        split = (frame.image.split or main_split(splits)) if splits else ""
        stem = next(stem for stem in _stems(path) if (split, stem.casefold()) not in taken)
        taken.add((split, stem.casefold()))
        if stem != path.stem:
            renamed.append(f"{path} is {stem}{suffix}")
        placed.append(Placed(frame, split, f"{stem}{suffix}", f"{stem}.png"))
    return placed, notes + listed("images with the same name as another one, renamed", renamed)


def main_split(splits: set[str]) -> str:
    """Return the split that is used for training."""
    return SPLITS[0] if SPLITS[0] in splits else min(splits)


def _path_below(image: AnnotatedImage, source: Source) -> PurePath:
    """Return the path of an image below the source."""
    if image.file is None:
        return PurePath(image.name)
    roots = [root for root in (source.images, source.folder) if root and image.file.is_relative_to(root)]
    return image.file.relative_to(roots[0])


def _suffix(image: AnnotatedImage) -> str:
    """Return the suffix of an image's copy."""
    if image.file is not None:
        return image.file.suffix
    assert image.embedded is not None
    head = image.embedded()[:4]
    return next((suffix for magic, suffix in _MAGIC.items() if head.startswith(magic)), PurePath(image.name).suffix)


def _stems(path: PurePath) -> Iterator[str]:
    """Yield names for an image: its own, with the names of its folders, with its suffix, with a number."""
    yield path.stem
    folders = "_".join((*path.parts[:-1], path.stem))
    yield folders
    yield f"{folders}_{path.suffix[1:]}"
    number = 2
    while True:
        yield f"{folders}_{number}"
        number += 1
