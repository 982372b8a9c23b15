"""Supervisely projects: meta.json, and DATASET/ann/IMAGE.json beside DATASET/img/IMAGE.

Bitmaps, polygons with holes and rectangles are read; polylines, which have no width in the file, are drawn with a given
width. Other geometries are left out. Names of the dataset folders tell the split.
Format: https://developer.supervisely.com/getting-started/supervisely-annotation-format
"""

import zlib
from collections import defaultdict
from pathlib import Path

import numpy as np

from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Record, read_json
from danet.data.annotations.shapes import AnnotatedImage, Export, Line, Polygon, Region, Shape, rectangle
from danet.data.annotations.source import Source
from danet.data.classes import Color
from danet.data.images.binary_masks import decode_binary_mask
from danet.data.images.read import SUFFIXES
from danet.errors import InputError

_MAX_BITMAP = 1 << 26  # bytes of a bitmap's PNG


def recognize(source: Source) -> bool:
    """Return whether an export contains Supervisely annotations."""
    return source.has_head(".json", r'"objects"\s*:\s*\[', r'"(size|classTitle)"\s*:')


def read(source: Source) -> Export:
    """Read all datasets of a project.

    Raises:
        InputError: no meta.json, or a file is invalid; the message names the object and the field.
    """
    meta = next((file for file in source.files(".json") if file.name == "meta.json"), None)
    if meta is None:
        what = "contains no meta.json, which defines the classes"
        raise InputError(source.folder, what, "specify the folder of the whole project")
    classes: dict[str, Color | None] = {}
    for item in read_json(meta)["classes"].items():
        color = item.get("color")
        classes[item["title"].text()] = color.color() if color else None
    left_out: dict[str, list[str]] = defaultdict(list)
    files = [file for file in source.files(".json") if file.parent.name == "ann"]
    known = set(source.all_images)
    images = [_image(source, read_json(file), known, classes, left_out) for file in files]
    return Export(images, classes, left_out)


def _image(
    source: Source, record: Record, known: set[Path], classes: dict[str, Color | None], left_out: dict[str, list[str]]
) -> AnnotatedImage:
    name, dataset = record.file.stem, record.file.parents[1]
    size = record["size"]["height"].whole(1), record["size"]["width"].whole(1)
    shapes = []
    for item in record["objects"].items():
        title = item["classTitle"]
        if title.text() not in classes:
            raise title.error(f"{title.text()!r} is not a class in meta.json")
        if regions := _regions(item, left_out):
            shapes.append(Shape(title.text(), regions, str(item)))
    has_suffix = Path(name).suffix.lower() in SUFFIXES
    own = [dataset / "img" / name] if has_suffix else [dataset / "img" / f"{name}{suffix}" for suffix in SUFFIXES]
    file = next((file for file in own if file in known), None)
    file = file or source.find_image(name, record.file.parent, str(record))
    return AnnotatedImage(name, str(record), file, shapes, size, source.split_of(dataset))


def _regions(item: Record, left_out: dict[str, list[str]]) -> tuple[Region, ...]:
    match item["geometryType"].text():
        case "bitmap":
            return (_bitmap(item["bitmap"]),)
        case "polygon":
            rings = [item["points"]["exterior"].points(), *(r.points() for r in item["points"]["interior"].items())]
            if len(rings[0]) >= 3:
                return (Polygon(tuple(ring for ring in rings if len(ring) >= 3)),)
            left_out["polygons of fewer than 3 points"].append(str(item))
        case "rectangle":
            corners = item["points"]["exterior"].points()
            if len(corners) != 2:
                raise item["points"]["exterior"].error(f"a rectangle must have 2 points, got {len(corners)}")
            (left, top), (right, bottom) = np.sort(corners, axis=0)
            return (rectangle(left, top, right - left + 1, bottom - top + 1),)  # its last row and column are inside
        case "line":
            points = item["points"]["exterior"].points()
            return (Line(points),) if len(points) else ()
        case kind:
            left_out[f"{kind} objects"].append(str(item))
    return ()


def _bitmap(bitmap: Record) -> Region:
    corner = [side.whole(-1_000_000) for side in bitmap["origin"].items()]
    if len(corner) != 2:
        raise bitmap["origin"].error(f"must be [left, top], got {len(corner)} numbers")
    left, top = corner
    packed, unpack = bitmap["data"].base64(), zlib.decompressobj()
    try:
        content = unpack.decompress(packed, _MAX_BITMAP)
    except zlib.error as error:
        raise bitmap["data"].error("is not compressed by zlib") from error
    if not unpack.eof:
        raise bitmap["data"].error(f"is truncated, or has more than {_MAX_BITMAP:,} bytes")
    return runs_of(decode_binary_mask(content, str(bitmap["data"])), False, left, top)
