"""Label Studio's PNG export: one mask per brush region, and the JSON export of the project, which names the images.

The masks are named task-ID-annotation-ID-by-USER-TAG-LABEL-NUMBER.png. Of several annotations of a task, the one with
the highest id is read.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from danet.data.annotations.label_studio import find_task_image, image_name, image_paths, note_several, read_tasks
from danet.data.annotations.mask_files import masks_size
from danet.data.annotations.records import Record, read_json
from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Export, Shape
from danet.data.annotations.source import Source
from danet.data.images.binary_masks import read_binary_mask
from danet.errors import InputError, list_names

_NAME = re.compile(r"task-(\d+)-annotation-(\d+)-by-[^-]*-[^-]+-(.+)-(\d+)\.png$")


class _Mask(NamedTuple):
    annotation: int
    number: int
    label: str
    file: Path


def recognize(source: Source) -> bool:
    """Return whether an export contains Label Studio's PNG files."""
    return source.path.is_dir() and any(map(is_mask, source.all_files))


def is_mask(file: Path) -> bool:
    """Return whether a file has the name of one of Label Studio's masks, so that it is no image."""
    return _NAME.match(file.name) is not None


def read(source: Source) -> Export:
    """Read the masks of all tasks that the JSON export contains.

    Raises:
        InputError: no JSON export, or it contains none of a mask's tasks; masks of an image differ in size.
    """
    masks: dict[int, list[_Mask]] = defaultdict(list)
    for file in source.all_files:
        if found := _NAME.match(file.name):
            masks[int(found[1])].append(_Mask(int(found[2]), int(found[4]), found[3], file))
    tasks = {key: task for task in _tasks(source) if isinstance(key := task.value.get("id"), int)}
    if not masks:
        raise InputError(source.folder, "contains no masks of Label Studio (task-ID-...png)", "export as PNG again")
    if not tasks:
        what = "Label Studio's PNG export does not name the images"
        raise InputError(
            next(iter(masks.values()))[0].file,
            what,
            "export the project as JSON too, and put that file next to the masks",
        )
    if missing := [key for key in masks if key not in tasks]:
        what = f"no task of the JSON export has the id {missing[0]}"
        raise InputError(masks[missing[0]][0].file, what, "export the whole project as JSON again")
    images = [_image(source, task, masks[key]) for key, task in tasks.items()]
    names = sorted({mask.label for found in masks.values() for mask in found})
    several = [image_name(tasks[key]) for key, own in masks.items() if len({mask.annotation for mask in own}) > 1]
    notes = ["the order of the classes is alphabetical", *note_several(several), *source.notes]
    if guessed := [image_name(tasks[key]) for key in masks if len(set(image_paths(tasks[key]).values())) > 1]:
        what = "tasks with several images, of which the first is assumed to be annotated"
        notes.append(f"{what}: {len(guessed)} ({list_names(guessed, 5)})")
    return Export(images, dict.fromkeys(names), notes=tuple(notes))


def _tasks(source: Source) -> Iterator[Record]:
    for file in source.all_files:
        if file.suffix.lower() == ".json":
            yield from read_tasks(read_json(file))


def _image(source: Source, task: Record, masks: Sequence[_Mask]) -> AnnotatedImage:
    name = image_name(task)
    last = max((mask.annotation for mask in masks), default=0)
    chosen = tuple(sorted(mask for mask in masks if mask.annotation == last))
    size = masks_size([mask.file for mask in chosen])
    file = find_task_image(source, name, task, None)
    place = str(chosen[0].file if chosen and file else task)
    return AnnotatedImage(name, place, file, _MaskShapes(chosen), size)


@dataclass(frozen=True)
class _MaskShapes:
    """The shapes of an image, each a mask file, which is read anew for each iteration."""

    masks: Sequence[_Mask]

    def __iter__(self) -> Iterator[Shape]:
        for mask in self.masks:
            yield Shape(mask.label, (Bitmap(read_binary_mask(mask.file)),), str(mask.file))
