"""YOLO polygons (Ultralytics, Roboflow, CVAT): data.yaml, and a text file per image.

A line is the class and the points of a polygon, as fractions of the image's width and height: CLASS X Y X Y X Y ...
Lines with a box (CLASS X Y WIDTH HEIGHT) are left out. The labels of images/a.jpg are labels/a.txt or images/a.txt.
train, val and test of data.yaml are folders of images, or text files with the path of an image per line.
Format: https://docs.ultralytics.com/datasets/segment/
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from danet.data.annotations.records import Record, read_text
from danet.data.annotations.shapes import AnnotatedImage, Export, Polygon, Shape, note_shared_names
from danet.data.annotations.source import Source
from danet.data.annotations.yolo_splits import divide
from danet.data.images.pillow import regular_file
from danet.errors import InputError
from danet.text import decode_text
from danet.yaml_files import read_yaml

_NAME_LISTS = ("classes.txt", "obj.names")
_LINE = r"(?m)^\d+( +-?[\d.]+(e-?\d+)?){4,} *\r?$"
_HEAD = 1 << 16  # bytes that show whether a text file contains labels


def recognize(source: Source) -> bool:
    """Return whether an export contains YOLO's settings, or class names and labels."""
    if source.path.is_file():
        return _settings_file(source) is not None
    names = _settings_file(source) is not None or any(file.name in _NAME_LISTS for file in _labels(source))
    return names and source.has_head(".txt", _LINE)


def read(source: Source) -> Export:
    """Read the labels of all images. data.yaml, or else the names of folders, tell the split.

    Raises:
        InputError: data.yaml or a line is invalid; a line of a list may name several images; labels belong to no image.
    """
    settings = _settings(source)
    names = _class_names(source, settings)
    texts = [file for file in _labels(source) if file.suffix.lower() == ".txt" and file.name not in _NAME_LISTS]
    labels = {file.with_suffix(""): file for file in texts}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for stem, file in labels.items():
        by_stem[stem.name].append(file)
    files = _images(source, labels)
    splits, notes = divide(source, settings, files, _labels(source))
    left_out: dict[str, list[str]] = defaultdict(list)
    images, used = [], set()
    for file in files:
        beside = [labels[path] for path in _label_paths(file.with_suffix("")) if path in labels]
        if not beside and len(by_stem[file.stem]) == 1 and source.images and file.is_relative_to(source.images):
            beside = by_stem[file.stem]
        used.update(beside[:1])
        shapes = _shapes(beside[0], names, left_out) if beside else []
        place = str(beside[0] if beside else file)
        images.append(AnnotatedImage(file.name, place, file, shapes, None, splits[file], relative=True))
    if orphans := [file for file in texts if file not in used and _has_labels(source, file)]:
        what = f"has labels, but there is no image {orphans[0].stem} (and {len(orphans) - 1} other such files)"
        remedy = "add the images, specify their folder as `images`, or move these files away"
        raise InputError(orphans[0], what, remedy)
    return Export(images, dict.fromkeys(names.values()), left_out, (*note_shared_names(names), *notes))


def _labels(source: Source) -> list[Path]:
    """Return all text files, also if the export is specified by its data.yaml."""
    return [file for file in source.all_files if file.suffix.lower() in (".txt", ".names")]


def _images(source: Source, labels: Collection[Path]) -> list[Path]:
    """Return the images below folders called images, below `images`, and with labels next to them; or else all."""
    if not any("images" in source.below(file).parts for file in source.all_images):
        return list(source.all_images)
    return [
        file
        for file in source.all_images
        if "images" in source.below(file).parts
        or (source.images is not None and file.is_relative_to(source.images))
        or file.with_suffix("") in labels
    ]


def _has_labels(source: Source, file: Path) -> bool:
    """Return whether a text file contains labels, and not prose or a list of names."""
    head = ""
    with suppress(InputError, OSError), regular_file(file) as opened:
        head = decode_text(opened.read(_HEAD), "replace")
    lines = [line for line in head.splitlines() if line.strip()]
    if "labels" in source.below(file).parts:  # an empty file is an image without objects
        return not lines or re.match(r"\s*\d+\s+\S", lines[0]) is not None
    return 2 * sum(re.match(_LINE, line) is not None for line in lines) > len(lines)  # a README may show a line


def _label_paths(stem: Path) -> Iterator[Path]:
    """Yield where the labels of an image may be, without suffix: next to it, or in `labels` instead of `images`."""
    yield stem
    for i in reversed(range(len(stem.parts))):
        if stem.parts[i] == "images":
            yield Path(*stem.parts[:i], "labels", *stem.parts[i + 1 :])


def _settings_file(source: Source) -> Path | None:
    heads = [*source.heads(".yaml"), *source.heads(".yml")]
    return next((file for file, head in heads if re.search(r"(?m)^names\s*:", head)), None)


def _settings(source: Source) -> Record | None:
    file = _settings_file(source)
    if file is None:
        return None
    try:
        settings = Record(file, "", read_yaml(file))
    except (OSError, ValueError) as error:
        raise InputError(file, str(error), "correct it") from error
    if settings.get("kpt_shape"):
        raise settings["kpt_shape"].error("these are keypoints", "use a dataset of polygons (Ultralytics: segment)")
    return settings


def _class_names(source: Source, settings: Record | None) -> dict[int, str]:
    if settings is None:
        lists = [file for file in _labels(source) if file.name in _NAME_LISTS]
        lines = read_text(lists[0]).splitlines() if lists else []
        return dict(enumerate(line.strip() for line in lines if line.strip()))
    names = settings["names"]
    if isinstance(names.value, list):
        return {i: name.text() for i, name in enumerate(names.items())}
    return {Record(settings.file, f"names: {key}", key).whole(): name.text() for key, name in names.entries()}


def _shapes(file: Path, names: dict[int, str], left_out: dict[str, list[str]]) -> list[Shape]:
    shapes = []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        record = Record(file, f"line {number}", line.split())
        if not line.strip():
            continue
        key = Record(file, f"line {number}, class", record.value[0]).whole()
        if key not in names:
            raise record.error(f"class {key} has no name in data.yaml or classes.txt", "add its name")
        points = Record(file, record.place, record.value[1:]).flat_points()
        if len(points) < 3:
            left_out["boxes without a polygon"].append(str(record))
        else:
            shapes.append(Shape(names[key], (Polygon((points,)),), str(record)))
    return shapes
