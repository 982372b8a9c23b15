"""Segment many images: threads read and write files while the network computes. Used by `danet predict`.

Videos use the same pipeline, frame by frame.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from danet.data.images.channels import Bands
from danet.data.images.geotiff import check_upright, read_missing
from danet.data.images.read import read_image
from danet.errors import InputError
from danet.predict.image_results import save_image
from danet.predict.job import Job
from danet.predict.outputs import NO_MAPS, Maps
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import Segmentation

AHEAD = 2
"""Number of items read in advance."""

WRITERS = min(8, os.cpu_count() or 1)
"""Number of threads that write: a GPU segments a large image faster than one thread encodes the result."""

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")
Written = TypeVar("Written")


class Throughput:
    """A context manager that counts items, and measures the network's time and the total time.

    Args:
        noun: what is counted, in the singular.
    """

    def __init__(self, noun: str):
        self.noun, self.count = noun, 0
        self.seconds, self.network = 0.0, 0.0

    def __enter__(self) -> "Throughput":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start

    def timed(self, work: Callable[[Read], Done]) -> Callable[[Read], Done]:
        """Return a function that does the same work, counts the calls and measures their time."""

        def timed(x: Read) -> Done:
            start = time.perf_counter()
            done = work(x)
            self.network += time.perf_counter() - start
            self.count += 1
            return done

        return timed

    def line(self) -> str:
        """Return, for example, "24 images in 6.1 s: 3.9 images/s, network alone 4.3 images/s".

        The second speed is that of the network, from pixels to labels, while the threads share the CPU with it.
        """
        total, network, unit = self.count / self.seconds, self.count / self.network, f"{self.noun}s"
        return (
            f"{self.count} {unit} in {self.seconds:.1f} s: {total:.1f} {unit}/s, network alone {network:.1f} {unit}/s"
        )


def pipelined(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Read], Done],
    write: Callable[[Done], Written],
    writers: int = WRITERS,
) -> Iterator[Written | InputError]:
    """Yield `write(work(read(item)))` for each item, in order, with the three steps running concurrently.

    An InputError of `read` or `work` is yielded in place of the result. One of `write`, and any other exception, ends
    the iteration. At most AHEAD + `writers` + 1 items are held. If the iteration ends early (an exception, Ctrl-C, or
    because it is closed), files being written are completed, and nothing more is started.

    Args:
        items: to process.
        read: runs in a thread.
        work: runs in the calling thread.
        write: runs in `writers` threads.
        writers: number of threads.
    """
    items, reading, writing = iter(items), deque[Future[Read]](), deque[Future[Written | InputError]]()
    with (
        ThreadPoolExecutor(1, "danet-read") as reader,
        ThreadPoolExecutor(writers, "danet-write") as writer,
    ):
        try:
            while True:
                reading.extend(reader.submit(read, item) for item in islice(items, AHEAD - len(reading)))
                if not reading:
                    break
                try:
                    writing.append(writer.submit(write, work(reading.popleft().result())))
                except InputError as error:
                    writing.append(_completed(error))
                while writing and (len(writing) > writers or writing[0].done()):
                    yield writing.popleft().result()
            while writing:
                yield writing.popleft().result()
        finally:
            for future in (*reading, *writing):
                future.cancel()


def _completed(error: InputError) -> Future:
    future = Future()
    future.set_result(error)
    return future


class Saved(NamedTuple):
    """The files written for an input, and what its JSON holds, see `Segmentation.record`."""

    paths: list[Path]
    summary: dict[str, Any]


def segment_images(
    predictor: Predictor,
    jobs: Iterable[Job],
    protocol: Protocol = WHOLE,
    size: int | None = None,
    throughput: Throughput | None = None,
    maps: Maps = NO_MAPS,
) -> Iterator[Saved | InputError]:
    """Segment images, save the results, and yield them in the order of the jobs.

    A file that cannot be segmented yields its error, and the others continue.

    Args:
        predictor: the network.
        jobs: images of kind "image" or "geo"; see `save_image`.
        protocol: see `Predictor`.
        size: see `Predictor`.
        throughput: counts and times the images.
        maps: what is computed from the probabilities. If they are written, up to three images are held with them.

    Raises:
        InputError: the results cannot be written.
    """

    def save(job: Job, segmentation: Segmentation) -> Saved | InputError:
        try:
            return Saved(job.paths, save_image(segmentation, job, maps))
        except MemoryError:
            return InputError(job.file, "not enough memory to draw the results", "free some memory")

    return segment_jobs(predictor, jobs, save, protocol, size, throughput, maps)


def segment_jobs(
    predictor: Predictor,
    jobs: Iterable[Job],
    write: Callable[[Job, Segmentation], Written],
    protocol: Protocol = WHOLE,
    size: int | None = None,
    throughput: Throughput | None = None,
    maps: Maps = NO_MAPS,
) -> Iterator[Written | InputError]:
    """Segment images, and yield what `write` returns for each; arguments and order as in `segment_images`."""

    def read(job: Job) -> tuple[Job, np.ndarray, np.ndarray | None]:
        return job, read_job(job, predictor.card.bands), missing_of(job)

    def work(image: tuple[Job, np.ndarray, np.ndarray | None]) -> tuple[Job, Segmentation]:
        job, pixels, missing = image
        segmentation = predictor.segment(job.name, pixels, protocol, size, keep_probabilities=maps.written)
        segmentation = segmentation.without_data(missing)
        return job, segmentation if maps.min_confidence is None else segmentation.with_unknown(maps.min_confidence)

    timed = work if throughput is None else throughput.timed(work)
    return pipelined(jobs, read, timed, lambda done: write(*done), 1 if maps.written else WRITERS)


def read_job(job: Job, bands: Bands) -> np.ndarray:
    """Return the pixels of an image, H,W,N, as `read_image` does.

    Raises:
        InputError: see `read_image`; a stack of which no page is chosen; coordinates that do not fit the pixels, see
            `check_upright`.
    """
    if job.kind == "geo":
        check_upright(job.file)
    if job.page is None and job.pages > 1:
        what = f"a stack or animation of {job.pages} pages"
        raise InputError(job.file, what, "add `pages` for one result per page")
    return read_image(job.file, bands=bands, page=job.page)


def missing_of(job: Job) -> np.ndarray | None:
    """Return which pixels of an image with coordinates have no data, H,W bool; None if all have."""
    return read_missing(job.file) if job.kind == "geo" else None
