"""Throughput of `danet predict` on a folder: reading, segmenting and saving one after another, or overlapped.

The throughput of the network alone is measured as well. All take turns in each round; the result is the median.

    python -m benchmarks.pipeline --images 12 --rounds 3
"""

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from benchmarks import command
from benchmarks.command import JsonFile
from danet import load
from danet.data.images.read import read_image
from danet.predict.folder import WRITERS, segment_images
from danet.predict.inputs import find_jobs

EXAMPLE = Path(__file__).parents[1] / "examples/china.jpg"
WIDTHS = (640, 1280, 1920)


@dataclass(frozen=True)
class Options:
    """Measure the throughput of danet predict on a folder, and of the network alone.

    Example: python -m benchmarks.pipeline --images 12
    """

    images: int = 12
    """number of images"""
    rounds: int = 3
    """runs of each"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Measure images per second."""
    predictor = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_images(folder / "images", options.images)
        images = [read_image(file) for file in files]
        ways = {
            "network alone": lambda _: [predictor.segment("", pixels) for pixels in images],
            "in turn": lambda out: [predictor(file).save(out) for file in files],
            "overlapped": lambda out: list(segment_images(predictor, find_jobs(files, out).jobs)),
        }
        predictor(files[0])
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for i in range(options.rounds):
            for way, call in ways.items():
                start = time.perf_counter()
                call(folder / f"{way} {i}")
                seconds[way].append(time.perf_counter() - start)
    speed = {way: len(files) / statistics.median(times) for way, times in seconds.items()}
    return {
        "images": len(files),
        "widths": WIDTHS,
        "rounds": options.rounds,
        "images_per_second": {way: round(value, 3) for way, value in speed.items()},
        "share_of_network": {way: round(value / speed["network alone"], 3) for way, value in speed.items()},
        "seconds": {way: [round(value, 3) for value in times] for way, times in seconds.items()},
        "writers": WRITERS,
        "device": str(predictor.device),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
    }


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    shares = result["share_of_network"]
    return "\n".join(
        f"{way:14} {speed:6.2f} images/s   {shares[way]:.0%}" for way, speed in result["images_per_second"].items()
    )


def make_images(folder: Path, count: int) -> list[Path]:
    """Write the example image at several sizes, as JPEG."""
    folder.mkdir()
    with Image.open(EXAMPLE) as example:
        for i in range(count):
            width = WIDTHS[i % len(WIDTHS)]
            size = width, round(width * example.height / example.width)
            example.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)
    return sorted(folder.iterdir())


if __name__ == "__main__":
    sys.exit(command.main("pipeline", Options, run, table))
