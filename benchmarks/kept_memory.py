"""A training step on the CPU, with freed memory returned to the system, and kept (`danet.portability.kept_memory`).

Each way runs in a fresh process; they take turns, and the result is the median over all rounds.

    python -m benchmarks.kept_memory --json benchmarks/results/kept_memory.json
"""

import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import environment, interleaved
from danet.model.baselines import build_network
from danet.model.loss import multi_loss
from danet.portability import kept_memory
from danet.recipes import small

WAYS = {"returned": nullcontext, "kept": kept_memory}


@dataclass(frozen=True)
class Options:
    """Time a training step of the recipe folder with and without keeping freed memory.

    Example: python -m benchmarks.kept_memory --classes 11
    """

    classes: int = 21
    """number of classes"""
    steps: int = 5
    """steps per process"""
    rounds: int = 3
    """processes of each way"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Measure seconds per step, page faults per step and peak memory."""
    found: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, rows in found.items():
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                rows.append(pool.submit(_measure, way, options.classes, options.steps).result())
    medians = {way: {name: median(row[name] for row in rows) for name in rows[0]} for way, rows in found.items()}
    ratio = medians["kept"]["seconds"] / medians["returned"]["seconds"]
    return {"classes": options.classes, "ways": medians, "ratio": round(ratio, 3), **environment()}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    rows = [
        f"{way:8} {row['seconds']:.2f} s, {row['faults']:,} page faults, peak {row['peak_bytes'] / 1e6:,.0f} MB"
        for way, row in result["ways"].items()
    ]
    return "\n".join([*rows, f"kept takes {result['ratio']:.2f} times as long"])


def _measure(way: str, classes: int, steps: int) -> dict[str, Any]:
    """Time steps of the recipe folder on random images."""
    recipe = small.FOLDER
    arguments = asdict(replace(recipe.network, pretrained=False))
    network = build_network(**arguments, num_classes=classes, in_channels=3).train()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    images = torch.rand(recipe.data.batch, 3, *recipe.data.crop).to(memory_format=torch.channels_last)
    labels = torch.randint(classes, (recipe.data.batch, *recipe.data.crop))

    def step() -> None:
        network.zero_grad()
        outputs = network(images, attention=True)
        multi_loss(outputs, labels, asdict(recipe.loss), criterion=asdict(recipe.criterion))[0].backward()

    with WAYS[way]():
        step()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = interleaved({way: step}, steps, warmup=0)[way].median
        after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "faults": (after.ru_minflt - before) // steps,
        "peak_bytes": 1024 * after.ru_maxrss,
    }


if __name__ == "__main__":
    sys.exit(command.main("kept_memory", Options, run, table))
