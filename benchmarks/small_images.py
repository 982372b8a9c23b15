"""A batch of many small images, some of which cannot be read, end to end: listed, segmented, recorded and checked.

python -m benchmarks.small_images --images 5000 --json small_images.json
"""

import io
import os
import resource
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.scale import EXAMPLE
from danet.data.images.read import read_mask
from danet.errors import InputError
from danet.predict import statistics
from danet.predict.batch import Batch, Done, Settings, open_batch
from danet.predict.batch_engines import run_here, run_on_ray
from danet.predict.predictor import load
from danet.predict.ray_workers import Workers
from danet.predict.storage import Folder

WIDTH, HEIGHT = 128, 96


@dataclass(frozen=True)
class Options:
    """Segment many small images, of which some are damaged, and check every result.

    Example: python -m benchmarks.small_images --images 5000
    """

    images: int = 5000
    """number of images"""
    bad: float = 0.01
    """share of them that cannot be read: empty, cut off, or no images"""
    workers: int = 0
    """also on Ray with so many workers, and compare with the engine local; 0: not"""
    weights: Path | None = None
    """a .safetensors file; default: the bundled weights"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Segment all images with each engine, and return seconds, speeds and what the checks found."""
    if options.images < 1 or not 0 <= options.bad <= 1:
        raise InputError("images", "must be at least 1, and `bad` from 0 to 1", "leave them out for the defaults")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bad = make_images(folder / "photos", options.images, options.bad)
        engines = {"local": measure(options, folder, "local")}
        if options.workers:
            engines["ray"] = measure(options, folder, "ray")
            engines["ray"]["files_that_differ"] = _differing(folder / "local", folder / "ray")
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    sizes = {"images": options.images, "bad": bad, "width": WIDTH, "height": HEIGHT, "workers": options.workers}
    return sizes | {"cores": os.cpu_count(), "peak_mb": memory, "engines": engines}


def make_images(folder: Path, count: int, bad: float) -> int:
    """Write JPEG files of the example, each slightly different; return how many cannot be read."""
    folder.mkdir()
    with Image.open(EXAMPLE) as opened:
        image = np.asarray(opened.convert("RGB").resize((WIDTH, HEIGHT)))
    every, written = round(1 / bad) if bad else count + 1, 0
    for i in range(count):
        content = io.BytesIO()
        Image.fromarray(np.roll(image, 7 * i, 1)).save(content, "JPEG", quality=90)
        data = content.getvalue()
        if i % every == every - 1:
            data = (b"", data[:100], b"no image")[written % 3]
            written += 1
        (folder / f"{i:06}.jpg").write_bytes(data)
    return written


def measure(options: Options, folder: Path, engine: str) -> dict[str, float]:
    """Segment all images with an engine, and check each result."""
    start = time.perf_counter()
    settings = Settings(Folder(str(folder / engine)), options.weights, size=max(WIDTH, HEIGHT), device="cpu")
    predictor = load(options.weights, "cpu")
    batch, _ = open_batch([folder / "photos"], settings, predictor)
    listed = time.perf_counter()
    entries = batch.missing()
    if engine == "ray":
        outcomes = list(run_on_ray(batch, entries, Workers(options.workers, 0)))
    else:
        outcomes = list(run_here(batch, entries, predictor))
    seconds = time.perf_counter() - listed
    return {
        "list_seconds": listed - start,
        "seconds": seconds,
        "images_per_second": options.images / seconds,
        "errors": sum(outcome.error is not None for outcome in outcomes),
        "wrong": check(batch, outcomes),
        "bytes_of_rows": sum(file.stat().st_size for file in (folder / engine / statistics.DATASET).iterdir()),
    }


def check(batch: Batch, outcomes: list[Done]) -> int:
    """Return how many images have not exactly one outcome, one row, and labels if and only if they have no error."""
    out, entries, wrong = batch.settings.out, {entry.path: entry for entry in batch.manifest.entries}, 0
    shards = sorted(statistics.written_shards(out))
    rows = [row for shard in shards for row in statistics.read_errors(out, shard)]
    paths = sorted(path for path, _ in rows)
    if paths != sorted(entries) or sorted(outcome.path for outcome in outcomes) != paths:
        wrong += 1
    for path, error in rows:
        labels = Path(out.address(f"{entries[path].name}_labels.png"))
        good = not labels.exists() if error else read_mask(labels).shape == (HEIGHT, WIDTH)
        wrong += not good
    return wrong


def _differing(first: Path, second: Path) -> int:
    """Return how many label maps differ, or are in one folder only."""
    one, other = ({file.name: file.read_bytes() for file in folder.glob("*_labels.png")} for folder in (first, second))
    return sum(one.get(name) != other.get(name) for name in one.keys() | other.keys())


def table(result: dict[str, Any]) -> str:
    """Format the engines."""
    lines = ["| engine | s | images/s | errors | wrong results |", "|---|---|---|---|---|"]
    for name, found in result["engines"].items():
        speed = f"{found['seconds']:.0f} | {found['images_per_second']:.1f}"
        lines.append(f"| {name} | {speed} | {found['errors']} | {found['wrong']} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(command.main("small_images", Options, run, table))
