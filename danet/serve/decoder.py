"""Decode untrusted images in a separate process with bounded memory and time.

A crash in an image decoder ends only that process; the next image gets a new one. The process replies with JSON and raw
bytes, and nothing from it is unpickled.
"""

import asyncio
import json
import multiprocessing
import signal
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

import numpy as np

from danet.data.images.channels import RGB, Bands
from danet.data.images.read import decode_image
from danet.errors import InputError

FORMATS = ("JPEG", "PNG", "WEBP")
"""The formats that browsers and cameras send. Each further decoder would be one more to attack."""

NAME = "image"
"""The file's name in error messages. The name that the client gave is never used."""


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
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    async def decode(self, content: bytes) -> np.ndarray:
        """Decode an image file to the H,W,N array that `read_image` would return.

        Raises:
            InputError: not a complete, still JPEG, PNG or WebP image; too many pixels; too slow to decode.
        """
        loop = asyncio.get_running_loop()
        await self._lock.acquire()  # a queue in the executor would hold the bytes of clients that have disconnected
        job = self._thread.submit(self._decode, content)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._lock.release))  # even if we are cancelled
        return await asyncio.wrap_future(job)

    def start(self) -> None:
        """Start the process. Otherwise the first image starts it."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_run, args=(other, self._max_pixels, self._bands), daemon=True, name="danet-decode"
        )
        self._process.start()
        other.close()
        self._pipe.recv_bytes()  # wait until it is ready

    def close(self) -> None:
        """Stop the process and the thread."""
        self._thread.shutdown()
        self._stop()

    def _stop(self) -> None:
        if self._process is not None and self._pipe is not None:
            self._process.kill()
            self._process.join()
            self._process.close()
            self._pipe.close()
        self._process = self._pipe = None

    def _decode(self, content: bytes) -> np.ndarray:
        if self._pipe is None:
            self.start()
        assert self._pipe is not None
        try:
            self._pipe.send_bytes(content)
            if not self._pipe.poll(self._seconds):
                self._stop()
                raise InputError(NAME, f"decoding took over {self._seconds:g} s", "save the image again, or smaller")
            reply = json.loads(self._pipe.recv_bytes())
            if "error" in reply:
                raise InputError(NAME, *reply["error"])
            return np.frombuffer(self._pipe.recv_bytes(), reply["type"]).reshape(reply["shape"])
        except (EOFError, OSError) as error:
            self._stop()
            raise InputError(NAME, "the decoder crashed on this file", "save the image again") from error


def _run(pipe: Connection, max_pixels: int, bands: Bands) -> None:
    """Decode what arrives in the pipe, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches this process too; the server stops it
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
