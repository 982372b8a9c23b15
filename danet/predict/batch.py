"""Segment the images of a manifest: labels for each image, and one dataset of statistics. Used by `danet predict`.

The folder of the results belongs to one batch: run.json names its manifest, weights and settings. Results are a
function of these and the image, so a process that starts again, or a second one, writes the same bytes.
"""

import json
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import torch

from danet.data.classes import Classes
from danet.errors import InputError
from danet.files import FULL, check_writable, remove_incomplete
from danet.predict import large_image, overlay, statistics
from danet.predict.folder import pipelined, read_job
from danet.predict.georeferenced import save_labels
from danet.predict.inputs import Found, Job, jobs_of, result_name
from danet.predict.manifest import ALL, Entry, Manifest, Share, decode, encode, list_images
from danet.predict.outputs import OUTPUTS
from danet.predict.predictor import Predictor, load
from danet.predict.protocols import find_protocol
from danet.predict.segmentation import Segmentation
from danet.predict.statistics import Row, error_row
from danet.predict.storage import Folder, download, require_pyarrow, store_address

RUN, MANIFEST = "run.json", "manifest.parquet"

_NO_COORDINATES = "the image has coordinates, but its labels do not: rasterio is not installed"


@dataclass(frozen=True)
class Settings:
    """How the images are segmented. Only `device` does not belong to the identity of a batch.

    Args:
        out: the folder of the results.
        weights: a file; None: the bundled weights.
        protocol: the name of the protocol.
        size: see `Predictor`.
        dtype: "float32" or "bfloat16".
        pages: whether each page of a stack is segmented; otherwise, stacks are errors.
        labels: whether labels are written; otherwise, only the statistics.
        device: "cpu" or "cuda"; None: a GPU if there is one.
    """

    out: Folder
    weights: Path | None = None
    protocol: str = "whole"
    size: int | None = None
    dtype: str = "float32"
    pages: bool = False
    labels: bool = True
    device: str | None = None

    def load(self) -> Predictor:
        """Load the network."""
        return load(self.weights, self.device, getattr(torch, self.dtype))


@dataclass(frozen=True)
class Batch:
    """A batch, or a share of one, with what identifies it.

    Args:
        settings: how the images are segmented.
        about: the content of run.json.
        classes: the classes that the network predicts.
        manifest: the images of the share.
    """

    settings: Settings
    about: dict[str, str | int | bool | None]
    classes: Classes
    manifest: Manifest

    @property
    def dataset(self) -> str:
        """The path or address of the statistics."""
        return self.settings.out.address(statistics.DATASET)

    def missing(self) -> list[Entry]:
        """Return the images of the shards that have no rows yet.

        Raises:
            OSError: the folder of the results cannot be read.
        """
        done = statistics.written_shards(self.settings.out)
        return [entry for entry in self.manifest.entries if entry.shard not in done]

    def forget_failed(self) -> None:
        """Delete the rows of the shards with an image that could not be segmented.

        Raises:
            OSError: they cannot be read or deleted.
        """
        own = {entry.shard for entry in self.manifest.entries}
        statistics.forget_failed(self.settings.out, sorted(own & statistics.written_shards(self.settings.out)))

    def write_shard(self, shard: int, rows: Sequence[Row]) -> None:
        """Write the rows of a shard; see `statistics.write_shard`."""
        statistics.write_shard(self.settings.out, shard, rows, self.classes, self.about)


class Done(NamedTuple):
    """The outcome of an image: its path, the number of its rows, and its error."""

    path: str
    rows: int
    error: str | None

    @classmethod
    def of(cls, entry: Entry, rows: Sequence[Row]) -> "Done":
        """Return the outcome of an image with these rows."""
        return cls(entry.path, len(rows), rows[0].get("error"))


def open_batch(
    inputs: Sequence[Path],
    settings: Settings,
    predictor: Predictor,
    manifest: Path | None = None,
    share: Share = ALL,
    recursive: bool = False,
) -> tuple[Batch, Found | None]:
    """Read the manifest of a batch, or write it first, and claim the folder of its results.

    Args:
        inputs: see `list_images`; may be empty if the manifest exists.
        settings: how the images are segmented.
        predictor: the network.
        manifest: the file; None: manifest.parquet in the folder of the results.
        share: the part of the batch to return.
        recursive: see `list_images`.

    Returns:
        The batch; and what was left out, if the images were listed now.

    Raises:
        InputError: no images; an invalid manifest; the folder has other results, or cannot be written to.
        OSError: an object store cannot be reached.
    """
    out = settings.out
    require_pyarrow("manifest")
    if settings.size is not None:
        predictor.with_size(settings.size, find_protocol(settings.protocol))  # otherwise an error of each image
    if out.local is not None:
        check_writable(out.local)
        remove_incomplete(out.local)
        remove_incomplete(out.local / statistics.DATASET)
    names = out.names()
    place, name = _place(manifest, out)
    found = None
    if not place.exists(name):
        if not inputs:
            what = "no images given, and the manifest does not exist" if manifest else "no images given"
            raise InputError("images", what, "specify images or folders")
        entries, found = list_images(inputs, out, predictor.card.bands, recursive)
        try:
            place.write(name, encode(entries), overwrite=False)
        except InputError:
            if not place.exists(name):  # otherwise another process of the batch wrote it meanwhile
                raise
    listed = decode(place.read(name), place.address(name), share)
    about = _about(settings, predictor, listed)
    _claim(out, names - {name}, about)
    return Batch(settings, about, predictor.classes, listed), found


def _place(manifest: Path | None, out: Folder) -> tuple[Folder, str]:
    if manifest is None:
        return out, MANIFEST
    parent, _, name = (store_address(manifest) or str(manifest.absolute())).rpartition("/")
    return Folder(parent), name


def _about(settings: Settings, predictor: Predictor, manifest: Manifest) -> dict[str, str | int | bool | None]:
    names = ("protocol", "size", "dtype", "pages", "labels")
    chosen = {name: value for name, value in asdict(settings).items() if name in names}
    return {"weights": predictor.card.sha256, "manifest": manifest.sha256, **chosen}


def _claim(out: Folder, names: set[str], about: dict[str, str | int | bool | None]) -> None:
    """Write run.json, or check that it is the same."""
    text = (json.dumps(about, indent=2) + "\n").encode()
    if not out.exists(RUN):
        if names - {RUN}:
            what = f"is not empty: it contains {min(names - {RUN})}"
            raise InputError(out.root, what, "choose another `out`, or use the same manifest and settings as before")
        try:
            out.write(RUN, text, overwrite=False)
        except InputError:
            if not out.exists(RUN):
                raise
    try:
        stored = json.loads(out.read(RUN))
        differing = [f"{key} {stored[key]}, now {about[key]}" for key in about if stored[key] != about[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(out.address(RUN), "was not written by danet predict", "choose another `out`") from error
    if differing:
        what = f"has the results of other settings ({'; '.join(differing)})"
        raise InputError(out.root, what, "choose another `out`, or repeat the settings")


class _Image(NamedTuple):
    """An image that has been read.

    Args:
        entry: the image.
        jobs: one, or one for each page; their file is on the local disk.
        pixels: H,W,N; None if the image is large or a stack.
        note: see `statistics.row`.
    """

    entry: Entry
    jobs: list[Job]
    pixels: np.ndarray | None
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

    Raises:
        InputError: the weights are not those of the batch.
    """

    def __init__(self, batch: Batch, predictor: Predictor | None = None):
        self.batch, self.settings = batch, batch.settings
        self.predictor = predictor or self.settings.load()
        self._protocol, self._cleaned = find_protocol(self.settings.protocol), set[Path]()
        if self.predictor.card.sha256 != batch.about["weights"]:
            raise InputError("weights", "are not those of the batch on this machine", "copy the same file to all")

    def segment(self, entries: Iterable[Entry]) -> Iterator[tuple[Entry, list[Row]]]:
        """Yield each image with its rows, in order, when its labels exist. Threads read and write meanwhile.

        Raises:
            InputError: labels cannot be written.
            OSError: an object store cannot be reached; the disk for temporary files is full.
        """
        entries = list(entries)
        with tempfile.TemporaryDirectory(prefix="danet-") as scratch:
            results = pipelined(entries, lambda entry: self._read(entry, Path(scratch)), self._work, self._write)
            for entry, result in zip(entries, results, strict=True):
                shutil.rmtree(Path(scratch, entry.id), ignore_errors=True)
                yield entry, [error_row(entry, result)] if isinstance(result, InputError) else result

    def record(self, entries: Iterable[Entry]) -> Iterator[Done]:
        """Segment whole shards, write the rows of each, and yield the outcome of each image.

        Raises:
            InputError: see `segment`; rows cannot be written.
            OSError: see `segment`.
        """
        for shard, group in groupby(self.segment(entries), lambda done: done[0].shard):
            done = list(group)
            self.batch.write_shard(shard, [row for _, own in done for row in own])
            yield from (Done.of(entry, own) for entry, own in done)

    def _read(self, entry: Entry, scratch: Path) -> _Image:
        folder, found = scratch / entry.id, Found()
        folder.mkdir()
        file = _local_copy(entry, folder)
        jobs = list(jobs_of(file, folder, self.settings.pages, True, False, found))
        single = len(jobs) == 1 and jobs[0].kind != "large"
        pixels = read_job(jobs[0], self.predictor.card.bands) if single else None
        return _Image(entry, jobs, pixels, _NO_COORDINATES if found.without_coordinates else None)

    def _work(self, image: _Image) -> _Segmented:
        start = time.perf_counter()
        if image.pixels is not None:
            segmentation = self._segment(image, image.pixels)
            return _Segmented(image, 1000 * (time.perf_counter() - start), segmentation, [], [])
        rows, files = [], []
        try:
            for job in image.jobs:
                start = time.perf_counter()
                if job.kind == "large":
                    given = job.file, job.folder, True, self._protocol, self.settings.size
                    saved = large_image.segment_file(self.predictor, *given)
                    summary, content = saved.summary, saved.paths[1].read_bytes()
                else:
                    segmentation = self._segment(image, read_job(job, self.predictor.card.bands))
                    summary, content = segmentation.summary(), _encode(segmentation, job)
                files.append((_output_name(image.entry, job), content))
                rows.append(_row(image, job, 1000 * (time.perf_counter() - start), summary))
        except InputError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in FULL:  # not the image's fault
                raise error.__cause__ from None
            raise
        return _Segmented(image, 0, None, rows, files)

    def _segment(self, image: _Image, pixels: np.ndarray) -> Segmentation:
        return self.predictor.segment(image.entry.path, pixels, self._protocol, self.settings.size)

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
    file.write_bytes(content)
    return file


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
    return overlay.to_png(overlay.label_image(segmentation.labels, segmentation.classes))


def _row(image: _Image, job: Job, milliseconds: float, summary: Mapping[str, Any]) -> Row:
    page = None if job.page is None else job.page + 1
    return statistics.row(image.entry, milliseconds, page, image.note, summary)
