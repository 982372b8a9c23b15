"""LabelMe JSON (labelme, AnyLabeling, X-AnyLabeling): one file per image.

Polygons, rectangles, circles and masks are read; lines, which have no width in the file, are drawn with a given width.
Points and cuboids are left out. The class names and their order are taken from labels.txt if there is one. The class
`__ignore__` marks pixels to ignore. The image in the file is used if there is no image file.
Format: https://github.com/wkentaro/labelme
"""

import math
from collections import defaultdict
from functools import partial
from pathlib import Path

import numpy as np

from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Record, read_json, read_text
from danet.data.annotations.shapes import AnnotatedImage, Export, Line, Polygon, Region, Shape, ellipse
from danet.data.annotations.source import Source
from danet.data.images.binary_masks import decode_binary_mask
from danet.errors import InputError

_IGNORED = "__ignore__"
_LEFT_OUT = {"point": "points", "points": "points", "cuboid": "cuboids"}
_LEAST_POINTS = {"polygon": 3} | dict.fromkeys(("oriented_rectangle", "rotation", "quadrilateral"), 4)
_LEAST_POINTS |= dict.fromkeys(("rectangle", "circle", "line", "linestrip", "mask"), 2)


def recognize(source: Source) -> bool:
    """Return whether an export contains LabelMe files."""
    return source.has_head(".json", r'"shapes"\s*:\s*\[', r'"(shape_type|imagePath|imageData)"')


def check_old_folders(source: Source) -> None:
    """Refuse the folders that labelme_json_to_dataset writes.

    Raises:
        InputError: the export contains such folders.
    """
    names = {"label.png", "label_viz.png", "label_names.txt"}
    for file in source.all_files:
        if file.name == "label.png" and len({other.name for other in file.parent.iterdir()} & names) > 1:
            what = "was written by labelme_json_to_dataset, whose numbers mean other classes in each image"
            raise InputError(file, what, "import the .json files that LabelMe saved, not the folders made from them")


def read(source: Source) -> Export:
    """Read all LabelMe files of an export. Names of folders tell the split.

    Raises:
        InputError: a file is invalid; the message names the shape and the field.
    """
    left_out: dict[str, list[str]] = defaultdict(list)
    images, others = [], []
    for file in source.files(".json"):
        record = read_json(file)
        if isinstance(record.value, dict) and isinstance(record.value.get("shapes"), list):
            images.append(_image(source, record, left_out))
        else:
            others.append(file.name)
    names = {shape.name for image in images for shape in image.shapes if shape.name is not None}
    listed = _listed_names(source)
    notes = ["the order of the classes is alphabetical: labels.txt would define another"] if not listed else []
    notes += [f"not LabelMe files, left out: {', '.join(others)}"] if others else []
    notes += source.notes
    order = [*listed, *sorted(names - set(listed))]
    return Export(images, dict.fromkeys(order), left_out, tuple(notes))


def _listed_names(source: Source) -> list[str]:
    file = next((file for file in source.all_files if file.name == "labels.txt"), None)
    lines = read_text(file).splitlines() if file else []
    return list(dict.fromkeys(line.strip() for line in lines if line.strip() not in ("", _IGNORED)))


def _image(source: Source, record: Record, left_out: dict[str, list[str]]) -> AnnotatedImage:
    name = record["imagePath"].text()
    shapes = []
    for shape in record["shapes"].items():
        label = shape["label"].text()
        if regions := _regions(shape, left_out):
            shapes.append(Shape(None if label == _IGNORED else label, regions, str(shape)))
    height, width = record.get("imageHeight"), record.get("imageWidth")
    size = (height.whole(1), width.whole(1)) if height and width else None
    file = source.find_image(name, record.file.parent, str(record))
    embedded = partial(_embedded, record.file) if record.get("imageData") else None
    split = source.split_of(record.file.parent)
    return AnnotatedImage(Path(name.replace("\\", "/")).name, str(record), file, shapes, size, split, embedded)


def _embedded(file: Path) -> bytes:
    return read_json(file)["imageData"].base64()


def _regions(shape: Record, left_out: dict[str, list[str]]) -> tuple[Region, ...]:
    kind_record = shape.get("shape_type")
    kind = kind_record.text() if kind_record else "polygon"
    if kind in _LEFT_OUT:
        left_out[_LEFT_OUT[kind]].append(str(shape))
        return ()
    if kind_record and kind not in _LEAST_POINTS:
        raise kind_record.error(f"{kind!r} is unknown", f"use {', '.join(_LEAST_POINTS)} or point")
    points = shape["points"].points()
    if len(points) < _LEAST_POINTS[kind]:
        left_out["shapes with too few points"].append(str(shape))
        return ()
    if kind == "mask":
        left, top = np.rint(points[0]).astype(int).tolist()
        pixels = decode_binary_mask(shape["mask"].base64(), str(shape["mask"]))
        return (runs_of(pixels, False, left, top),)
    if kind in ("line", "linestrip"):
        return (Line(points),)
    if kind == "circle":
        (x, y), (edge_x, edge_y) = points[:2]
        radius = math.hypot(edge_x - x, edge_y - y)
        return (ellipse(x, y, radius, radius),)
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    return (Polygon((points,)),)
