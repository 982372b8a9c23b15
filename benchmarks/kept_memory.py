"""A training step and a prediction on the CPU, with freed memory returned to the system, and kept.

`danet.portability.kept_memory` keeps it. Each way runs in a fresh process; they take turns, and the result is the
median over all rounds.

    python -m benchmarks.kept_memory --json benchmarks/results/kept_memory.json
"""

import multiprocessing
import resource
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch

import danet
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
    """Time a training step of the recipe folder, and a prediction, with and without keeping freed memory.

    Example: python -m benchmarks.kept_memory --classes 11
    """

    classes: int = 21
    """number of classes of the training step"""
    steps: int = 5
    """steps or predictions per process"""
    rounds: int = 3
    """processes of each way"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Measure seconds, page faults and peak memory of each task."""
    found: dict[str, dict[str, list[dict[str, Any]]]] = {task: {way: [] for way in WAYS} for task in TASKS}
    for _ in range(options.rounds):
        for task, way in product(TASKS, WAYS):
            with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
                found[task][way].append(pool.submit(_measure, task, way, options.classes, options.steps).result())
    medians = {
        task: {way: {name: median(row[name] for row in rows) for name in rows[0]} for way, rows in ways.items()}
        for task, ways in found.items()
    }
    return {"classes": options.classes, "tasks": medians, **environment()}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines = []
    for task, ways in result["tasks"].items():
        lines += [
            f"{task}, {way:8} {row['seconds']:.2f} s, {row['faults']:,} page faults, "
            f"peak {row['peak_bytes'] / 1e6:,.0f} MB"
            for way, row in ways.items()
        ]
        lines.append(f"kept takes {ways['kept']['seconds'] / ways['returned']['seconds']:.2f} times as long")
    return "\n".join(lines)


def _training_step(classes: int) -> Callable[[], object]:
    """Return a step of the recipe folder on random images."""
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

    return step


def _prediction(_: int) -> Callable[[], object]:
    """Return the prediction of a random image of 960 x 720 pixels by the bundled weights."""
    predictor = danet.load()
    image = np.random.default_rng(0).integers(0, 256, (720, 960, 3), np.uint8)
    return lambda: predictor(image)


TASKS = {"training step": _training_step, "prediction": _prediction}


def _measure(task: str, way: str, classes: int, steps: int) -> dict[str, Any]:
    work = TASKS[task](classes)
    with WAYS[way]():
        work()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        seconds = interleaved({way: work}, steps, warmup=0)[way].median
        after = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "seconds": seconds,
        "faults": (after.ru_minflt - before) // steps,
        "peak_bytes": 1024 * after.ru_maxrss,
    }


if __name__ == "__main__":
    sys.exit(command.main("kept_memory", Options, run, table))
