"""Label Studio JSON: a list of tasks with annotations.

Polygons, brush masks, bitmasks, rectangles and ellipses are read; points and other results are left out. Of several
annotations of a task, the last one is read. If no task has annotations, the predictions are read.
Format: https://labelstud.io/guide/task_format
"""

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from danet.data.annotations.brush import decode_brush, encode_brush
from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Record, read_json, read_xml
from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Polygon, Region, Shape, ellipse, rectangle
from danet.data.annotations.source import Source
from danet.data.classes import Classes
from danet.data.images.binary_masks import decode_binary_mask
from danet.data.images.read import SUFFIXES
from danet.errors import list_names

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the names of uploaded files


def recognize(source: Source) -> bool:
    """Return whether an export contains Label Studio's tasks."""
    return source.has_head(
        ".json", r"^\s*\[", r'"(annotations|predictions|completions)"\s*:\s*\[', r'"(data|result)"\s*:'
    )


def read(source: Source) -> Export:
    """Read all tasks of an export. Names of files and folders tell the split.

    Raises:
        InputError: a file is invalid; the message names the task, the result and the field.
    """
    tasks = [task for file in source.files(".json") for task in read_tasks(read_json(file))]
    annotated = any(_annotations(task) for task in tasks)
    left_out: dict[str, list[str]] = defaultdict(list)
    images, several, classes = [], [], {}
    for task in tasks:
        chosen = _annotations(task) if annotated else _listed(task, "predictions")
        name = image_name(task)
        if len(chosen) > 1:
            several.append(name)
        shapes, size = _shapes(chosen[-1], left_out) if chosen else ([], None)
        classes |= {shape.name: None for shape in shapes}
        split = source.split_of(task.file)
        file = find_task_image(source, name, task, split)
        images.append(AnnotatedImage(name, str(task), file, shapes, size, split))
    configured = _configured_names(source)
    order = "alphabetical: the file does not define one"
    notes = [f"the order of the classes is {'that of the labeling configuration' if configured else order}"]
    if not annotated:
        notes.append("no task has annotations, so the predictions are read")
    notes += note_several(several)
    return Export(
        images, dict.fromkeys([*configured, *sorted(classes.keys() - set(configured))]), left_out, tuple(notes)
    )


def note_several(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note about the images that were annotated several times; nothing if there are none."""
    what = f"tasks with several annotations: {len(names)} ({list_names(names, 5)})"
    return (f"{what}; the last one of each is read",) if names else ()


def _configured_names(source: Source) -> list[str]:
    """Return the labels of the project's labeling configuration, if the export contains that file."""
    file = next((file for file, head in source.heads(".xml") if re.match(r"\s*<View\b", head)), None)
    labels = read_xml(file).find("Label") if file else ()
    return list(dict.fromkeys(label.record["value"].text() for label in labels))


def read_tasks(record: Record) -> list[Record]:
    """Return the tasks in a file; none if it contains anything else."""
    if not isinstance(record.value, list):
        return []
    return [task for task in record.items() if isinstance(task.value, dict) and "data" in task.value]


def image_name(task: Record) -> str:
    """Return the name of a task's image: of its data, the first path with the suffix of an image.

    Raises:
        InputError: the task has no image.
    """
    texts = {key: value.value for key, value in task["data"].entries() if isinstance(value.value, str)}
    for key in sorted(texts, key=lambda key: key != "image"):
        try:
            parts = urlsplit(texts[key])
        except ValueError:  # not a URL, such as http://[
            continue
        path = next(iter(parse_qs(parts.query).get("d", [])), unquote(parts.path))  # /data/local-files/?d=PATH
        name = PurePosixPath(path.replace("\\", "/")).name
        if name.lower().endswith(SUFFIXES):
            return name
    raise task["data"].error("names no image")


def find_task_image(source: Source, name: str, task: Record, split: str | None) -> Path | None:
    """Find the image of a task, with or without the prefix of uploaded files."""
    found = source.find_image(name, task.file.parent, str(task), split)
    return found or source.find_image(_UPLOADED.sub("", name), task.file.parent, str(task), split)


def _listed(task: Record, key: str) -> list[Record]:
    found = task.get(key)
    return [item for item in found.items() if isinstance(item.value, dict)] if found else []


def _annotations(task: Record) -> list[Record]:
    """Return the annotations of a task that were not canceled; versions before 1.0 call them completions."""
    found = _listed(task, "annotations") or _listed(task, "completions")
    return [item for item in found if not item.value.get("was_cancelled")]


def _labels(result: Record) -> list[str]:
    """Return the labels that a result contains."""
    value = result.get("value")
    lists = [labels for key, labels in value.entries() if key.endswith("labels")] if value else []
    return [label.text() for labels in lists if isinstance(labels.value, list) for label in labels.items()]


def _shapes(annotation: Record, left_out: dict[str, list[str]]) -> tuple[list[Shape], tuple[int, int] | None]:
    """Return the shapes of an annotation, and the size of its image if there are any."""
    by_id: dict[str | int, list[str]] = defaultdict(list)  # a region and its labels may be two results with one id
    for result in annotation["result"].items():
        if (key := result.get("id")) is not None:
            by_id[key.key()] += _labels(result)
    shapes, size = [], None
    for result in annotation["result"].items():
        kind, key = result["type"].text(), result.get("id")
        if not (found := re.match(r"(polygon|brush|bitmask|rectangle|ellipse)(labels)?$", kind)):
            if kind != "labels":
                left_out[f"{kind} results"].append(str(result))
            continue
        labels = list(dict.fromkeys(by_id[key.key()] if key else _labels(result)))
        if not labels:
            left_out["results without a label"].append(str(result))
            continue
        if len(labels) > 1:
            raise result.error(f"has several labels: {', '.join(labels)}", "choose one label per region")
        size = result["original_height"].whole(1), result["original_width"].whole(1)
        rotation = result.get("image_rotation")
        if rotation and rotation.number() % 360:
            raise rotation.error(f"the image was rotated by {rotation.value} degrees in Label Studio", "rotate it back")
        if region := _region(found[1], result["value"], size):
            shapes.append(Shape(labels[0], (region,), str(result)))
        else:
            left_out["polygons of fewer than 3 points"].append(str(result))
    return shapes, size


def _region(kind: str, value: Record, size: tuple[int, int]) -> Region | None:
    """Return the region of a value, whose coordinates are percentages of the image's sides."""
    height, width = size[0] / 100, size[1] / 100

    def pixels(key: str, scale: float) -> float:
        return value[key].number() * scale

    rotation = value.get("rotation")
    degrees = rotation.number() if rotation else 0.0
    match kind:
        case "polygon":
            points = value["points"].points() * (width, height)
            return Polygon((points,)) if len(points) >= 3 else None
        case "rectangle":
            sides = pixels("width", width), pixels("height", height)
            return rectangle(pixels("x", width), pixels("y", height), *sides, degrees)
        case "ellipse":
            radii = pixels("radiusX", width), pixels("radiusY", height)
            return ellipse(pixels("x", width), pixels("y", height), *radii, degrees)
        case "brush":
            return decode_brush(value["rle"], *size)
    url = value["imageDataURL"]
    packed = str(url.value).partition(";base64,")[2]
    mask = decode_binary_mask(replace(url, value=packed).base64(), str(url))
    if mask.shape != size:
        raise url.error(f"is {mask.shape[1]} x {mask.shape[0]}, but the image has {size[1]} x {size[0]} pixels")
    return runs_of(mask, by_columns=False)


def encode(images: Iterable[AnnotatedImage], _: Classes) -> Iterator[str]:
    """Yield the text of a list of tasks with predictions, image by image; see `labeling_config`.

    Args:
        images: with their sizes; each shape has one region, a polygon of one ring or a bitmap.
    """
    yield "["
    for i, image in enumerate(images):
        assert image.size is not None
        results = [_result(shape, f"{i}-{j}", image.size) for j, shape in enumerate(image.shapes)]
        scores = [shape.score for shape in image.shapes if shape.score is not None]
        mean = {"score": round(sum(scores) / len(scores), 4)} if scores else {}
        prediction = {"model_version": "danet", **mean, "result": results}
        data = {"image": f"/data/local-files/?d={quote(image.name, errors='surrogateescape')}"}
        yield f"{',' * (i > 0)}\n{json.dumps({'data': data, 'predictions': [prediction]})}"
    yield "\n]\n"


def labeling_config(classes: Classes, polygons: bool) -> str:
    """Return the labeling configuration of a project to which the tasks of `encode` belong.

    Args:
        classes: the labels.
        polygons: whether the shapes are polygons; otherwise they are brush masks.
    """
    tag = "PolygonLabels" if polygons else "BrushLabels"
    labels = "".join(
        f'    <Label value="{html.escape(name)}" background="#{bytes(color).hex()}"/>\n'
        for name, color in zip(classes.names, classes.palette, strict=True)
    )
    image = '  <Image name="image" value="$image" zoom="true"/>\n'
    return f'<View>\n{image}  <{tag} name="label" toName="image">\n{labels}  </{tag}>\n</View>\n'


def _result(shape: Shape, key: str, size: tuple[int, int]) -> dict[str, Any]:
    height, width = size
    (region,) = shape.regions
    if isinstance(region, Polygon):
        points = (region.rings[0] * (100 / width, 100 / height)).tolist()
        kind, value = "polygonlabels", {"points": points, "closed": True}
    else:
        assert isinstance(region, Bitmap)
        kind, value = "brushlabels", {"format": "rle", "rle": encode_brush(region.pixels)}
    names = {"id": key, "type": kind, "from_name": "label", "to_name": "image"}
    sizes = {"original_width": width, "original_height": height, "image_rotation": 0}
    score = {} if shape.score is None else {"score": round(shape.score, 4)}
    return {**names, **sizes, "value": {**value, kind: [shape.name]}, **score}
