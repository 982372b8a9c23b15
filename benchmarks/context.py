"""What global context is worth: DANet and the FCN of equal backbone, recipe and budget on drawn scenes in which only
what stands at the far end of a street decides a car's class. Prints a table and writes JSON.

    uv run python -m benchmarks.context --out runs/context --json benchmarks/results/context.json
"""

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch

from danet import recipes
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.weights import file as weights_file

RECIPES = {"both modules": "toy-context", "FCN": "toy-context-fcn"}
CARS = ("waiting car", "driving car")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/context"), help="folder for the runs")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    rows = []
    for seed in range(1, options.seeds + 1):
        for name, recipe in RECIPES.items():
            folder, start = options.out / f"{recipe}-{seed}", time.monotonic()
            result = train(replace(recipes.find(recipe), seed=seed), RunOptions(folder))
            _, card = weights_file.load(folder / "best.safetensors")
            cars = statistics.mean(card.metrics["iou"][car] for car in CARS)
            rows.append({"network": name, "recipe": recipe, "seed": seed, "miou": result.miou, "miou_of_cars": cars})
            rows[-1]["seconds"] = round(time.monotonic() - start)
            print(f"{name:13} seed {seed}: mIoU {result.miou:.4f}, of the two classes of cars {cars:.4f}", flush=True)
    for name in RECIPES:
        own = [row for row in rows if row["network"] == name]
        miou, cars = ([row[key] for row in own] for key in ("miou", "miou_of_cars"))
        print(f"{name:13} mIoU {statistics.mean(miou):.4f} +- {statistics.stdev(miou):.4f}", end=", ")
        print(f"of the cars {statistics.mean(cars):.4f} +- {statistics.stdev(cars):.4f}")
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        entries = {"torch": torch.__version__, "threads": torch.get_num_threads(), "runs": rows}
        options.json.write_text(json.dumps(entries, indent=2) + "\n")


if __name__ == "__main__":
    main()
