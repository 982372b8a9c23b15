"""Strangers' images are decoded in a process of their own, with bounded memory and time: a fault in a decoder ends
that process, and the next image gets a new one. It answers in bytes and JSON: nothing that it says is unpickled.
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
"""What browsers and cameras send; the fewer decoders the better."""

NAME = "image"
"""How errors call it: the file's own name is the client's affair."""


class Decoder:
    """Bytes -> what `read_image` makes of such a file.

    Args:
        max_pixels: larger images are refused before they are decoded.
        seconds: for one image.
        bands: how the images are read.
    """

    def __init__(self, max_pixels: int, seconds: float, bands: Bands = RGB):
        self._max_pixels, self._seconds, self._bands = max_pixels, seconds, bands
        self._thread = ThreadPoolExecutor(1, "danet-decode")
        self._turn = asyncio.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    async def decode(self, content: bytes) -> np.ndarray:
        """The image, upright.

        Raises:
            InputError: not one whole, still JPEG, PNG or WebP image; too large; too slow.
        """
        loop = asyncio.get_running_loop()
        await self._turn.acquire()  # not in the thread's queue: that holds the bytes of clients that have left
        job = self._thread.submit(self._decode, content)
        job.add_done_callback(lambda _: loop.call_soon_threadsafe(self._turn.release))  # not before, if cancelled
        return await asyncio.wrap_future(job)

    def start(self) -> None:
        """Start the process; the first image does, too."""
        context = multiprocessing.get_context("spawn")
        self._pipe, other = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(other, self._max_pixels, self._bands), daemon=True, name="danet-decode"
        )
        self._process.start()
        other.close()
        self._pipe.recv_bytes()  # it is ready

    def close(self) -> None:
        """End the process."""
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
                raise InputError(NAME, f"took over {self._seconds:g} s to decode", "save it anew, or smaller")
            answer = json.loads(self._pipe.recv_bytes())
            if "refused" in answer:
                raise InputError(NAME, *answer["refused"])
            return np.frombuffer(self._pipe.recv_bytes(), answer["type"]).reshape(answer["shape"])
        except (EOFError, OSError) as error:
            self._stop()
            raise InputError(NAME, "cannot be decoded (the decoder failed on it)", "save it anew") from error


def _serve(pipe: Connection, max_pixels: int, bands: Bands) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is the server's affair
    _bound_memory(16 * max_pixels + (1 << 30))
    pipe.send_bytes(b"ready")
    while True:
        try:
            content = pipe.recv_bytes()
        except EOFError:
            return
        try:
            pixels = decode_image(content, NAME, FORMATS, max_pixels, bands)
        except InputError as error:
            _answer(pipe, refused=(error.what, error.remedy))
        except MemoryError:
            _answer(pipe, refused=("takes too much memory to decode", "save it smaller"))
        else:
            _answer(pipe, shape=pixels.shape, type=pixels.dtype.str)
            pipe.send_bytes(np.ascontiguousarray(pixels).data.cast("B"))


def _answer(pipe: Connection, **entries: tuple | str) -> None:
    pipe.send_bytes(json.dumps(entries).encode())


def _bound_memory(more: int) -> None:
    try:
        import resource
        from pathlib import Path

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    except (ImportError, OSError, ValueError):
        return  # not Linux: the limits on pixels and time remain
