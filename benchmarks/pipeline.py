"""A folder of images through `danet predict`: read, segment and save in turn, against the three overlapped, beside
what the network takes alone for the same images once they are read. Prints a table and writes JSON.

    python -m benchmarks.pipeline [--images N] [--rounds N] [--json FILE]

The ways take turns in every round, so that whatever else the machine does falls on all of them; the medians are told.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from pathlib import Path

import torch
from PIL import Image

from danet import load
from danet.data.images.read import read_image
from danet.predict.folder import WRITERS, segment_images

EXAMPLE = Path(__file__).parents[1] / "examples/china.jpg"
WIDTHS = (640, 1280, 1920)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()

    predictor = load()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = make_images(folder / "images", options.images)
        images = [read_image(file) for file in files]
        ways = {
            "network alone": lambda _: [predictor.segment("", pixels) for pixels in images],
            "in turn": lambda out: [predictor(file).save(out) for file in files],
            "overlapped": lambda out: list(segment_images(predictor, files, out)),
        }
        predictor(files[0])
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for i in range(options.rounds):
            for way, run in ways.items():
                start = time.perf_counter()
                run(folder / f"{way} {i}")
                seconds[way].append(time.perf_counter() - start)
    speed = {way: len(files) / statistics.median(times) for way, times in seconds.items()}
    for way, images_per_second in speed.items():
        print(f"{way:14} {images_per_second:6.2f} images/s   {images_per_second / speed['network alone']:.0%}")
    result = {
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
    if options.json is not None:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def make_images(folder: Path, count: int) -> list[Path]:
    """The example at several sizes, as JPEG."""
    folder.mkdir()
    with Image.open(EXAMPLE) as example:
        for i in range(count):
            width = WIDTHS[i % len(WIDTHS)]
            size = width, round(width * example.height / example.width)
            example.resize(size, Image.Resampling.BICUBIC).save(folder / f"{i:04}.jpg", quality=90)
    return sorted(folder.iterdir())


if __name__ == "__main__":
    main()
