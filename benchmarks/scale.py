"""Throughput of batches: a plain loop, the local engine, and Ray with one and more workers; what large batches cost.

Each way segments 1, N and 2 N images. A model of cost, start + images x seconds per image, is taken from the times of 1
and N images, and its error is the difference to the time of 2 N images.

    python -m benchmarks.scale --images 40 --workers 1 2 --nodes 4 --json scale.json
"""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import command
from benchmarks.command import JsonFile
from danet.data.images.read import read_image, read_mask
from danet.errors import InputError
from danet.predict.batch import Settings, open_batch
from danet.predict.batch_engines import run_here, run_on_ray
from danet.predict.overlay import label_image, to_png
from danet.predict.predictor import Predictor, load
from danet.predict.ray_workers import Workers
from danet.predict.storage import Folder

EXAMPLE = Path(__file__).parents[1] / "examples/china.jpg"
TARGETS = (1_000_000, 100_000_000, 1_000_000_000)


@dataclass(frozen=True)
class Options:
    """Measure the throughput of batches, and extrapolate what large ones cost.

    Example: python -m benchmarks.scale --images 40 --workers 1 2
    """

    images: int = 40
    """number of images of the smaller batch; the larger one has twice as many"""
    width: int = 1632
    """their width in pixels; 1632 gives 2 megapixels with the height of 3/4 of it"""
    workers: tuple[int, ...] = (1, 2)
    """numbers of Ray's workers"""
    nodes: int = 0
    """also measure a simulated cluster of this many nodes on this machine"""
    weights: Path | None = None
    """a .safetensors file; default: the bundled weights"""
    device: str = "cpu"
    """cpu or cuda"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Measure all ways, and return seconds, sizes and what the model says."""
    if options.images < 2 or options.width < 8:
        raise InputError("images", "must be at least 2, and `width` at least 8", "leave them out for the defaults")
    torch.set_num_threads(1)  # as a worker has
    predictor = load(options.weights, options.device)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batches = [make_images(folder / str(n), n, options.width) for n in (1, options.images, 2 * options.images)]
        ways: dict[str, Callable[[Path, Path], None]] = {
            "plain loop": partial(_loop, predictor),
            "local engine": partial(_local, predictor, options),
        }
        ways |= {f"ray, workers: {n}": partial(_ray, predictor, options, n) for n in options.workers}
        predictor(next(batches[0].iterdir()))
        results = {way: _measured(way, call, batches, folder, options.images) for way, call in ways.items()}
        if options.nodes:
            with simulated_cluster(options.nodes):
                way = f"ray, simulated nodes: {options.nodes}"
                call = partial(_ray, predictor, options, options.nodes)
                results[way] = _measured(way, call, batches, folder, options.images)
        sizes = _sizes(folder / "local engine 2", 2 * options.images)
        files = _file_seconds(batches[1], folder / "local engine 1", predictor)
    per_image = results["local engine"]["seconds_per_image"]
    return {
        "images": [1, options.images, 2 * options.images],
        "pixels": options.width * (options.width * 3 // 4),
        "device": options.device,
        "cores": os.cpu_count(),
        "ways": results,
        "bytes": sizes,
        "file_seconds": files,
        "cost": [cost(images, per_image, sizes) for images in TARGETS],
    }


def make_images(folder: Path, count: int, width: int) -> Path:
    """Write JPEG files of the example at this width, each slightly different."""
    folder.mkdir()
    with Image.open(EXAMPLE) as opened:
        image = np.asarray(opened.convert("RGB").resize((width, width * 3 // 4)))
    for i in range(count):
        Image.fromarray(np.roll(image, 7 * i, 1)).save(folder / f"{i:06}.jpg", quality=90)
    return folder


def cost(images: int, seconds: float, sizes: dict[str, float]) -> dict[str, float]:
    """Return what a batch needs, without the start of its processes.

    Args:
        images: number of images.
        seconds: for an image in one process.
        sizes: bytes of an image, its labels and its row.
    """
    shards = images / min(500, max(1, -(-images // 2000)))
    return {
        "images": images,
        "process_hours": images * seconds / 3600,
        "head_and_get_requests": 2 * images,
        "put_requests": images + 2 * shards,
        "read_tb": images * sizes["image"] / 1e12,
        "written_tb": images * (sizes["labels"] + sizes["row"]) / 1e12,
        "mbit_per_second_of_a_process": 8e-6 * (sizes["image"] + sizes["labels"] + sizes["row"]) / seconds,
    }


@contextmanager
def simulated_cluster(nodes: int) -> Iterator[None]:
    """Start a Ray cluster of several nodes on this machine: two CPUs for the first, one for each other."""
    from ray.cluster_utils import Cluster

    simulated = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    try:
        for _ in range(nodes - 1):
            simulated.add_node(num_cpus=1)
        os.environ["RAY_ADDRESS"] = str(simulated.address)
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        simulated.shutdown()


def _measured(
    way: str, call: Callable[[Path, Path], None], batches: list[Path], folder: Path, images: int
) -> dict[str, float]:
    """Return the seconds of the three batches, and the error of the model in the largest."""
    seconds = []
    for i, photos in enumerate(batches):
        before = time.perf_counter()
        call(photos, folder / f"{way} {i}")
        seconds.append(time.perf_counter() - before)
    one, some, twice = seconds
    per_image = (some - one) / (images - 1)
    return {
        "seconds_of_one": one,
        "seconds": some,
        "seconds_of_twice": twice,
        "seconds_per_image": per_image,
        "error_of_the_model": (one + (2 * images - 1) * per_image) / twice - 1,
    }


def _loop(predictor: Predictor, photos: Path, out: Path) -> None:
    """Read, segment and write one image after another, with neither manifest nor rows."""
    out.mkdir()
    for file in sorted(photos.iterdir()):
        segmentation = predictor(file)
        (out / f"{file.stem}.png").write_bytes(to_png(label_image(segmentation.labels, segmentation.classes)))
        segmentation.summary()


def _local(predictor: Predictor, options: Options, photos: Path, out: Path) -> None:
    settings = Settings(Folder(str(out)), options.weights, device=options.device)
    batch, _ = open_batch([photos], settings, predictor)
    list(run_here(batch, batch.missing(), predictor))


def _ray(predictor: Predictor, options: Options, workers: int, photos: Path, out: Path) -> None:
    settings = Settings(Folder(str(out)), options.weights, device=options.device)
    batch, _ = open_batch([photos], settings, predictor)
    gpus = None if options.device.startswith("cuda") else 0
    list(run_on_ray(batch, batch.missing(), Workers(workers, gpus)))


def _file_seconds(photos: Path, out: Path, predictor: Predictor) -> float:
    """Return the seconds of a core for an image without the network: to read it, and to encode its label map."""
    files, seconds = sorted(photos.iterdir()), 0.0
    for file in files:
        labels = read_mask(out / f"{file.stem}_labels.png").astype(np.uint8)
        before = time.perf_counter()
        read_image(file)
        to_png(label_image(labels, predictor.classes))
        seconds += time.perf_counter() - before
    return seconds / len(files)


def _sizes(out: Path, images: int) -> dict[str, float]:
    """Return the bytes of an image, its labels and its row, on average."""

    def mean(folder: Path, pattern: str) -> float:
        return sum(file.stat().st_size for file in folder.glob(pattern)) / images

    return {
        "image": mean(out.parent / str(images), "*.jpg"),
        "labels": mean(out, "*_labels.png"),
        "row": mean(out / "statistics.parquet", "*.parquet"),
    }


def table(result: dict[str, Any]) -> str:
    """Format the ways, and the cost of large batches."""
    columns = "way | s of 1 image | s | s, twice as many | s per image | error of the model"
    lines = [f"| {columns} |", "|---|---|---|---|---|---|"]
    for way, found in result["ways"].items():
        numbers = [found[key] for key in ("seconds_of_one", "seconds", "seconds_of_twice", "seconds_per_image")]
        lines.append(f"| {way} | {' | '.join(f'{n:.2f}' for n in numbers)} | {found['error_of_the_model']:+.0%} |")
    lines += ["", "| images | hours of one process | GET and HEAD | PUT | TB read | TB written |"]
    lines.append("|---|---|---|---|---|---|")
    for row in result["cost"]:
        requests = f"{row['head_and_get_requests']:.1e} | {row['put_requests']:.1e}"
        terabytes = f"{row['read_tb']:.1f} | {row['written_tb']:.1f}"
        lines.append(f"| {row['images']:.0e} | {row['process_hours']:,.0f} | {requests} | {terabytes} |")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(command.main("scale", Options, run, table))
