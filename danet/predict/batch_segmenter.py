"""Read, segment and write the images of a batch, one after another, in a process or a worker."""

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from danet.errors import InputError
from danet.files import FULL, remove_incomplete
from danet.predict import large_image, overlay, statistics
from danet.predict.attempts import Attempts
from danet.predict.batch import Batch, Done
from danet.predict.batched import Batched, group_images
from danet.predict.folder import missing_of, pipelined, read_job
from danet.predict.georeferenced import save_labels
from danet.predict.inputs import Found, jobs_of, result_name
from danet.predict.job import Job
from danet.predict.manifest import Entry
from danet.predict.outputs import OUTPUTS
from danet.predict.predictor import Predictor
from danet.predict.protocols import find_protocol
from danet.predict.segmentation import Segmentation
from danet.predict.statistics import Row, error_row
from danet.predict.storage import download, store_address

_NO_COORDINATES = "the image has coordinates, but its labels do not: rasterio is not installed"


class _Image(NamedTuple):
    """An image that has been read.

    Args:
        entry: the image.
        jobs: one, or one for each page; their file is on the local disk.
        pixels: H,W,N; None if the image is large or a stack.
        missing: see `folder.missing_of`.
        note: see `statistics.row`.
    """

    entry: Entry
    jobs: list[Job]
    pixels: np.ndarray | None
    missing: np.ndarray | None
    note: str | None


class _Segmented(NamedTuple):
    """What the network returned for an image: a segmentation that is still to be encoded, or rows and files."""

    image: _Image
    milliseconds: float
    segmentation: Segmentation | None
    rows: list[Row]
    files: list[tuple[str, bytes]]


class Segmenter:
    """Segments images of a batch and writes their labels.

    Args:
        batch: the batch.
        predictor: its network; None: load it.
        attempts: notes what is in progress, in case this process is killed; None: its supervisor knows.

    Raises:
        InputError: the weights are not those of the batch.
    """

    def __init__(self, batch: Batch, predictor: Predictor | None = None, attempts: Attempts | None = None):
        self.batch, self.settings, self._attempts = batch, batch.settings, attempts
        self.predictor = predictor or self.settings.load()
        self._protocol, self._cleaned = find_protocol(self.settings.protocol), set[Path]()
        self._batched = Batched(self.predictor, self._protocol, self.settings.size)
        if self.predictor.fingerprint != batch.about["weights"]:
            raise InputError("weights", "are not those of the batch on this machine", "copy the same file to all")

    def segment(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[Row]]]:
        """Yield each image with its rows, in order, when its labels exist. Threads read and write meanwhile.

        Raises:
            InputError: labels cannot be written.
            OSError: an object store cannot be reached; the disk for temporary files is full.
        """
        entries = list(entries)
        with tempfile.TemporaryDirectory(prefix="danet-") as scratch:
            groups = group_images(self._read_all(entries, Path(scratch)), _size, self._batched.most)
            results = pipelined(entries, lambda _: next(groups, []), self._work, self._write_group)  # [] at the end
            for entry, result in zip(entries, _each(results), strict=True):
                shutil.rmtree(Path(scratch, entry.id), ignore_errors=True)
                yield entry, [error_row(entry, result)] if isinstance(result, InputError) else result

    def alone(self, entry: Entry) -> list[Row]:
        """Segment a single image, and return its rows; see `segment`."""
        ((_, rows),) = self.segment([entry])
        return rows

    def record(self, entries: Iterable[Entry]) -> Iterator[Done]:
        """Segment whole shards, write the rows of each, and yield the outcome of each image.

        Raises:
            InputError: see `segment`; rows cannot be written.
            OSError: see `segment`.
        """
        for shard, group in groupby(self.segment(entries), lambda done: done[0].shard):
            done = list(group)
            self.batch.write_shard(shard, [row for _, own in done for row in own])
            if self._attempts is not None:
                self._attempts.end(shard)
            yield from (Done.of(entry, own) for entry, own in done)

    def _read_all(self, entries: Iterable[Entry], scratch: Path) -> Iterator[_Image | InputError]:
        for entry in entries:
            if self._attempts is not None and entry.shard not in self._attempts.begun:
                self._attempts.begin(entry.shard)
            try:
                yield self._read(entry, scratch)
            except InputError as error:
                yield error

    def _read(self, entry: Entry, scratch: Path) -> _Image:
        folder, found = scratch / entry.id, Found()
        folder.mkdir()
        file = _local_copy(entry, folder)
        jobs = list(jobs_of(file, folder, self.settings.pages, True, False, found))
        single = len(jobs) == 1 and jobs[0].kind != "large"
        pixels = read_job(jobs[0], self.predictor.card.bands) if single else None
        missing = missing_of(jobs[0]) if single else None
        return _Image(entry, jobs, pixels, missing, _NO_COORDINATES if found.without_coordinates else None)

    def _work(self, group: Sequence[_Image | InputError]) -> list[_Segmented | InputError]:
        images = [image for image in group if not isinstance(image, InputError)]
        pixels = [image.pixels for image in images if image.pixels is not None]
        if not pixels:
            return [image if isinstance(image, InputError) else self._one_by_one(image) for image in group]
        start = time.perf_counter()
        results = self._batched.segment([image.entry.path for image in images], pixels)
        milliseconds = 1000 * (time.perf_counter() - start) / len(images)
        return [
            result
            if isinstance(result, InputError)
            else _Segmented(image, milliseconds, result.without_data(image.missing), [], [])
            for image, result in zip(images, results, strict=True)
        ]

    def _one_by_one(self, image: _Image) -> _Segmented | InputError:
        """Segment a large image, or the pages of a stack."""
        rows, files = [], []
        try:
            for job in image.jobs:
                start = time.perf_counter()
                if job.kind == "large":
                    given = job.file, job.folder, True, self._protocol, self.settings.size
                    saved = large_image.segment_file(self.predictor, *given)
                    summary, content = saved.summary, saved.paths[1].read_bytes()
                else:
                    page = image.entry.path, read_job(job, self.predictor.card.bands)
                    segmentation = self.predictor.segment(*page, self._protocol, self.settings.size)
                    summary, content = segmentation.summary(), _encode(segmentation, job)
                files.append((_output_name(image.entry, job), content))
                rows.append(_row(image, job, 1000 * (time.perf_counter() - start), summary))
        except InputError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:  # not the image's fault
                with _named(image.jobs[0].folder):
                    raise error.__cause__ from None
            return error
        return _Segmented(image, 0, None, rows, files)

    def _write_group(self, group: Sequence[_Segmented | InputError]) -> list[list[Row] | InputError]:
        return [done if isinstance(done, InputError) else self._write(done) for done in group]

    def _write(self, done: _Segmented) -> list[Row] | InputError:
        image, rows, files = done.image, done.rows, done.files
        if done.segmentation is not None:
            (job,) = image.jobs
            try:
                files = [(_output_name(image.entry, job), _encode(done.segmentation, job))]
                rows = [_row(image, job, done.milliseconds, done.segmentation.summary())]
            except MemoryError:
                return InputError(image.entry.path, "not enough memory to draw the results", "free some memory")
        if self.settings.labels:
            for name, content in files:
                self._publish(name, content)
        return rows

    def _publish(self, name: str, content: bytes) -> None:
        out = self.settings.out
        if out.local is not None and (folder := (out.local / name).parent) not in self._cleaned:
            remove_incomplete(folder)
            self._cleaned.add(folder)
        out.write(name, content)


def _size(image: _Image | InputError) -> tuple[int, int] | None:
    if isinstance(image, InputError) or image.pixels is None:
        return None
    return image.pixels.shape[0], image.pixels.shape[1]


def _each(groups: Iterable[list[list[Row] | InputError] | InputError]) -> Iterator[list[Row] | InputError]:
    for group in groups:
        if isinstance(group, InputError):  # not of an image: nothing can be written
            raise group
        yield from group


def _local_copy(entry: Entry, folder: Path) -> Path:
    """Return the image's path on the local disk; an image of an object store is downloaded into the folder.

    Raises:
        InputError: there is no such image, or it has changed.
        OSError: the store cannot be reached; the disk is full.
    """
    if store_address(entry.path) is None:
        file = Path(entry.path)
        with suppress(OSError):  # reading it reports the error
            state = file.stat()
            _check_unchanged(entry, (state.st_size, state.st_mtime_ns), (entry.size, entry.modified))
        return file
    content = download(entry.path)
    _check_unchanged(entry, (len(content),), (entry.size,))
    file = folder / f"image{PurePosixPath(entry.path).suffix}"
    with _named(file):
        file.write_bytes(content)
    return file


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Name the temporary file or folder in an error of the block, such as a full disk: Python does not."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def _check_unchanged(entry: Entry, now: tuple[int, ...], listed: tuple[int, ...]) -> None:
    if now != listed:
        what = f"has changed since it was listed ({listed[0]:,} bytes then, {now[0]:,} now)"
        raise InputError(entry.path, what, "segment it in a new batch")


def _output_name(entry: Entry, job: Job) -> str:
    """Return the name of the labels; a page's has the id too, because another file may have the name of a page."""
    page = "" if job.page is None else f"-{entry.id}{job.name.removeprefix(result_name(job.file))}"
    return f"{entry.name}{page}{OUTPUTS[job.kind][1]}"


def _encode(segmentation: Segmentation, job: Job) -> bytes:
    if job.kind == "geo":
        save_labels(segmentation, job)
        return job.paths[1].read_bytes()
    return segmentation.label_png([OUTPUTS[job.kind][1]])


def _row(image: _Image, job: Job, milliseconds: float, summary: Mapping[str, Any]) -> Row:
    page = None if job.page is None else job.page + 1
    no_data = summary.get("no_data")
    note = image.note if no_data is None else f"{overlay.share_text(no_data['share'])} of the pixels have no data"
    return statistics.row(image.entry, milliseconds, page, note, summary)
