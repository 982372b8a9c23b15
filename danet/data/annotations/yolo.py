"""YOLO polygons (Ultralytics, Roboflow, CVAT): data.yaml, and a text file per image.

A line is the class and the points of a polygon, as fractions of the image's width and height: CLASS X Y X Y X Y ...
Lines with a box (CLASS X Y WIDTH HEIGHT) are left out. The labels of images/a.jpg are labels/a.txt or images/a.txt.
Format: https://docs.ultralytics.com/datasets/segment/
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

from danet.data.annotations.records import Record, read_text
from danet.data.annotations.shapes import AnnotatedImage, Export, Polygon, Shape, note_shared_names
from danet.data.annotations.source import Source
from danet.errors import InputError
from danet.files import read_yaml

_NAME_LISTS = ("classes.txt", "obj.names")
_LINE = r"(?m)^\d+( +-?[\d.]+(e-?\d+)?){4,} *\r?$"


def recognize(source: Source) -> bool:
    """Return whether an export contains YOLO's settings, or class names and labels."""
    if source.path.is_file():
        return _settings_file(source) is not None
    names = _settings_file(source) is not None or any(file.name in _NAME_LISTS for file in _labels(source))
    return names and source.has_head(".txt", _LINE)


def read(source: Source) -> Export:
    """Read the labels of all images. data.yaml, or else the names of folders, tell the split.

    Raises:
        InputError: data.yaml or a line is invalid; labels belong to no image.
    """
    settings = _settings(source)
    names, split_of = _class_names(source, settings), _splits(source, settings)
    labels = {file.with_suffix(""): file for file in _labels(source) if file.name not in _NAME_LISTS}
    by_stem: dict[str, list[Path]] = defaultdict(list)
    for stem, file in labels.items():
        by_stem[stem.name].append(file)
    left_out: dict[str, list[str]] = defaultdict(list)
    images, used = [], set()
    for file in [f for f in source.all_images if "images" in f.parts] or source.all_images:
        beside = [labels[path] for path in _label_paths(file.with_suffix("")) if path in labels]
        if not beside and len(by_stem[file.stem]) == 1 and source.images and file.is_relative_to(source.images):
            beside = by_stem[file.stem]
        used.update(beside[:1])
        shapes = _shapes(beside[0], names, left_out) if beside else []
        place = str(beside[0] if beside else file)
        images.append(AnnotatedImage(file.name, place, file, shapes, None, split_of(file), relative=True))
    if orphans := [file for file in labels.values() if file not in used and "labels" in file.parts]:
        what = f"has labels, but there is no image {orphans[0].stem} (and {len(orphans) - 1} other such files)"
        raise InputError(orphans[0], what, "add the images, or specify their folder as `images`")
    return Export(images, dict.fromkeys(names.values()), left_out, note_shared_names(names))


def _labels(source: Source) -> list[Path]:
    return source.files(".txt", ".names") if source.path.is_dir() else list(source.all_files)


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


def _splits(source: Source, settings: Record | None) -> Callable[[Path], str | None]:
    """Return the function that tells the split of an image."""
    folders: dict[Path, str] = {}
    listed: dict[str, str] = {}
    files = set(source.all_files)
    for split in ("train", "val", "test"):
        value = settings.get(split) if settings else None
        if value is None:
            continue
        for entry in value.items() if isinstance(value.value, list) else (value,):
            parts = [part for part in Path(entry.text()).parts if part not in ("..", ".", "/")]
            file = value.file.parent.joinpath(*parts)  # Roboflow writes ../train/images for train/images
            if file in files:
                listed |= {Path(line.strip()).name: split for line in read_text(file).splitlines() if line.strip()}
            folders[file] = split

    def split_of(image: Path) -> str | None:
        inside = next((split for folder, split in folders.items() if image.is_relative_to(folder)), None)
        return listed.get(image.name) or inside or source.split_of(image.parent)

    return split_of


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
