"""Effect of global context: DANet and the FCN on generated scenes where only distant context decides a car's class.

Both have the same backbone, recipe and number of steps.

    python -m benchmarks.context --out runs/context --json benchmarks/results/context.json
"""

import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks import command
from benchmarks.command import JsonFile
from danet import recipes
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.weights import file as weights_file

RECIPES = {"both modules": "toy-context", "FCN": "toy-context-fcn"}
CARS = ("waiting car", "driving car")


@dataclass(frozen=True)
class Options:
    """Train DANet and the FCN on scenes where only distant context decides the class of a car.

    Example: python -m benchmarks.context --out runs/context --json context.json
    """

    out: Path = Path("runs/context")
    """folder for the runs"""
    json: JsonFile = None
    seeds: int = 3
    """number of seeds, at least 2"""


def run(options: Options) -> dict[str, Any]:
    """Train both networks with each seed."""
    rows = []
    for seed in range(1, options.seeds + 1):
        for name, recipe in RECIPES.items():
            folder, start = options.out / f"{recipe}-{seed}", time.monotonic()
            result = train(replace(recipes.find(recipe), seed=seed), RunOptions(folder))
            _, card = weights_file.load(folder / "best.safetensors")
            cars = statistics.mean(card.metrics["iou"][car] for car in CARS)
            rows.append({"network": name, "recipe": recipe, "seed": seed, "miou": result.miou, "miou_of_cars": cars})
            rows[-1]["seconds"] = round(time.monotonic() - start)
            print(f"{name:13} seed {seed}: mIoU {result.miou:.4f}, of the car classes {cars:.4f}", flush=True)
    return {"torch": torch.__version__, "threads": torch.get_num_threads(), "runs": rows}


def table(result: dict[str, Any]) -> str:
    """Format the means and standard deviations over the seeds."""
    lines = []
    for name in RECIPES:
        own = [row for row in result["runs"] if row["network"] == name]
        means = [
            f"{statistics.mean(values):.4f} +- {statistics.stdev(values):.4f}"
            for values in ([row[key] for row in own] for key in ("miou", "miou_of_cars"))
        ]
        lines.append(f"{name:13} mIoU {means[0]}, of the car classes {means[1]}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command.main("context", Options, run, table))
