"""Many images through a network: reading and writing go on in threads while the network computes. Used by `danet
predict`; videos take the same way, frame by frame.
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

from danet.errors import InputError
from danet.predict.predictor import Predictor, Segmentation, read_pixels
from danet.predict.protocols import WHOLE, Protocol

AHEAD = 2
"""What is read before the network asks for it."""

WRITERS = min(8, os.cpu_count() or 1)
"""Encoding a large image takes longer than a GPU takes for it."""

Item = TypeVar("Item")
Read = TypeVar("Read")
Done = TypeVar("Done")
Written = TypeVar("Written")


class Pace:
    """A context manager around a run: counts what comes through, and sums up the time in the network beside the whole.

    Args:
        noun: what is counted.
    """

    def __init__(self, noun: str):
        self.noun, self.count = noun, 0
        self.seconds, self.network = 0.0, 0.0

    def __enter__(self) -> "Pace":
        self._start = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds = time.perf_counter() - self._start

    def timed(self, work: Callable[[Read], Done]) -> Callable[[Read], Done]:
        """The same function, its calls counted and timed."""

        def timed(x: Read) -> Done:
            start = time.perf_counter()
            done = work(x)
            self.network += time.perf_counter() - start
            self.count += 1
            return done

        return timed

    def line(self) -> str:
        """For example: 24 images in 6.1 s: 3.9 images/s, in the network 4.3. The second counts the time
        from the pixels to the labels alone, as it was while the threads took their share of the machine.
        """
        speed, within, things = self.count / self.seconds, self.count / self.network, f"{self.noun}s"
        return f"{self.count} {things} in {self.seconds:.1f} s: {speed:.1f} {things}/s, in the network {within:.1f}"


def overlapped(
    items: Iterable[Item],
    read: Callable[[Item], Read],
    work: Callable[[Read], Done],
    write: Callable[[Done], Written],
    writers: int = WRITERS,
) -> Iterator[Written | InputError]:
    """`write(work(read(item)))` of each item, in their order; `read` in a thread, `work` in this one, `write` in
    `writers` threads. An InputError of `read` or `work` takes the place of the item's result; one of `write`, and every
    other exception, ends the whole. At most AHEAD + `writers` + 1 items are held, whatever their number.

    When it ends early (by an exception, Ctrl-C, or since it is closed), what is being written is written to its end,
    and nothing more is begun.
    """
    items, coming, going = iter(items), deque[Future[Read]](), deque[Future[Written | InputError]]()
    with (
        ThreadPoolExecutor(1, "danet-read") as reader,
        ThreadPoolExecutor(writers, "danet-write") as writer,
    ):
        try:
            while True:
                coming.extend(reader.submit(read, item) for item in islice(items, AHEAD - len(coming)))
                if not coming:
                    break
                try:
                    going.append(writer.submit(write, work(coming.popleft().result())))
                except InputError as error:
                    going.append(_known(error))
                while going and (len(going) > writers or going[0].done()):
                    yield going.popleft().result()
            while going:
                yield going.popleft().result()
        finally:
            for future in (*coming, *going):
                future.cancel()


def _known(error: InputError) -> Future:
    future = Future()
    future.set_result(error)
    return future


class Saved(NamedTuple):
    """The files written of an image, and its summary, see `Segmentation`."""

    paths: list[Path]
    summary: dict[str, Any]


def segment_images(
    predictor: Predictor,
    files: Iterable[Path],
    out: Path,
    overwrite: bool = False,
    protocol: Protocol = WHOLE,
    size: int | None = None,
    pace: Pace | None = None,
) -> Iterator[Saved | InputError]:
    """Segment images and save the results, see `Predictor` and `Segmentation.save`; in the order of the files. One
    that cannot be segmented gives its error, and the rest goes on.

    Raises:
        InputError: results that cannot be written.
    """

    def read(file: Path) -> tuple[str, np.ndarray]:
        return read_pixels(file, predictor.card.bands)

    def work(image: tuple[str, np.ndarray]) -> Segmentation:
        return predictor.segment(*image, protocol, size)

    def write(segmentation: Segmentation) -> Saved:
        return Saved(segmentation.save(out, overwrite), segmentation.summary())

    return overlapped(files, read, work if pace is None else pace.timed(work), write)
