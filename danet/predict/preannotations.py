"""Write predictions as annotations for COCO tools, Label Studio or CVAT. Command: danet predict IMAGES --format FORMAT.

Without a tolerance, each class of an image is one mask, exactly as predicted. With a tolerance, each connected region
is a polygon. The formats have no holes, so polygons follow from the largest to the smallest, and what is inside a hole
lies on top. A class named background is left without annotations, except inside the polygons of other classes.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from danet.data.annotations import coco, cvat, label_studio
from danet.data.annotations.contours import simplify, trace_regions
from danet.data.annotations.shapes import AnnotatedImage, Bitmap, Polygon, Shape
from danet.data.classes import IGNORE, Classes, is_background
from danet.errors import InputError
from danet.files import atomic_path, check_new, make_folder, write_atomically, write_error
from danet.predict.folder import Saved, Throughput, segment_jobs
from danet.predict.job import Job
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import Segmentation

FormatName = Literal["coco", "label-studio", "cvat"]
_ENCODERS: dict[FormatName, Callable[[Iterable[AnnotatedImage], Classes], Iterator[str]]] = {
    "coco": coco.encode,
    "label-studio": label_studio.encode,
    "cvat": cvat.encode,
}
_NAMES: dict[FormatName, tuple[str, ...]] = {
    "coco": ("predictions_coco.json",),
    "label-studio": ("predictions_label_studio.json", "label_studio_config.xml"),
    "cvat": ("predictions_cvat.xml",),
}


class AnnotationFile(NamedTuple):
    """The file of annotations to write.

    Args:
        out: the folder.
        format: the format.
        tolerance: how far polygons may deviate from the predicted regions, in pixels; None: masks.
        overwrite: replace files that exist.
    """

    out: Path
    format: FormatName
    tolerance: float | None = None
    overwrite: bool = False

    @property
    def paths(self) -> list[Path]:
        """The files: the annotations, and for Label Studio also the labeling configuration."""
        return [self.out / name for name in _NAMES[self.format]]


def check_target(target: AnnotationFile, jobs: Iterable[Job]) -> None:
    """Check everything before the work begins.

    Raises:
        InputError: the tolerance is negative; a file is no image of at most 64 million pixels, or its name cannot be
            written; an output exists.
    """
    if target.tolerance is not None and not 0 <= target.tolerance <= 1000:
        raise InputError("tolerance", f"must be from 0 to 1000 pixels, got {target.tolerance:g}", "for example, use 1")
    for job in jobs:
        if job.kind in ("video", "large"):
            kind = "is a video" if job.kind == "video" else "has more than 64 million pixels"
            what = f"{kind}, and annotations are for smaller images"
            raise InputError(job.file, what, "leave it out, or omit `format`")
        if target.format == "cvat":
            cvat.check_name(_name(job, target), job.file)
    check_new(*target.paths, overwrite=target.overwrite)


def segment_as_annotations(
    predictor: Predictor,
    jobs: Iterable[Job],
    target: AnnotationFile,
    protocol: Protocol = WHOLE,
    size: int | None = None,
    throughput: Throughput | None = None,
) -> Iterator[Saved | InputError]:
    """Segment images, write all predictions as one file of annotations, and yield a result or error for each image.

    The file is written completely, when the last image has been segmented, or not at all. A file that another process
    wrote meanwhile is replaced only if `target.overwrite` says so.

    Args:
        predictor: the network.
        jobs: images of kind "image" or "geo".
        target: the file to write.
        protocol: see `Predictor`.
        size: see `Predictor`.
        throughput: counts and times the images.

    Raises:
        InputError: the file cannot be written.
    """

    def write(job: Job, segmentation: Segmentation) -> tuple[AnnotatedImage, Saved]:
        return annotate(job.file, _name(job, target), segmentation, target.tolerance), Saved(
            target.paths, segmentation.summary()
        )

    results: deque[Saved | InputError] = deque()
    written = 0

    def images() -> Iterator[AnnotatedImage]:
        nonlocal written
        for result in segment_jobs(predictor, jobs, write, protocol, size, throughput):
            if isinstance(result, InputError):
                results.append(result)
                continue
            results.append(result[1])
            written += 1
            yield result[0]

    make_folder(target.out)
    path, *others = target.paths
    try:
        with atomic_path(path, target.overwrite) as temporary, open(temporary, "w", encoding="utf-8") as stream:
            for text in _ENCODERS[target.format](images(), predictor.classes):
                stream.write(text)
                while results:
                    yield results.popleft()
            yield from results
            if not written:
                what = "no image could be segmented, so nothing is written"
                raise InputError(target.out, what, "see the errors above")
    except OSError as error:
        raise write_error(path, error) from error
    for other in others:
        config = label_studio.labeling_config(predictor.classes, target.tolerance is not None)
        write_atomically(other, config.encode(), target.overwrite)


def _name(job: Job, target: AnnotationFile) -> str:
    """Return the name of an image in the file of annotations: its path below the folder of the results."""
    return (job.folder / job.file.name).relative_to(target.out).as_posix()


def annotate(file: Path, name: str, segmentation: Segmentation, tolerance: float | None) -> AnnotatedImage:
    """Return a prediction as shapes, see the top of this file.

    Args:
        file: the image.
        name: its name in the file of annotations.
        segmentation: its prediction.
        tolerance: of polygons, in pixels; None: masks.
    """
    labels, names = segmentation.labels, segmentation.classes.names
    known = (int(i) for i in np.unique(labels) if i != IGNORE)  # 255: no data
    scores = {i: float(segmentation.confidence[labels == i].mean()) for i in known}
    shapes = []
    if tolerance is None:
        for i, score in scores.items():
            if not is_background(names[i]):
                shapes.append(Shape(names[i], (Bitmap(labels == i),), str(file), score))
    else:
        height, width = labels.shape
        for i, ring in trace_regions(labels):
            if i == IGNORE:
                continue
            outside = bool((ring == 0).any() or (ring == (width, height)).any())
            simple = simplify(ring, tolerance)
            if len(simple) >= 3 and not (is_background(names[i]) and outside):
                shapes.append(Shape(names[i], (Polygon((simple,)),), str(file), scores[i]))
    return AnnotatedImage(name, str(file), file, shapes, labels.shape)
