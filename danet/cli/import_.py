"""The command danet import."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from danet.cli.output import progress
from danet.cli.parsing import parse, with_flags
from danet.errors import printable
from danet.text import shell_path


@dataclass(frozen=True)
class Import:
    """Read the export of an annotation tool, draw masks, and write a folder to train on: images, masks, dataset.yaml.

    Formats: COCO, LabelMe, CVAT (XML and masks), Label Studio (JSON and PNG), Supervisely, VGG Image Annotator, YOLO
    polygons, run lengths in CSV, and one mask file per class or object. Nothing in SOURCE is changed.

    Example: danet import my_export my_images
    """

    source: tyro.conf.Positional[Path]
    """the unpacked folder of the export, or its annotation file"""
    destination: tyro.conf.Positional[Path]
    """the folder to write, which must be new or empty"""
    images: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """folder of the images, if they are not in SOURCE"""
    format: str | None = None
    """coco, labelme, cvat, cvat-masks, label-studio, label-studio-png, supervisely, via, yolo, rle-csv or masks;
    default: recognized"""
    order: Literal["file", "area"] = "file"
    """which shape is on top where several overlap: the last one in the file, or the smallest one"""
    unlabeled: Literal["background", "ignore"] = "background"
    """what pixels without a shape are"""
    line_width: float | None = None
    """draw lines with this width, in pixels; default: lines are left out"""
    exif: Literal["apply", "ignore"] | None = None
    """whether the annotations refer to the images with their EXIF orientation; default: as the sizes in SOURCE tell"""
    class_attribute: str | None = None
    """name of the attribute that holds the class (VGG Image Annotator)"""
    run_order: Literal["columns", "rows"] | None = None
    """how the pixels of run lengths in CSV are counted; default: inferred from the shapes, or columns if all images are
    square"""
    skip_empty: bool = False
    """leave out images without shapes"""
    skip_missing: bool = False
    """leave out images that are not found"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Import, args, "import")
    from danet.data.custom.import_annotations import ImportOptions, import_annotations

    given = {name: value for name, value in vars(options).items() if name not in ("source", "destination")}
    with progress("importing") as advance:
        imported = import_annotations(options.source, options.destination, ImportOptions(**given), advance)
    counts = ", ".join(f"{count} {split}" for split, count in imported.images.items())
    total = sum(imported.images.values())
    what = (
        f"{total} image{'s' * (total != 1)}{f' ({counts})' if len(imported.images) > 1 else ''} from {imported.title}"
    )
    print(printable(f"wrote {options.destination}: {what}"))
    print(printable(f"classes: {', '.join(f'{i} {name}' for i, name in enumerate(imported.classes.names))}"))
    for note in imported.notes:
        print(printable(f"review: {with_flags(note)}"))
    print(printable(f"next: danet check {shell_path(options.destination)}"))
    return 0
