"""Clients for tests of danet/serve: of an application in this process, or of `danet serve` as a separate process."""

import contextlib
import io
import re
import socket
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from killed import Program, Warm, serve
from PIL import Image

from danet.serve.app import create_app
from danet.serve.limits import Limits

HOST = "http://127.0.0.1:8000"


def image(seed: int = 0, size: tuple[int, int] = (48, 64), kind: str = "PNG", **options: Any) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


Client = httpx.AsyncClient


@contextlib.asynccontextmanager
async def serving(predictor, limits: Limits | None = None, **options: Any):
    """Yield a client of an application in this process, whose lifespan it runs."""
    app = create_app(predictor, limits)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url=HOST, timeout=60, **options) as client,
    ):
        yield client


def send_all(*requests: tuple[str, str, dict[str, Any]]) -> Callable[[Client], Awaitable[list[httpx.Response]]]:
    """Return a function that sends requests in order and returns their responses."""

    async def send_with(client: Client) -> list[httpx.Response]:
        return [await client.request(method, path, **options) for method, path, options in requests]

    return send_with


def error_of(response: httpx.Response) -> str:
    """Return the message of an error response, and check that it has no other content."""
    assert set(response.json()) == {"error"}
    assert "Traceback" not in response.text
    return response.json()["error"]


@contextlib.contextmanager
def server_process(
    warm: Warm, weights: Path, log: Path, *args: str, program: Callable = serve, before: tuple[Any, ...] = ()
) -> Iterator[tuple[Program, str]]:
    """Run `danet serve` on a free port in a process of its own, and yield the process and its URL.

    The process is forked from one that has imported torch, which takes seconds. `log` receives its output. `program` is
    one of killed.py, which takes the arguments `before` first.
    """
    running = warm.start(program, *before, "--weights", str(weights), "--port", "0", *args, errors=log)
    try:
        deadline, printed = time.monotonic() + 120, None
        while printed is None:
            output = log.read_text() if log.exists() else ""
            assert time.monotonic() < deadline, output
            assert Path(f"/proc/{running.pid}").exists(), output
            time.sleep(0.02)
            printed = re.search(r"^(http://127\.0\.0\.1:\d+)\n", output, re.M)
        yield running, printed[1]
    finally:
        if running.status is None:
            running.kill()


def send(url: str, content: bytes) -> socket.socket:
    """Connect to a server, send bytes, and return the open socket."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(content)
    return connection
