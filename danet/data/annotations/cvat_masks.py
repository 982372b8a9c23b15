"""CVAT's Segmentation mask 1.1: labelmap.txt, ImageSets/Segmentation/*.txt, and SegmentationClass/*.png.

The colors of the masks are exactly those of labelmap.txt. Images are in JPEGImages if they were exported. An export may
contain several tasks, each a folder with these files.
Format: https://docs.cvat.ai/docs/dataset_management/formats/format-smask
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from danet.data.annotations.records import read_text
from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Shape
from danet.data.annotations.source import Source
from danet.data.classes import Color
from danet.data.images.color_masks import read_colored_mask
from danet.data.images.read import image_size
from danet.errors import InputError, list_names

_MASKS, _LABELS = "SegmentationClass", "labelmap.txt"
_NAMED = 5  # tasks or classes that a note names


def recognize(source: Source) -> bool:
    """Return whether an export contains labelmap.txt and SegmentationClass."""
    names = {file.name for file in source.all_files}
    return source.path.is_dir() and _LABELS in names and any(_MASKS in file.parent.parts for file in source.all_files)


def read(source: Source) -> Export:
    """Read the masks that the lists name, or all masks if there are no lists. The name of a list is the split.

    Classes of several tasks are joined by their names. If a list names no split, the folder of the task does.

    Raises:
        InputError: labelmap.txt is invalid or missing, a list names a mask that does not exist, or a mask has other
            colors.
    """
    tasks = _open_tasks(source)
    if not tasks:
        raise InputError(source.folder, f"contains no {_LABELS}", "export again, as Segmentation mask 1.1")
    _check_masks(source, tasks)
    folders = [task.root / name for task in tasks for name in (_MASKS, "SegmentationObject")]
    empty = [task for task in tasks if not task.masks and not task.lists]
    notes = [f"{_LABELS} without masks, left out: {source.below(task.root / _LABELS).as_posix()}" for task in empty]
    tasks = [task for task in tasks if task not in empty]
    classes, join_notes = _join_classes(source, tasks)
    notes += join_notes
    images: list[AnnotatedImage] = []
    for task in tasks:
        chosen = _choose(source, task)
        start = f"{source.below(task.root).as_posix()}/" if len(tasks) > 1 else ""
        notes += [f"masks that no list names, left out: {start}{name}" for name in task.masks if name not in chosen]
        for name, split in chosen.items():
            mask = task.masks[name]
            file = source.find_image(name, task.root / "JPEGImages", str(mask), split, not_in=folders)
            size = image_size(mask, upright=False)
            images.append(AnnotatedImage(name, str(mask), file, _MaskShapes(mask, task.classes), size, split))
    return Export(images, classes, notes=(*notes, *source.notes))


class _Task(NamedTuple):
    """A task: its folder, the classes in its labelmap.txt, its masks by their names in the lists, and the lists."""

    root: Path
    classes: dict[str, Color | None]
    masks: dict[str, Path]
    lists: list[Path]


def _open_tasks(source: Source) -> list[_Task]:
    """Return the tasks, with all files grouped in one pass: an export may have hundreds of tasks."""
    masks: dict[Path, dict[str, Path]] = defaultdict(dict)
    texts: dict[Path, list[Path]] = defaultdict(list)
    for file in source.all_files:
        if file.suffix.lower() == ".txt":
            texts[file.parent].append(file)
        elif file.suffix.lower() == ".png":
            for folder in file.parents:
                if folder.name == _MASKS:
                    masks[folder.parent][file.relative_to(folder).with_suffix("").as_posix()] = file
    return [
        _Task(file.parent, _read_labels(file), masks[file.parent], texts[file.parent / "ImageSets" / "Segmentation"])
        for file in source.all_files
        if file.name == _LABELS
    ]


def _check_masks(source: Source, tasks: Sequence[_Task]) -> None:
    """Check that each mask is of a task."""
    known = {file for task in tasks for file in task.masks.values()}
    for file in source.all_files:
        folders = source.below(file).parts[:-1]
        if _MASKS in folders and file.suffix.lower() == ".png" and file not in known:
            root = source.folder.joinpath(*folders[: folders.index(_MASKS)])
            what = f"{root} contains no {_LABELS}, which defines the colors"
            raise InputError(file, what, f"add that file of the export, or move {_MASKS} elsewhere")


def _join_classes(source: Source, tasks: Sequence[_Task]) -> tuple[dict[str, Color | None], list[str]]:
    """Return the classes of all tasks with their colors in the first task that has them, and notes."""
    classes: dict[str, Color | None] = {}
    for task in tasks:
        classes = task.classes | classes
    classes = {name: classes[name] for task in tasks for name in task.classes}  # in the order of the tasks
    if len(tasks) < 2:
        return classes, []
    names = list_names([source.below(task.root).as_posix() for task in tasks], _NAMED)
    notes = [f"tasks, whose classes are joined by name: {len(tasks)} ({names})"]
    other = [name for name in classes if any(task.classes.get(name, classes[name]) != classes[name] for task in tasks)]
    if other:
        notes.append(f"classes with several colors, each has that of its first task: {list_names(other, _NAMED)}")
    return classes, notes


def _choose(source: Source, task: _Task) -> dict[str, str | None]:
    """Return the names of the masks to read, and their splits."""
    named = {name: file for file in task.lists for name in _read_names(file)}
    if missing := [name for name in named if name not in task.masks]:
        what = f"names {missing[0]!r}, but {task.root / _MASKS} contains no such mask"
        raise InputError(named[missing[0]], what, "export again, or remove the name from the list")
    splits = {name: source.split_of(file.stem, task.root) for name, file in named.items()}
    return splits or dict.fromkeys(task.masks, source.split_of(task.root))


@dataclass(frozen=True)
class _MaskShapes:
    """The shapes of a mask: one for each class in it. The mask is read anew for each iteration."""

    file: Path
    classes: dict[str, Color | None]

    def __iter__(self) -> Iterator[Shape]:
        ids = {color: i for i, color in enumerate(self.classes.values()) if color is not None}
        labels = read_colored_mask(self.file, ids)
        for i, name in enumerate(self.classes):
            if (pixels := labels == i).any():
                yield Shape(name, (Bitmap(pixels),), str(self.file))


def _read_labels(file: Path) -> dict[str, Color | None]:
    """Read lines NAME:R,G,B:PARTS:ACTIONS."""
    classes: dict[str, Color | None] = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, rest = line.partition(":")
        channels = rest.split(":")[0].split(",")
        if len(channels) != 3 or not all(part.strip().isdecimal() and int(part) < 256 for part in channels):
            raise InputError(file, f"line {number}: must be NAME:R,G,B::, got {line[:40]!r}", "export again")
        color = int(channels[0]), int(channels[1]), int(channels[2])
        if color in classes.values():
            raise InputError(file, f"line {number}: another class has the color {list(color)}", "change one of them")
        classes[name.strip()] = color
    if not classes:
        raise InputError(file, "names no classes", "export again")
    return classes


def _read_names(file: Path) -> list[str]:
    return [line.strip() for line in read_text(file).splitlines() if line.strip()]
