"""Decode untrusted images in a separate process with bounded memory and time.

A crash in an image decoder ends only that process; the next image gets a new one. The process replies with JSON and raw
bytes, and nothing from it is unpickled.
"""

import asyncio
import json
import multiprocessing
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import NamedTuple

import numpy as np

from danet.data.images.channels import RGB, Bands
from danet.data.images.read import decode_image
from danet.errors import InputError
from danet.portability import WINDOWS, blocked_signals

FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
"""The formats that browsers and cameras send. Each further decoder would be one more to attack."""

NAME = "image"
"""The file's name in error messages. The name that the client gave is never used."""

START_SECONDS = 60
"""Time limit for the start of the process, on a machine that is busy."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Child(NamedTuple):
    process: BaseProcess
    pipe: Connection

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.process.close()
        self.pipe.close()


class Decoder:
    """Decodes images in a child process, one at a time.

    Args:
        max_pixels: larger images are rejected before they are decoded.
        seconds: time limit for one image.
        bands: the channels to read from each image.
    """

    def __init__(self, max_pixels: int, seconds: float, bands: Bands = RGB):
        self._max_pixels, self._seconds, self._bands = max_pixels, seconds, bands
        self._thread = ThreadPoolExecutor(1, "danet-decode")
        self._lock = asyncio.Lock()
        self._child: _Child | None = None

    async def decode(self, content: bytes) -> np.ndarray:
        """Decode an image file to the H,W,N array that `read_image` would return.

        Raises:
            InputError: not a complete, still JPEG, PNG, WebP or GIF image; too many pixels; too slow to decode.
            ChildProcessError: the process cannot be started, for lack of memory or descriptors.
        """
        loop = asyncio.get_running_loop()
        await self._lock.acquire()  # a queue in the executor would hold the bytes of clients that have disconnected
        job = self._thread.submit(self._decode, content)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._lock.release))  # even if we are cancelled
        return await asyncio.wrap_future(job)

    async def prepare(self) -> None:
        """Start the process if it is not running. Otherwise the next image starts it.

        Raises:
            ChildProcessError: it cannot be started.
        """
        if self._child is None or not self._lock.locked():  # it is running while an image is being decoded
            await asyncio.wrap_future(self._thread.submit(self._running))

    def close(self) -> None:
        """Stop the process and the thread."""
        self._thread.shutdown()
        self._stop()

    def _running(self) -> _Child:
        """Return the process; start it if there is none, or if it has ended."""
        if self._child is not None and not self._child.process.is_alive():
            self._stop()
        if self._child is None:
            try:
                self._child = _start(self._max_pixels, self._bands)
            except (OSError, EOFError) as error:
                raise ChildProcessError(f"the decoder cannot be started ({error!r})") from error
        return self._child

    def _stop(self) -> None:
        if self._child is not None:
            self._child.stop()
        self._child = None

    def _decode(self, content: bytes) -> np.ndarray:
        for _ in range(2):  # something else may have killed it, as the system does when memory is short
            child = self._running()
            try:
                child.pipe.send_bytes(content)
                if not child.pipe.poll(self._seconds):
                    self._stop()
                    what = f"decoding took over {self._seconds:g} s"
                    raise InputError(NAME, what, "save the image again, or smaller")
                reply = json.loads(child.pipe.recv_bytes())
                if "error" in reply:
                    raise InputError(NAME, *reply["error"])
                return np.frombuffer(child.pipe.recv_bytes(), reply["type"]).reshape(reply["shape"])
            except (EOFError, OSError):
                self._stop()
        raise InputError(NAME, "the decoder crashed on this file", "save the image again")


def _start(max_pixels: int, bands: Bands) -> _Child:
    """Start a process and wait until it is ready.

    Raises:
        OSError, EOFError: it cannot be started; nothing of it is left.
    """
    context = multiprocessing.get_context("spawn")
    pipe, other = context.Pipe()
    if not WINDOWS:  # the first start of a process would start the tracker, which unblocks both signals
        resource_tracker.ensure_running()
    process = context.Process(target=_run, args=(other, max_pixels, bands), daemon=True, name="danet-decode")
    try:
        with other, _blocked_signals():
            process.start()
        if not pipe.poll(START_SECONDS):
            raise TimeoutError
        pipe.recv_bytes()
    except BaseException:
        if process.pid is not None:
            process.kill()
            process.join()
        process.close()
        pipe.close()
        raise
    return _Child(process, pipe)


@contextmanager
def _blocked_signals() -> Iterator[None]:
    """Block SIGINT and SIGTERM in this thread and in processes that it starts.

    Signals to the process group reach these processes too, but it is the server that stops them.
    """
    with blocked_signals(_SIGNALS):
        yield


def _run(pipe: Connection, max_pixels: int, bands: Bands) -> None:
    """Decode what arrives in the pipe, until it is closed."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    _limit_memory(16 * max_pixels + (1 << 30))
    pipe.send_bytes(b"ready")
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        try:
            pixels = decode_image(content, NAME, FORMATS, max_pixels, bands)
        except InputError as error:
            _reply(pipe, error=(error.what, error.remedy))
        except MemoryError:
            _reply(pipe, error=("decoding takes too much memory", "save the image smaller"))
        else:
            _reply(pipe, shape=pixels.shape, type=pixels.dtype.str)
            pipe.send_bytes(np.ascontiguousarray(pixels).data.cast("B"))


def _reply(pipe: Connection, **entries: tuple | str) -> None:
    pipe.send_bytes(json.dumps(entries).encode())


def _limit_memory(extra: int) -> None:
    """Limit the address space to its present size plus `extra` bytes, on Linux."""
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + extra
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):
        return  # not Linux: the limits on pixels and time still apply
