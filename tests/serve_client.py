"""Clients for tests of danet/serve: of an application in this process, or of `danet serve` as a separate process."""

import contextlib
import io
import os
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from danet.serve.app import create_app
from danet.serve.guard import Limits

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
def process(weights: Path, *args: str, environment: dict[str, str] | None = None):
    """Run `danet serve` on a free port, and yield the process and its URL."""
    command = [sys.executable, "-m", "danet", "serve", "--weights", str(weights), "--port", "0", *args]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        try:
            url = running.stdout.readline().strip()
            assert url.startswith("http://127.0.0.1:"), running.stderr.read()
            yield running, url
        finally:
            running.kill()


def send(url: str, content: bytes) -> socket.socket:
    """Connect to a server, send bytes, and return the open socket."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(content)
    return connection
