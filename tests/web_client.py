"""A client of danet/web: in process by httpx, or of `danet serve` as a process of its own."""

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
    """A client of the application in this process, with its lifespan."""
    app = create_app(predictor, limits)
    async with (
        app.router.lifespan_context(app),
        Client(transport=httpx.ASGITransport(app), base_url=HOST, timeout=60, **options) as client,
    ):
        yield client


def all_of(*requests: tuple[str, str, dict[str, Any]]) -> Callable[[Client], Awaitable[list[httpx.Response]]]:
    async def questions(client: Client) -> list[httpx.Response]:
        return [await client.request(method, path, **options) for method, path, options in requests]

    return questions


def error(answer: httpx.Response) -> str:
    assert set(answer.json()) == {"error"}
    assert "Traceback" not in answer.text
    return answer.json()["error"]


@contextlib.contextmanager
def process(weights: Path, *args: str, environment: dict[str, str] | None = None):
    """`danet serve` on a free port; gives the process and its address."""
    command = [sys.executable, "-m", "danet", "serve", "--weights", str(weights), "--port", "0", *args]
    env = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as running:
        try:
            address = running.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:"), running.stderr.read()
            yield running, address
        finally:
            running.kill()


def send(address: str, content: bytes) -> socket.socket:
    host, port = address.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=20)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(content)
    return connection
