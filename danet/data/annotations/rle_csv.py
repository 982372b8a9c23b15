"""Run lengths in a CSV file, as in Kaggle's competitions: a row per image, object or class.

A cell holds START LENGTH START LENGTH ...; the first pixel is 1. Most files count pixels down the columns, some along
the rows, and the file does not say which. In images that are not square, the shapes tell.
"""

import csv
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from danet.data.annotations.rasterize import bitmap_of
from danet.data.annotations.records import Record, read_csv
from danet.data.annotations.shapes import AnnotatedImage, Export, Runs, Shape
from danet.data.annotations.source import Order, Source
from danet.data.images.pillow import MAX_PIXELS
from danet.data.images.read import image_size
from danet.errors import InputError

_IMAGES = ("imageid", "image_id", "image", "img", "id", "filename", "file_name", "imageid_classid", "image_label")
_RUNS = ("encodedpixels", "encoded_pixels", "rle_mask", "rle", "encoding", "segmentation", "annotation", "mask")
_CLASSES = ("classid", "class_id", "class", "label", "category", "category_id", "class_name")
_JOINED = ("imageid_classid", "image_label")  # IMAGE.jpg_CLASS
_ONLY_CLASS = "foreground"
_COMPARED = 50  # rows from which the order of the pixels is inferred
_NO_PIXELS = ("-1", "nan")


def recognize(source: Source) -> bool:
    """Return whether an export contains a CSV file with a column of images and a column of run lengths."""
    return any(_has_runs(head) for _, head in _heads(source))


def read(source: Source) -> Export:
    """Read the rows of a CSV file, one shape per row.

    Raises:
        InputError: no or several files, or a row is invalid; the message names the line.
    """
    heads = _heads(source)
    files = [file for file, head in heads if _has_runs(head)] or [file for file, _ in heads]
    if not files:
        what = "contains no CSV file with a column of images and a column of run lengths"
        raise InputError(source.path, what, "name the columns ImageId and EncodedPixels, for example")
    if len(files) > 1:
        what = f"contains {len(files)} files of run lengths: {', '.join(file.name for file in files[:5])}"
        raise InputError(source.folder, what, "specify the one to import instead of the folder")
    rows = [_Row(record) for record in read_csv(files[0])]
    by_image: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_image[row.image].append(row)
    values = sorted({row.label for row in rows}, key=lambda value: (not value.isdecimal(), len(value), value))
    names = {value: f"class_{value}" if value.isdecimal() else value for value in values}
    found = {name: source.find_image(name, files[0].parent, str(own[0].record)) for name, own in by_image.items()}
    sizes = {name: own[0].size or _size(found[name]) for name, own in by_image.items()}
    order, notes = _order(source, [(row, sizes[row.image]) for row in rows])
    images = []
    for name, own in by_image.items():
        size = sizes[name]
        shapes = [Shape(names[r.label], (_runs(r, *size, order),), str(r.record)) for r in own if size and r.runs.value]
        images.append(AnnotatedImage(name, str(own[0].record), found[name], shapes, size))
    return Export(images, dict.fromkeys(names.values()), notes=(*notes, *source.notes))


def _size(file: Path | None) -> tuple[int, int] | None:
    return image_size(file) if file else None


def _heads(source: Source) -> list[tuple[Path, str]]:
    """Return the files with a column of images and a column that may hold run lengths, and the beginning of each."""
    return [
        (file, head)
        for file, head in source.heads(".csv")
        if (header := _columns(head.partition("\n")[0].split(",")))["image"] and header["runs"]
        if source.path.is_file() or "submission" not in file.name.lower()
    ]


def _has_runs(head: str) -> bool:
    """Return whether the first cell that is not empty holds run lengths, and not the path of a mask, for example.

    Args:
        head: the beginning of a file, with a column that may hold run lengths.
    """
    header, *rows = csv.reader(head.splitlines(keepends=True))
    runs = _columns(header)["runs"]
    column = next((i for i, name in enumerate(header) if name.strip() == runs), len(head))
    cells = (row[column].strip() for row in rows if len(row) > column)
    first = next(filter(None, cells), None)
    return first is None or first in _NO_PIXELS or re.fullmatch(r"\d+([\s,;]+\d+)+", first) is not None


def _columns(header: Iterable[str]) -> dict[str, str | None]:
    """Return the names of the columns with the images, the run lengths and the classes."""
    by_name = {name.strip().strip('"\ufeff').lower(): name.strip() for name in header}
    kinds = {"image": _IMAGES, "runs": _RUNS, "class": _CLASSES, "height": ("height",), "width": ("width",)}
    return {kind: next((by_name[name] for name in names if name in by_name), None) for kind, names in kinds.items()}


class _Row:
    """A row: the image, the class and the run lengths."""

    def __init__(self, record: Record):
        columns = _columns(record.value)
        image, runs, label = (columns[kind] for kind in ("image", "runs", "class"))
        assert image is not None
        assert runs is not None
        self.record, self.image, self.label = record, record[image].text(), _ONLY_CLASS
        if image.lower() in _JOINED:
            self.image, _, self.label = self.image.rpartition("_")
            if not self.image:
                raise record[image].error(f"must be IMAGE_CLASS, got {self.label!r}")
        elif label is not None:
            self.label = record[label].text()
        cell = record[runs].value.strip()
        self.runs = Record(record.file, f"{record.place}, {runs}", [] if cell in _NO_PIXELS else cell.split())
        height, width = columns["height"], columns["width"]
        self.size = (record[height].whole(1), record[width].whole(1)) if height and width else None


def _runs(row: _Row, height: int, width: int, order: Order) -> Runs:
    """Return the runs of a row.

    Raises:
        InputError: they overlap, or do not fit into the image.
    """
    if height * width > MAX_PIXELS:
        raise row.record.error(f"{width} x {height} are more pixels than the limit of {MAX_PIXELS:,}")
    values = row.runs.numbers()
    if len(values) % 2 or not (np.abs(values) <= MAX_PIXELS).all() or (np.mod(values, 1) != 0).any():
        raise row.runs.error("must be START LENGTH START LENGTH ..., in whole numbers")
    pairs = values.reshape(-1, 2).astype(np.int64)
    starts, lengths = pairs[np.argsort(pairs[:, 0])].T
    ends = starts + lengths
    if (lengths < 1).any() or starts[0] < 1 or ends[-1] > height * width + 1:
        what = f"runs must be within the pixels 1 to {height * width} ({width} x {height}), "
        raise row.runs.error(f"{what}got {starts[0]} to {ends[-1] - 1}")
    if (starts[1:] < ends[:-1]).any():
        raise row.runs.error("runs overlap")
    bounds = np.stack([starts - 1, ends - 1], axis=1).ravel()
    counts = np.diff(np.concatenate(([0], bounds, [height * width])))
    return Runs(counts, height, width, order == "columns")


def _order(source: Source, rows: Sequence[tuple[_Row, tuple[int, int] | None]]) -> tuple[Order, tuple[str, ...]]:
    """Return the order of the pixels: as given, or the one in which the shapes have shorter boundaries, and a note."""
    if source.run_order is not None:
        return source.run_order, ()
    drawn = [(row, size) for row, size in rows if size and row.runs.value]
    telling = [(row, size) for row, size in drawn if size[0] != size[1]]  # in squares, the orders are transposes
    lengths: dict[Order, int] = {"columns": 0, "rows": 0}
    for row, size in telling[:_COMPARED]:
        for order in lengths:
            pixels = bitmap_of(_runs(row, *size, order)).pixels
            lengths[order] += int((pixels[1:] != pixels[:-1]).sum() + (pixels[:, 1:] != pixels[:, :-1]).sum())
    if lengths["rows"] == lengths["columns"]:
        why = "the boundaries of the shapes are equally long either way" if telling else "all images are square"
        what = f"run lengths are assumed to be counted down the columns, as in most files of Kaggle: {why}"
        return "columns", (f"{what}; if the masks are transposed, import again with `run_order` rows",)
    order: Order = "rows" if lengths["rows"] < lengths["columns"] else "columns"
    how = "along the rows" if order == "rows" else "down the columns"
    what = f"run lengths are counted {how} (inferred from the shapes' boundaries; `run_order` says otherwise)"
    return order, (what,)
