"""Label Studio JSON: a list of tasks with annotations.

Polygons, brush masks, bitmasks, rectangles and ellipses are read; points and other results are left out. Of several
annotations of a task, the last one is read. If no task has annotations, the predictions are read. A task may have
several images, if the export says to which of them the results belong.
Format: https://labelstud.io/guide/task_format
"""

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import parse_qs, quote, unquote, urlsplit

from danet.data.annotations.brush import decode_brush, encode_brush
from danet.data.annotations.rasterize import runs_of
from danet.data.annotations.records import Element, Record, read_json, read_xml
from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Polygon, Region, Shape, ellipse, rectangle
from danet.data.annotations.source import Source
from danet.data.classes import Classes
from danet.data.images.binary_masks import decode_binary_mask
from danet.data.images.read import SUFFIXES
from danet.errors import list_names

_UPLOADED = re.compile(r"^[0-9a-f]{8}-(?=.)")  # Label Studio puts it before the names of uploaded files
_UPLOADS = re.compile(r"^(.*?/)?data/upload/(\d+/)?")  # the server's folder of these files, which no user has


class _Drawn(NamedTuple):
    """A shape.

    Args:
        target: name of the image in the labeling configuration, or its key in the task's data.
        shape: the shape.
        size: height and width of the image.
    """

    target: str
    shape: Shape
    size: tuple[int, int]


def recognize(source: Source) -> bool:
    """Return whether an export contains Label Studio's tasks."""
    return source.has_head(
        ".json", r"^\s*\[", r'"(annotations|predictions|completions)"\s*:\s*\[', r'"(data|result)"\s*:'
    )


def read(source: Source) -> Export:
    """Read all tasks of an export. Names of files and folders tell the split.

    Raises:
        InputError: a file is invalid, or does not say to which image of a task a result belongs; the message names the
            task, the result and the field.
    """
    tasks = [task for file in source.files(".json") for task in read_tasks(read_json(file))]
    annotated = any(_annotations(task) for task in tasks)
    left_out: dict[str, list[str]] = defaultdict(list)
    several: list[str] = []
    drawn: list[list[_Drawn]] = []
    for task in tasks:
        chosen = _annotations(task) if annotated else _listed(task, "predictions")
        if len(chosen) > 1:
            several.append(image_name(task))
        drawn.append(_shapes(chosen[-1], left_out) if chosen else [])
    configuration = _configuration(source)
    by_key, guessed = _by_key(tasks, drawn, _configured_keys(configuration))
    used = {key for own in by_key for key in own}
    images = [image for task, own in zip(tasks, by_key, strict=True) for image in _images(source, task, own, used)]
    configured = _configured_names(configuration)
    classes = {one.shape.name for found in drawn for one in found if one.shape.name} - set(configured)
    order = "alphabetical: the file does not define one"
    notes = [f"the order of the classes is {'that of the labeling configuration' if configured else order}"]
    if not annotated:
        notes.append("no task has annotations, so the predictions are read")
    if guessed:
        what = "tasks with several images, of which the one named 'image' is assumed to be annotated"
        notes.append(f"{what}: {len(guessed)} ({list_names(guessed, 5)})")
    notes += [*note_several(several), *source.notes]
    return Export(images, dict.fromkeys([*configured, *sorted(classes)]), left_out, tuple(notes))


def note_several(names: Sequence[str]) -> tuple[str, ...]:
    """Return a note about the images that were annotated several times; nothing if there are none."""
    what = f"tasks with several annotations: {len(names)} ({list_names(names, 5)})"
    return (f"{what}; the last one of each is read",) if names else ()


def _configuration(source: Source) -> Element | None:
    """Return the project's labeling configuration, if the export contains that file."""
    file = next((file for file, head in source.heads(".xml") if re.match(r"\s*<View\b", head)), None)
    return read_xml(file) if file else None


def _configured_names(configuration: Element | None) -> list[str]:
    """Return the labels of a labeling configuration."""
    labels = configuration.find("Label") if configuration else ()
    return list(dict.fromkeys(label.record["value"].text() for label in labels))


def _configured_keys(configuration: Element | None) -> dict[str, str]:
    """Return the names of the images in a labeling configuration, and their keys in a task's data."""
    tags = [tag.record for tag in configuration.find("Image")] if configuration else ()
    pairs = [(tag.get("name"), tag.get("value")) for tag in tags]
    return {name.value: value.value.removeprefix("$") for name, value in pairs if name and value}


def read_tasks(record: Record) -> list[Record]:
    """Return the tasks in a file; none if it contains anything else."""
    if not isinstance(record.value, list):
        return []
    return [task for task in record.items() if isinstance(task.value, dict) and "data" in task.value]


def image_name(task: Record) -> str:
    """Return the path of a task's image, or of the first one, without the server's folder of uploaded files.

    Raises:
        InputError: the task has no image.
    """
    return next(iter(image_paths(task).values()))


def image_paths(task: Record) -> dict[str, str]:
    """Return the paths with the suffix of an image in a task's data, by their keys; "image" is the first.

    Raises:
        InputError: the task has no image.
    """
    texts = {key: value.value for key, value in task["data"].entries() if isinstance(value.value, str)}
    paths: dict[str, str] = {}
    for key in sorted(texts, key=lambda key: key != "image"):
        try:
            path = _path_of(texts[key])
        except ValueError:  # not a URL, such as http://[
            continue
        if path.lower().endswith(SUFFIXES):
            paths[key] = path.lstrip("/")
    if not paths:
        raise task["data"].error("names no image")
    return paths


def _path_of(url: str) -> str:
    """Return the path in a URL, or in one of Label Studio's paths of uploaded or local files.

    Raises:
        ValueError: the URL is invalid.
    """
    is_web = url.lower().startswith(("http://", "https://"))
    parts = urlsplit(url if is_web else url.replace("#", "%23"))  # elsewhere, # is a part of a name
    path = _UPLOADS.sub("", unquote(parts.path).replace("\\", "/"))
    return next(iter(parse_qs(parts.query).get("d", [])), path).replace("\\", "/")  # /data/local-files/?d=PATH


def find_task_image(source: Source, name: str, task: Record, split: str | None) -> Path | None:
    """Find an image of a task by its path, with or without the prefix of uploaded files."""
    path = PurePosixPath(name)
    original = str(path.with_name(_UPLOADED.sub("", path.name)))
    found = source.find_image(name, task.file.parent, str(task), split)
    return found or source.find_image(original, task.file.parent, str(task), split)


def _by_key(
    tasks: Sequence[Record], drawn: Sequence[Sequence[_Drawn]], configured: Mapping[str, str]
) -> tuple[list[dict[str, list[_Drawn]]], list[str]]:
    """Return the shapes of each task by the key of their image in the task's data, and the images that are a guess.

    Raises:
        InputError: a task has several images, and nothing says to which of them a shape belongs.
    """
    targets = {one.target for found in drawn for one in found}
    keys = {configured.get(target, target) for target in targets}
    by_key: list[dict[str, list[_Drawn]]] = []
    guessed: dict[str, None] = {}
    for task, found in zip(tasks, drawn, strict=True):
        paths, own = image_paths(task), defaultdict(list)
        for one in found:
            key = configured.get(one.target, one.target)
            alone = next(iter(paths)) if len(set(paths.values())) == 1 else None
            named = task["data"].get(key)
            if key in paths:
                pass
            elif named is not None and (isinstance(named.value, list) or alone is None or alone in keys):
                raise named.error("names no image, but has shapes")
            elif alone is not None:  # `named` may be the address of this image
                key = alone
            elif "image" in paths and len(targets) == 1:
                key, guessed[paths["image"]] = "image", None
            else:
                what = f"has several images ({', '.join(paths)}), and nothing says which of them {one.target!r} is"
                remedy = "put the labeling configuration (.xml) next to this file, and specify their folder"
                raise task.error(f"{what} (to_name of its results)", remedy)
            own[key].append(one)
        by_key.append(own)
    return by_key, list(guessed)


def _images(
    source: Source, task: Record, drawn: Mapping[str, Sequence[_Drawn]], used: set[str]
) -> Iterator[AnnotatedImage]:
    """Yield the images of a task: those with keys that have shapes in any task, or else the first one."""
    paths, split = image_paths(task), source.split_of(task.file)
    keys = [key for key in paths if key in used] or [*paths][:1]
    for path in dict.fromkeys(paths[key] for key in keys):
        own = [one for key in keys if paths[key] == path for one in drawn.get(key, ())]
        file = find_task_image(source, path, task, split)
        size = own[0].size if own else None
        yield AnnotatedImage(path, str(task), file, [one.shape for one in own], size, split)


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


def _target(result: Record) -> str:
    """Return the key of a result's image, which only early versions write, or else its name; "" if there is none."""
    key, name = result.get("source"), result.get("to_name")
    if key and str(key.value).startswith("$"):
        return str(key.value)[1:]
    return str(name.value) if name else ""


def _shapes(annotation: Record, left_out: dict[str, list[str]]) -> list[_Drawn]:
    """Return the shapes of an annotation."""
    by_id: dict[str | int, list[str]] = defaultdict(list)  # a region and its labels may be two results with one id
    for result in annotation["result"].items():
        if (key := result.get("id")) is not None:
            by_id[key.key()] += _labels(result)
    shapes: list[_Drawn] = []
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
            shapes.append(_Drawn(_target(result), Shape(labels[0], (region,), str(result)), size))
        else:
            left_out["polygons of fewer than 3 points"].append(str(result))
    return shapes


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
