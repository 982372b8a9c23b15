"""VGG Image Annotator (VIA) JSON: annotations and projects of version 2, and annotations of version 1.

Polygons, rectangles, circles and ellipses are read; polylines, which have no width in the file, are drawn with a given
width. Points are left out. The class is an attribute of the region. The file has no image sizes.
Format: https://www.robots.ox.ac.uk/~vgg/software/via/
"""

import math
from collections import defaultdict
from collections.abc import Iterator

import numpy as np

from danet.data.annotations.records import Record, read_json
from danet.data.annotations.shapes import AnnotatedImage, Export, Line, Polygon, Region, Shape, ellipse, rectangle
from danet.data.annotations.source import Source
from danet.errors import InputError, unknown_name

_ONLY_CLASS = "foreground"


def recognize(source: Source) -> bool:
    """Return whether an export contains VIA files."""
    return source.has_head(".json", r'"(_via_img_metadata|shape_attributes)"')


def read(source: Source) -> Export:
    """Read all VIA files of an export. Names of files and folders tell the split.

    Raises:
        InputError: a file is invalid; the message names the region and the field. Regions have several attributes, and
            the source does not say which one is the class.
    """
    files = [record for file in source.files(".json") if _is_via(record := read_json(file))]
    attribute = _class_attribute(source, files)
    left_out: dict[str, list[str]] = defaultdict(list)
    images = [
        _image(source, image, attribute, left_out) for record in files for _, image in _metadata(record).entries()
    ]
    names = {shape.name for image in images for shape in image.shapes if shape.name is not None}
    listed = [name for record in files for name in _listed_names(record, attribute)]
    notes = () if attribute else (f"regions have no attributes: all are of one class, {_ONLY_CLASS!r}",)
    if attribute and not listed:
        notes = (f"the class is the attribute {attribute!r}; the order of the classes is alphabetical",)
    return Export(images, dict.fromkeys([*listed, *sorted(names - set(listed))]), left_out, (*notes, *source.notes))


def _is_via(record: Record) -> bool:
    if not isinstance(record.value, dict):
        return False
    if "_via_img_metadata" in record.value:
        return True
    first = next(iter(record.value.values()), None)
    return isinstance(first, dict) and "regions" in first and "filename" in first


def _metadata(record: Record) -> Record:
    return record.get("_via_img_metadata") or record


def _regions(image: Record) -> Iterator[Record]:
    regions = image["regions"]
    if isinstance(regions.value, dict):  # version 1
        return (region for _, region in regions.entries())
    return regions.items()


def _class_attribute(source: Source, files: list[Record]) -> str | None:
    """Return the name of the attribute that holds the class, or None if no region has attributes."""
    names: dict[str, None] = {}
    for record in files:
        for _, image in _metadata(record).entries():
            for region in _regions(image):
                attributes = region.get("region_attributes")
                names |= dict.fromkeys(name for name, _ in attributes.entries()) if attributes else {}
    if source.class_attribute is not None:
        if source.class_attribute not in names:
            raise unknown_name("class_attribute", source.class_attribute, names, "no region has attributes")
        return source.class_attribute
    if len(names) > 1:
        what = f"its regions have {len(names)} attributes: {', '.join(names)}"
        raise InputError(files[0].file, what, "choose the one that holds the class with `class_attribute`")
    return next(iter(names), None)


def _listed_names(record: Record, attribute: str | None) -> list[str]:
    """Return the options of the class attribute in the order of a project."""
    attributes = record.get("_via_attributes")
    regions = attributes.get("region") if attributes else None
    chosen = regions.get(attribute) if regions and attribute else None
    options = chosen.get("options") if chosen else None
    return [name for name, _ in options.entries()] if options and isinstance(options.value, dict) else []


def _image(source: Source, image: Record, attribute: str | None, left_out: dict[str, list[str]]) -> AnnotatedImage:
    name, split = image["filename"].text(), source.split_of(image.file)
    shapes = []
    for region in _regions(image):
        if not (regions := _drawn(region, left_out)):
            continue
        if attribute is None:
            shapes.append(Shape(_ONLY_CLASS, regions, str(region)))
        elif (label := _label(region, attribute)) is None:
            left_out[f"regions without {attribute!r}"].append(str(region))
        else:
            shapes.append(Shape(label, regions, str(region)))
    file = source.find_image(name, image.file.parent, str(image), split)
    return AnnotatedImage(name, str(image), file, shapes, None, split)


def _label(region: Record, attribute: str) -> str | None:
    attributes = region.get("region_attributes")
    value = attributes.get(attribute) if attributes else None
    if value is None or value.value == "":
        return None
    if not isinstance(value.value, dict):
        return value.text()
    checked = [name for name, chosen in value.entries() if chosen.value]
    if len(checked) > 1:
        raise value.error(f"has several classes: {', '.join(checked)}", "choose one class per region")
    return checked[0] if checked else None


def _drawn(region: Record, left_out: dict[str, list[str]]) -> tuple[Region, ...]:
    shape = region["shape_attributes"]

    def numbers(*keys: str) -> list[float]:
        return [shape[key].number() for key in keys]

    match shape["name"].text():
        case "polygon" | "polyline" as kind:
            columns = shape["all_points_x"], shape["all_points_y"]
            x, y = columns[0].numbers(), columns[1].numbers()
            if len(x) != len(y):
                raise columns[1].error(f"has {len(y)} numbers, but all_points_x has {len(x)}")
            points = shape.bounded(np.stack([x, y], axis=1))
            if kind == "polygon" and len(points) >= 3:
                return (Polygon((points,)),)
            if kind == "polyline" and len(points):
                return (Line(points),)
            left_out[f"{kind}s with too few points"].append(str(region))
        case "rect":
            x, y, width, height = numbers("x", "y", "width", "height")
            return (rectangle(x, y, width, height),)
        case "circle":
            x, y, radius = numbers("cx", "cy", "r")
            return (ellipse(x, y, radius, radius),)
        case "ellipse":
            x, y, radius_x, radius_y = numbers("cx", "cy", "rx", "ry")
            theta = shape.get("theta")
            return (ellipse(x, y, radius_x, radius_y, math.degrees(theta.number()) if theta else 0),)
        case "point":
            left_out["points"].append(str(region))
        case kind:
            raise shape["name"].error(f"{kind!r} is unknown")
    return ()
