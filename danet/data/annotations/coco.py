"""COCO JSON, as written by COCO itself, Roboflow, CVAT, Label Studio, FiftyOne and many others.

Polygons and run lengths are read, compressed or not, and crowd regions too. Annotations with only a box are left out.
Format: https://cocodataset.org/#format-data
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Int64

from danet.data.annotations.contours import ring_area
from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Record, read_json
from danet.data.annotations.shapes import (
    AnnotatedImage,
    Bitmap,
    Export,
    Polygon,
    Region,
    Runs,
    Shape,
    note_shared_names,
)
from danet.data.annotations.source import Source
from danet.data.classes import Classes, Color
from danet.data.images.pillow import MAX_PIXELS

_MAX_CHARACTERS = 7  # of a compressed count, 5 bits each


def recognize(source: Source) -> bool:
    """Return whether an export contains COCO files."""
    return source.has_head(".json", r'"(images|annotations|categories)"\s*:\s*\[', r'"(file_name|category_id|iscrowd)"')


def read(source: Source) -> Export:
    """Read all COCO files of an export. The name of a file or its folder tells its split.

    Raises:
        InputError: a file is invalid; the message names the record and the field.
    """
    found = [record for file in source.files(".json") if _is_coco(record := read_json(file))]
    instances = [record for record in found if record.file.name.startswith("instances_")]
    notes = [f"not used: {record.file}" for record in found if instances and record not in instances]
    images: list[AnnotatedImage] = []
    classes: dict[str, Color | None] = {}
    left_out: dict[str, list[str]] = defaultdict(list)
    for record in instances or found:
        names = _categories(record)
        classes |= dict.fromkeys(names.values())
        notes += note_shared_names(names)
        images += _images(source, record, names, left_out)
    return Export(images, classes, left_out, tuple(dict.fromkeys([*notes, *source.notes])))


def _is_coco(record: Record) -> bool:
    return isinstance(record.value, dict) and isinstance(record.value.get("images"), list)


def _categories(record: Record) -> dict[str | int, str]:
    names: dict[str | int, str] = {}
    for category in record["categories"].items():
        if (key := category["id"].key()) in names:
            raise category["id"].error(f"{key!r} is also the id of {names[key]!r}")
        names[key] = category["name"].text()
    return names


def _images(
    source: Source, record: Record, names: Mapping[str | int, str], left_out: dict[str, list[str]]
) -> list[AnnotatedImage]:
    sizes: dict[str | int, tuple[int, int]] = {}
    found: dict[str | int, AnnotatedImage] = {}
    shapes: dict[str | int, list[Shape]] = defaultdict(list)
    split = source.split_of(record.file)
    for image in record["images"].items():
        key, name = image["id"].key(), image["file_name"].text()
        if key in found:
            raise image["id"].error(f"{key!r} is also the id of {found[key].name}")
        sizes[key] = image["height"].whole(1), image["width"].whole(1)
        file = source.find_image(name, record.file.parent, str(image), split)
        found[key] = AnnotatedImage(name, str(image), file, shapes[key], sizes[key], split)
    for annotation in record["annotations"].items():
        key, category = annotation["image_id"].key(), annotation["category_id"].key()
        if key not in found:
            raise annotation["image_id"].error(f"no image has the id {key!r}")
        if category not in names:
            raise annotation["category_id"].error(f"no category has the id {category!r}")
        if annotation.get("segments_info") is not None:
            raise annotation.error("a panoptic annotation", "export instances (polygons or run lengths) instead")
        if regions := _regions(annotation, sizes[key], left_out):
            shapes[key].append(Shape(names[category], regions, str(annotation)))
    return list(found.values())


def _regions(annotation: Record, size: tuple[int, int], left_out: dict[str, list[str]]) -> tuple[Region, ...]:
    segmentation = annotation.get("segmentation")
    if segmentation is None or segmentation.value in ([], {}):
        left_out["boxes without a segmentation"].append(str(annotation))
        return ()
    if isinstance(segmentation.value, dict):
        if segmentation.value.get("counts") in ([], ""):
            left_out["run lengths without counts"].append(str(annotation))
            return ()
        return (_runs(segmentation, size),)
    nested = isinstance(segmentation.value, list) and isinstance(segmentation.value[0], list)
    rings = [ring.flat_points() for ring in (segmentation.items() if nested else (segmentation,))]
    polygons = tuple(Polygon((ring,)) for ring in rings if len(ring) >= 3)
    if len(polygons) < len(rings):
        left_out["polygons of fewer than 3 points"].append(str(annotation))
    return polygons


def _runs(segmentation: Record, size: tuple[int, int]) -> Runs:
    given = [side.whole() for side in segmentation["size"].items()]
    if given != list(size):
        raise segmentation["size"].error(f"is {given}, but the image has [height, width] {list(size)}")
    counts = segmentation["counts"]
    values = decode_counts(counts) if isinstance(counts.value, str) else counts.numbers()
    return checked_runs(counts, values, *size, by_columns=True)


def checked_runs(record: Record, counts: np.ndarray, height: int, width: int, by_columns: bool) -> Runs:
    """Return the runs of a box, after a check that they fill it exactly.

    Raises:
        InputError: a count is negative or not whole, or their sum is not the number of pixels; the box is too large.
    """
    if height * width > MAX_PIXELS:
        raise record.error(f"{width} x {height} are more pixels than the limit of {MAX_PIXELS:,}")
    if not ((counts >= 0) & (counts <= height * width)).all() or (np.mod(counts, 1) != 0).any():
        raise record.error(f"the counts must be whole numbers from 0 to {height * width}")
    if (total := int(counts.sum())) != height * width:
        raise record.error(f"the counts add up to {total} pixels, but {width} x {height} are {height * width}")
    return Runs(counts.astype(np.int64), height, width, by_columns)


def decode_counts(record: Record) -> Int64[np.ndarray, " N"]:
    """Decode a compressed list of counts.

    Each count is written in groups of 5 bits, the lowest first, as the characters with the codes 48 to 111. 32 means
    that another group follows; the highest bit of the last group is the sign. From the fourth count on, the difference
    to the count before the previous one is written.

    Raises:
        InputError: not such a text.
    """
    counts: list[int] = []
    value = shift = 0
    for character in record.value:
        code = ord(character) - 48
        if not 0 <= code < 64 or shift >= 5 * _MAX_CHARACTERS:
            raise record.error("is not a compressed list of counts")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        counts.append(value + (counts[-2] if len(counts) > 2 else 0))
        value = shift = 0
    if shift:
        raise record.error("is not a compressed list of counts (it ends within one)")
    return np.array(counts, np.int64)


def encode_counts(counts: Int64[np.ndarray, " N"]) -> str:
    """Encode a list of counts as `decode_counts` reads it."""
    text: list[str] = []
    values = counts.tolist()
    for i, count in enumerate(values):
        value = count - values[i - 2] if i > 2 else count
        while True:
            code = value & 31
            value >>= 5
            last = value == (-1 if code & 16 else 0)
            text.append(chr(48 + code + (0 if last else 32)))
            if last:
                break
    return "".join(text)


def encode(images: Iterable[AnnotatedImage], classes: Classes) -> Iterator[str]:
    """Yield the text of a COCO file, image by image.

    Polygons are written as polygons, and bitmaps as compressed run lengths, which COCO calls crowds.

    Args:
        images: with their sizes; each shape has one region, a polygon of one ring or a bitmap.
        classes: of the shapes.
    """
    categories = [{"id": i, "name": name, "supercategory": ""} for i, name in enumerate(classes.names, 1)]
    yield f'{{"info": {{}}, "licenses": [], "categories": {json.dumps(categories)},\n"annotations": ['
    records, count = [], 0
    for key, image in enumerate(images, 1):
        assert image.size is not None
        height, width = image.size
        records.append({"id": key, "file_name": image.name, "width": width, "height": height})
        for shape in image.shapes:
            count += 1
            ids = {"id": count, "image_id": key, "category_id": classes.names.index(shape.name or "") + 1}
            score = {} if shape.score is None else {"score": round(shape.score, 4)}
            yield f"{',' * (count > 1)}\n{json.dumps({**ids, **_segmentation(shape.regions[0], image.size), **score})}"
    yield f'\n],\n"images": {json.dumps(records)}}}\n'


def _segmentation(region: Region, size: tuple[int, int]) -> dict[str, Any]:
    """Return the fields of an annotation that depend on its region."""
    if isinstance(region, Polygon):
        (ring,) = region.rings
        (left, top), (right, bottom) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
        fields = {"segmentation": [ring.ravel().tolist()], "area": abs(ring_area(ring)), "iscrowd": 0}
        return fields | {"bbox": [left, top, right - left, bottom - top]}
    assert isinstance(region, Bitmap)
    y, x = np.nonzero(region.pixels)
    left, top = int(x.min()), int(y.min())
    segmentation = {"size": list(size), "counts": encode_counts(runs_of(region.pixels, by_columns=True).counts)}
    fields = {"segmentation": segmentation, "area": len(x), "iscrowd": 1}
    return fields | {"bbox": [left, top, int(x.max()) + 1 - left, int(y.max()) + 1 - top]}
