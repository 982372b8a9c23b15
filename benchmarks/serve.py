"""Latency of `danet serve`: attention of the pixel under the pointer (60 x 80 features), and 200 simultaneous uploads.

The network is untrained, which does not change the amount of work.

    python -m benchmarks.serve --json benchmarks/results/serve.json
"""

import asyncio
import collections
import contextlib
import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
from PIL import Image

from benchmarks import command
from benchmarks.command import JsonFile
from danet import DANet
from danet.data.datasets import camvid
from danet.weights import file as weights_file


@contextlib.contextmanager
def server(path: Path) -> Iterator[tuple[int, str]]:
    """Start `danet serve` and yield its process id and address."""
    command = [sys.executable, "-m", "danet", "serve", "--weights", str(path), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as running:
        assert running.stdout is not None
        try:
            yield running.pid, running.stdout.readline().strip()
        finally:
            running.terminate()


def save_network(path: Path, width: int) -> None:
    """Save an untrained network of stride 8 for images of 640 x 480 pixels: 60 x 80 features."""
    arguments = {"num_classes": 11, "backbone": "test_resnet", "output_stride": 8, "width": width}
    card = weights_file.Card(arguments, camvid.CLASSES, (0.5,) * 3, (0.5,) * 3, size=640)
    weights_file.save(path, DANet(**arguments), card)


def image() -> bytes:
    """Return 640 x 480 pixels of smooth noise as JPEG."""
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8)).resize((640, 480)).save(file, "JPEG")
    return file.getvalue()


def percentiles(seconds: list[float]) -> dict[str, float]:
    """Return percentiles in milliseconds."""
    return {f"p{p}_ms": round(1000 * float(np.percentile(seconds, p)), 2) for p in (50, 95, 99)}


def megabytes(pid: int, key: str) -> float:
    """Return a memory value of a process from /proc."""
    match = re.search(rf"{key}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    assert match is not None
    return round(int(match[1]) / 1024, 1)


def hover(address: str, moves: int) -> dict[str, Any]:
    """Request the attention of random pixels, one after another."""
    rng, seconds = np.random.default_rng(1), []
    with httpx.Client(base_url=address, timeout=60) as client:
        kept = client.post("/v1/segment?keep=true", content=image()).json()
        assert (kept["grid"]["height"], kept["grid"]["width"]) == (60, 80)
        for _ in range(moves):
            at = {"image": kept["image"], "x": int(rng.integers(640)), "y": int(rng.integers(480))}
            begun = time.perf_counter()
            client.post("/v1/attention", params=at).raise_for_status()
            seconds.append(time.perf_counter() - begun)
    return {"moves": moves, "grid": [60, 80], **percentiles(seconds)}


async def load(address: str, pid: int, uploads: int) -> dict[str, Any]:
    """Send all uploads at once, and poll /health meanwhile."""
    content, seconds, healthy = image(), [], []

    async def upload(client: httpx.AsyncClient) -> int:
        begun = time.perf_counter()
        answer = await client.post("/v1/segment", content=content)
        if answer.status_code == 200:
            seconds.append(time.perf_counter() - begun)
        return answer.status_code

    async def health(client: httpx.AsyncClient) -> None:
        while True:
            begun = time.perf_counter()
            await client.get("/health")
            healthy.append(time.perf_counter() - begun)
            await asyncio.sleep(0.05)

    async with httpx.AsyncClient(
        base_url=address, timeout=300, limits=httpx.Limits(max_connections=uploads + 5)
    ) as client:
        await asyncio.gather(*(client.post("/v1/segment", content=content) for _ in range(8)))
        before, begun = megabytes(pid, "VmRSS"), time.perf_counter()
        watch = asyncio.create_task(health(client))
        statuses = await asyncio.gather(*(upload(client) for _ in range(uploads)))
        wall = time.perf_counter() - begun
        watch.cancel()
        metrics = (await client.get("/metrics")).text
    numbers = {key: float(value) for key, value in re.findall(r"^danet_(batche[sd]) (\S+)", metrics, re.MULTILINE)}
    return {
        "uploads": uploads,
        "statuses": dict(collections.Counter(map(str, statuses))),
        "images_a_second": round(statuses.count(200) / wall, 1),
        "images_a_batch": round(numbers["batched"] / numbers["batches"], 2),
        "answered": percentiles(seconds),
        "health": percentiles(healthy),
        "resident_mb": {"idle": before, "most": megabytes(pid, "VmHWM")},
    }


@dataclass(frozen=True)
class Options:
    """Measure danet serve: attention of the pixel under the pointer, and simultaneous uploads.

    Example: python -m benchmarks.serve --json serve.json
    """

    moves: int = 500
    """number of pointer positions"""
    uploads: int = 200
    """number of simultaneous uploads"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Measure both on the same machine."""
    results: dict[str, Any] = {"torch": torch.__version__, "cores": os.cpu_count()}
    with tempfile.TemporaryDirectory() as folder:
        for width in (64, 512):
            path = Path(folder) / f"{width}.safetensors"
            save_network(path, width)
            with server(path) as (_, address):
                results[f"hover_width_{width}"] = hover(address, options.moves)
        with server(Path(folder) / "64.safetensors") as (pid, address):
            results["load"] = asyncio.run(load(address, pid, options.uploads))
    return results


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines = [f"attention of a pixel, {width} channels: {result[f'hover_width_{width}']}" for width in (64, 512)]
    return "\n".join([*lines, f"simultaneous uploads: {result['load']}"])


if __name__ == "__main__":
    sys.exit(command.main("serve", Options, run, table))
