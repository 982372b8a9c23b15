"""CVAT for images 1.1: annotations.xml, and the images in images/ if they were exported.

Polygons, boxes, ellipses and masks are read; polylines, which have no width in the file, are drawn with a given width.
Points, cuboids, skeletons and tags are left out. Shapes are drawn in the order of their z_order, then of the file.
Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat
"""

import html
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from danet.data.annotations.coco import checked_runs
from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Element, Record, read_xml
from danet.data.annotations.shapes import (
    AnnotatedImage,
    Bitmap,
    Export,
    Line,
    Polygon,
    Region,
    Shape,
    ellipse,
    rectangle,
)
from danet.data.annotations.source import Source
from danet.data.classes import Classes, Color
from danet.data.images.pillow import MAX_PIXELS
from danet.errors import InputError, list_names

_NOT_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_BREAKS = {9: "&#9;", 10: "&#10;", 13: "&#13;"}  # in attributes, XML reads the characters themselves as spaces
_LEFT_OUT = ("points", "cuboid", "skeleton", "tag")


def recognize(source: Source) -> bool:
    """Return whether an export contains CVAT's XML."""
    return source.has_head(".xml", r"<annotations>", r"<(meta|image|track|version)\b")


def read(source: Source) -> Export:
    """Read all CVAT files of an export. The subset of an image, or else the name of its file, is its split.

    Labels that no shape can be drawn of are no classes: the points of skeletons, and, unless a shape uses them, the
    labels of points, cuboids, skeletons and tags.

    Raises:
        InputError: a file is invalid; the message names the line, the element and the attribute.
    """
    classes: dict[str, Color | None] = {}
    types: dict[str, set[str]] = defaultdict(set)
    parts: dict[str, None] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    images: list[AnnotatedImage] = []
    for top in (read_xml(file) for file in source.files(".xml")):
        if top.tag != "annotations":
            continue
        if track := next(top.find("track"), None):
            raise track.record.error("a track of CVAT for video", "export the task as CVAT for images 1.1")
        for label in top.find("label"):
            name = label.child_text("name")
            if label.child_text("parent"):
                parts[name] = None
            else:
                classes[name] = _color(label)
                types[name].add(label.child_text("type"))
        images += [_image(source, image, classes, left_out) for image in top.find("image")]
    used = {shape.name for image in images for shape in image.shapes}
    others = [name for name in classes if name not in used and types[name] <= {*_LEFT_OUT}]
    names = [*others, *(name for name in parts if name not in classes)]
    what = f"labels of points, cuboids, skeletons and tags, not used as classes: {len(names)} ({list_names(names, 5)})"
    kept = {name: color for name, color in classes.items() if name not in others}
    return Export(images, kept, left_out, (*([what] if names else []), *source.notes))


def _color(label: Element) -> Color | None:
    color = label.child_text("color")
    return Record(label.record.file, label.record.place, color).color() if color else None


def _image(
    source: Source, image: Element, classes: dict[str, Color | None], left_out: dict[str, list[str]]
) -> AnnotatedImage:
    record = image.record
    name, size = record["name"].text(), (record["height"].whole(1), record["width"].whole(1))
    ordered: list[tuple[int, Shape]] = []
    for child in image.children:
        if child.tag in _LEFT_OUT:
            left_out[f"{child.tag} elements"].append(str(child.record))
            continue
        label = child.record["label"]
        if label.text() not in classes:
            raise label.error(f"{label.text()!r} is not one of the labels of the task")
        z_order = child.record.get("z_order")
        if region := _region(child, left_out):
            shape = Shape(label.text(), (region,), str(child.record))
            ordered.append((z_order.whole(-1_000_000) if z_order else 0, shape))
    shapes = [shape for _, shape in sorted(ordered, key=lambda pair: pair[0])]
    subset = record.get("subset")
    split = source.split_of(*([subset.text()] if subset and subset.value else []), record.file)
    file = source.find_image(name, record.file.parent, str(record), split)
    return AnnotatedImage(name, str(record), file, shapes, size, split)


def _region(element: Element, left_out: dict[str, list[str]]) -> Region | None:
    record = element.record

    def numbers(*names: str) -> list[float]:
        return [record[name].number() for name in names]

    rotation = record.get("rotation")
    degrees = rotation.number() if rotation else 0.0
    match element.tag:
        case "box":
            left, top, right, bottom = numbers("xtl", "ytl", "xbr", "ybr")
            return rectangle(left, top, right - left, bottom - top, degrees, centered=True)
        case "ellipse":
            x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
            return ellipse(x, y, radius_x, radius_y, degrees)
        case "mask":
            left, top = (record[name].whole(-1_000_000) for name in ("left", "top"))
            width, height = (record[name].whole(1) for name in ("width", "height"))
            counts = np.array([count.whole(0, MAX_PIXELS) for count in _split(record["rle"], ",")], np.float64)
            return replace(checked_runs(record["rle"], counts, height, width, by_columns=False), left=left, top=top)
        case "polygon" | "polyline":
            points = [[value.number() for value in _split(point, ",")] for point in _split(record["points"], ";")]
            pairs = Record(record.file, f"{record.place}.points", points).points()
            if element.tag == "polyline":
                return Line(pairs)
            if len(pairs) >= 3:
                return Polygon((pairs,))
            left_out["polygons of fewer than 3 points"].append(str(record))
            return None
        case _:
            raise record.error("is not a shape of CVAT for images 1.1")


def _split(record: Record, separator: str) -> list[Record]:
    return [Record(record.file, record.place, part) for part in str(record.value).split(separator)]


def encode(images: Iterable[AnnotatedImage], classes: Classes) -> Iterator[str]:
    """Yield the text of an annotations.xml, image by image.

    Args:
        images: with their sizes; each shape has one region, a polygon of one ring or a bitmap.
        classes: of the shapes.

    Raises:
        InputError: see `check_name`.
    """
    yield '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task><labels>\n'
    for name, color in zip(classes.names, classes.palette, strict=True):
        yield f"<label><name>{_quoted(name)}</name><color>#{bytes(color).hex()}</color><attributes/></label>\n"
    yield "</labels></task></meta>\n"
    for key, image in enumerate(images):
        assert image.size is not None
        height, width = image.size
        yield f'<image id="{key}" name="{_quoted(image.name)}" width="{width}" height="{height}">\n'
        for z_order, shape in enumerate(image.shapes):
            tag, fields = _element(shape.regions[0])
            label = f'label="{_quoted(shape.name or "")}" source="auto" occluded="0"'
            yield f'<{tag} {label} {fields} z_order="{z_order}"/>\n'
        yield "</image>\n"
    yield "</annotations>\n"


def check_name(name: str, where: object) -> None:
    """Check that XML can hold a name.

    Args:
        name: of an image or a class.
        where: the file or parameter, for messages.

    Raises:
        InputError: it contains control characters, or bytes that are no text.
    """
    if found := _NOT_XML.search(name):
        what = f"its name contains {found[0]!r}, which the XML of CVAT cannot hold"
        raise InputError(where, what, "rename it, or use another `format`")


def _quoted(name: str) -> str:
    check_name(name, name)
    return html.escape(name).translate(_BREAKS)


def _element(region: Region) -> tuple[str, str]:
    """Return the tag of a shape and the attributes that depend on its region."""
    if isinstance(region, Polygon):
        (ring,) = region.rings
        return "polygon", f'points="{";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())}"'
    assert isinstance(region, Bitmap)
    y, x = np.nonzero(region.pixels)
    left, top = int(x.min()), int(y.min())
    runs = runs_of(region.pixels[top : int(y.max()) + 1, left : int(x.max()) + 1], by_columns=False)
    rle = ", ".join(map(str, runs.counts.tolist()))
    return "mask", f'rle="{rle}" left="{left}" top="{top}" width="{runs.width}" height="{runs.height}"'
