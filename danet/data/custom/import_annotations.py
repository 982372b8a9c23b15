"""Import the export of an annotation tool: draw its shapes as masks, and write a folder that `danet train` reads.

Command: danet import SRC DST. The destination gets images/, masks/ and dataset.yaml, all or nothing. The images are
copies with the same bytes. Nothing in the source is changed.
"""

import shutil
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from danet.data.annotations.frames import Exif, Frame, draw_frame, find_frame
from danet.data.annotations.rasterize import UNCOVERED, Findings
from danet.data.annotations.recognize import choose_format
from danet.data.annotations.shapes import Export
from danet.data.annotations.source import Order, Source
from danet.data.classes import BACKGROUND, IGNORE, Classes, Color, distinct_palette, is_background
from danet.data.custom.import_images import Placed, listed, main_split, place_images, usable_images
from danet.data.custom.layout import SPLITS, Layout
from danet.data.custom.proposal import Proposal, write
from danet.data.custom.scan_masks import read_bands
from danet.data.custom.verify import ALL, Advance, count_values, map_in_threads
from danet.data.images.read import read_header
from danet.errors import InputError
from danet.files import atomic_folder, check_writable, make_folder, write_error


@dataclass(frozen=True)
class ImportOptions:
    """How an export is read and drawn.

    Args:
        images: folder of the images, if they are not in the export.
        format: name of the format, see `danet.data.annotations.recognize.FORMATS`; None: recognize it.
        order: which shape is on top: the last in the "file", or the smallest by "area".
        unlabeled: what pixels without a shape are.
        line_width: of lines, in pixels; None: lines are not drawn.
        exif: whether shapes refer to the image with its EXIF orientation; None: as the sizes in the export tell.
        class_attribute: name of the attribute that holds the class (VGG Image Annotator).
        run_order: how the pixels of run lengths are counted (CSV); None: infer it, or assume "columns".
        skip_empty: leave out images without shapes.
        skip_missing: leave out images that are not found.
    """

    images: Path | None = None
    format: str | None = None
    order: Literal["file", "area"] = "file"
    unlabeled: Literal["background", "ignore"] = "background"
    line_width: float | None = None
    exif: Exif | None = None
    class_attribute: str | None = None
    run_order: Order | None = None
    skip_empty: bool = False
    skip_missing: bool = False


@dataclass(frozen=True)
class Imported:
    """What was imported.

    Args:
        title: of the format.
        images: split -> number of images; the only split is "all" if the export has none.
        classes: names and palette.
        notes: what was left out, changed or inferred, one line each.
    """

    title: str
    images: Mapping[str, int]
    classes: Classes
    notes: tuple[str, ...]


def import_annotations(
    source: Path, destination: Path, options: ImportOptions | None = None, advance: Advance | None = None
) -> Imported:
    """Import an export.

    Args:
        source: its folder or file.
        destination: a folder that does not exist yet, or is empty.
        options: how it is read and drawn.
        advance: called with (done, total) after each image.

    Raises:
        InputError: the destination is not empty, or inside the source; the format is unknown; an annotation file is
            invalid; images are missing, damaged, or have another size than the export says; no shape has a pixel.
    """
    options = options or ImportOptions()
    _check_line_width(options.line_width)
    _check_destination(source, destination)
    opened = Source(source, options.images, options.class_attribute, options.run_order)
    chosen = choose_format(opened, options.format)
    export = chosen.read(opened)
    unlabeled = BACKGROUND if options.unlabeled == BACKGROUND else "ignored"
    images, notes = usable_images(export, opened, options.skip_empty, options.skip_missing, unlabeled)
    frames = map_in_threads(lambda image: find_frame(image, options.exif), images)
    classes, rest, rest_note = _classes(source, export, frames, options)
    placed, place_notes = place_images(frames, opened)
    left_out = [note for kind, places in export.left_out.items() for note in listed(f"left out: {kind}", places)]
    notes = [*export.notes, *left_out, *notes, *_exif_notes(frames, options.exif), rest_note, *place_notes]
    make_folder(destination.absolute().parent)
    try:
        with atomic_folder(destination.absolute()) as folder:
            for split in {place.split for place in placed}:
                (folder / "images" / split).mkdir(parents=True)
                (folder / "masks" / split).mkdir(parents=True)
            written = map_in_threads(lambda place: _write(place, folder, classes, rest, options), placed, advance)
            if not any(one.findings.drawn for one in written):
                what = "; ".join(["no shape has a pixel inside its image", *left_out])
                raise InputError(source, what, "check that these are the images that were annotated")
            notes += _drawing_notes(placed, written, classes, options)
            title = (
                f"Written by danet import from {source.resolve().name} ({chosen.title}). Edit it, then run danet check."
            )
            write(folder, _proposal(folder, placed, written, classes, notes), title)
    except OSError as error:
        raise write_error(destination, error) from error
    counts = Counter(place.split or ALL for place in placed)
    return Imported(chosen.title, dict(sorted(counts.items())), classes, tuple(notes))


def _check_line_width(width: float | None) -> None:
    if width is not None and not 0 < width <= 10_000:
        raise InputError("line_width", f"must be above 0 and at most 10000 pixels, got {width:g}", "for example, use 5")


def _check_destination(source: Path, destination: Path) -> None:
    check_writable(destination)
    if source.is_dir() and destination.resolve().is_relative_to(source.resolve()):
        raise InputError(destination, f"is inside {source}, where nothing is written", "choose another folder")
    if destination.is_dir() and any(destination.iterdir()):
        raise InputError(destination, "is not empty", "choose a new folder, or remove this one")


def _classes(source: Path, export: Export, frames: Sequence[Frame], options: ImportOptions) -> tuple[Classes, int, str]:
    """Return the classes, the label of pixels without a shape, and a note about these pixels."""
    names = list(export.classes)
    own = next((i for i, name in enumerate(names) if is_background(name)), None)
    rest, note = IGNORE, f"pixels without a shape are ignored ({IGNORE})"
    if options.unlabeled == BACKGROUND and own is not None:
        rest, note = own, f"pixels without a shape are of the class {names[own]} of the export"
    elif options.unlabeled == BACKGROUND and any(_has_uncovered(frame, names, options) for frame in frames):
        names, rest = [BACKGROUND, *names], 0
        note = f"class 0 is {BACKGROUND}, added for pixels without a shape (`unlabeled` says otherwise)"
    elif options.unlabeled == BACKGROUND:
        note = "every pixel is in a shape"
    if not names:
        raise InputError(source, "contains no classes and no shapes", "annotate some images, and export again")
    if len(names) > IGNORE:
        what = f"has {len(names)} classes, but the 8 bits of a mask hold at most {IGNORE}"
        raise InputError(source, what, "merge or remove classes in the annotation tool, and export again")
    return Classes(tuple(names), _palette(names, export)), rest, note


def _has_uncovered(frame: Frame, names: Sequence[str], options: ImportOptions) -> bool:
    drawing = draw_frame(frame, dict.fromkeys(names, 0), options.line_width, largest_first=False)
    return bool((drawing.labels == UNCOVERED).any())


def _palette(names: Sequence[str], export: Export) -> tuple[Color, ...]:
    """Return the colors of the export, if all classes have different ones; otherwise distinct colors."""
    given = [export.classes.get(name, (0, 0, 0)) for name in names]
    colors = tuple(color for color in given if color is not None)
    if len(set(colors)) == len(names):
        return colors
    black = [(0, 0, 0)] if names[0] not in export.classes else []
    return (*black, *distinct_palette(len(names) - len(black)))


class _Written(NamedTuple):
    """What is known about a mask that was written."""

    findings: Findings
    pixels: dict[int, int]


def _write(place: Placed, folder: Path, classes: Classes, rest: int, options: ImportOptions) -> _Written:
    """Copy an image and write its mask, a palette PNG of train ids."""
    image = place.frame.image
    copy = folder / "images" / place.split / place.image
    if image.file is not None:
        shutil.copyfile(image.file, copy)
    else:
        assert image.embedded is not None
        copy.write_bytes(image.embedded())
    ids = {name: i for i, name in enumerate(classes.names)}
    drawing = draw_frame(place.frame, ids, options.line_width, options.order == "area")
    labels = np.where(drawing.labels == UNCOVERED, rest, drawing.labels).astype(np.uint8)
    mask = Image.fromarray(labels)
    colors = [channel for color in classes.palette for channel in color]
    mask.putpalette(colors + [0] * (3 * 256 - len(colors)))  # Pillow writes fewer bits per pixel for a shorter palette
    mask.save(folder / "masks" / place.split / place.mask, compress_level=1, compress_type=zlib.Z_RLE)
    return _Written(drawing.findings, count_values(labels))


def _exif_notes(frames: Sequence[Frame], exif: Exif | None) -> list[str]:
    """Return notes about images with an EXIF orientation."""
    why = "by their size in the export" if exif is None else "as `exif` says"
    texts = {
        "displayed": f"images with an EXIF orientation, annotated as displayed ({why})",
        "stored": f"images with an EXIF orientation, annotated as stored ({why}): masks are turned",
        "assumed": "images with an EXIF orientation, assumed to be annotated as displayed (`exif` says otherwise)",
    }
    return [
        note
        for kind, text in texts.items()
        for note in listed(text, [frame.image.name for frame in frames if frame.exif == kind])
    ]


def _drawing_notes(
    placed: Sequence[Placed], written: Sequence[_Written], classes: Classes, options: ImportOptions
) -> list[str]:
    """Return notes about what was drawn."""
    findings = [one.findings for one in written]
    notes = listed(
        "lines without a width, left out (`line_width` draws them)", _all(found.without_width for found in findings)
    )
    notes += listed("shapes beyond the image, clipped", _all(found.clipped for found in findings))
    notes += listed("shapes without a pixel, outside or thinner than a pixel", _all(found.empty for found in findings))
    if overlapping := sum(found.overlapping for found in findings):
        share = overlapping / sum(sum(one.pixels.values()) for one in written)
        kept = "the smaller one by area" if options.order == "area" else "the later one in the file"
        names = [place.image for place, found in zip(placed, findings, strict=True) if found.overlapping]
        what = f"{overlapping:,} pixels ({share:.2%}) are in shapes of several classes, and have {kept} (see `order`)"
        notes += listed(f"{what}; images", names)
    present = {label for one in written for label in one.pixels}
    absent = [name for i, name in enumerate(classes.names) if i not in present]
    return notes + listed("classes without pixels", absent)


def _all(lists: Iterable[Sequence[str]]) -> list[str]:
    return [text for each in lists for text in each]


def _proposal(
    folder: Path, placed: Sequence[Placed], written: Sequence[_Written], classes: Classes, notes: Sequence[str]
) -> Proposal:
    """Return the content of dataset.yaml."""
    splits = {place.split for place in placed}
    layout = Layout(folder, splits={})
    if set(SPLITS) <= splits:
        layout = Layout(folder)
    elif splits != {""}:
        layout = Layout(folder, f"images/{main_split(splits)}", f"masks/{main_split(splits)}", splits={})
    files = [folder / "images" / place.split / place.image for place in placed]
    headers = dict(zip(files, map_in_threads(read_header, files), strict=True))
    channels, transparent, more = read_bands(headers)
    values: Counter[int] = Counter()
    for one in written:
        values.update(one.pixels)
    ignore = IGNORE if IGNORE in values else None
    pixels = dict(sorted(values.items()))
    notes = (*notes, *more)
    return Proposal(layout, len(placed), "class ids", pixels, classes, ignore, None, notes, channels, transparent)
