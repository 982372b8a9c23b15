"""When each loss helps: the recipe `folder` on few images, with one loss after another.

All else is equal: images, steps, network and seed. Scores are those of the last weights on full validation images. The
same command continues an interrupted benchmark.

    python -m benchmarks.losses --data DATA --backbone-weights FILE --json benchmarks/results/losses.json

DATA has one folder per dataset, as in benchmarks/small_data.py.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import accuracy_tables, command
from benchmarks.command import JsonFile
from benchmarks.small_data import Rows, make_subset, train_danet
from danet.errors import InputError

RARELY = {"validate-every": "20"}  # validations take time and change nothing
PLAIN = {"criterion.lovasz": "0"}
LOSSES: dict[str, dict[str, str]] = {
    "cross-entropy": PLAIN,
    "with Lovasz-Softmax (the recipe)": {},
    "with Dice": PLAIN | {"criterion.dice": "1"},
    "focal": PLAIN | {"criterion.pixel": "focal"},
    "ohem": PLAIN | {"criterion.pixel": "ohem"},
    "boundary": PLAIN | {"criterion.pixel": "boundary"},
    "label smoothing 0.1": PLAIN | {"criterion.label-smoothing": "0.1"},
    "class weights": PLAIN | {"class-weights": "auto"},
}
"""Name -> options of `danet train folder`."""


@dataclass(frozen=True)
class Options:
    """Train on few images with each loss.

    Example: python -m benchmarks.losses --data DATA --datasets msrc21 --seeds 3
    """

    data: Path
    """folder of the datasets"""
    datasets: tuple[str, ...] = ("labelmefacade", "msrc21")
    """folders in it"""
    images: int = 50
    """number of training images"""
    validation: int = 60
    """number of validation images"""
    seeds: int = 1
    """runs of each loss"""
    only: tuple[str, ...] = tuple(LOSSES)
    """losses"""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone; default: timm's from the Hugging Face hub"""
    out: Path = Path("runs/losses")
    """folder of the subsets and runs"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Train and evaluate what is missing in `options.json`."""
    if unknown := set(options.only) - set(LOSSES):
        raise InputError("only", f"unknown loss {min(unknown)!r}", f"use {', '.join(map(repr, LOSSES))}")
    weights = options.backbone_weights and options.backbone_weights.name
    rows = Rows({"validation": options.validation, "backbone_weights": weights})
    rows.continue_from(options.out, options.json)
    done = {(row["dataset"], row["images"], row["loss"], row["seed"]) for row in rows.rows}
    for seed in range(1, options.seeds + 1):
        for name in options.datasets:
            subset = options.out / f"{name}-{options.images}"
            folder = make_subset(options.data / name, subset, options.images, options.validation)
            if folder is None:
                raise InputError("images", f"{name} has fewer than {options.images} training images", "choose fewer")
            for loss in options.only:
                if (name, options.images, loss, seed) not in done:
                    out = subset.with_name(f"{subset.name}-{list(LOSSES).index(loss)}-{seed}")
                    train_danet(folder, out, seed, options.backbone_weights, RARELY | LOSSES[loss])
                    scores = _scores(out / "last.ckpt", folder)
                    print(f"{name}, {loss}, seed {seed}: mIoU {scores['miou']:.1%}", file=sys.stderr)
                    rows.add({"dataset": name, "images": options.images, "loss": loss, "seed": seed, **scores})
    return rows.result()


def rare_iou(pixels: Sequence[int], iou: Sequence[float]) -> float:
    """Return the mean IoU of the rarer half of the classes that occur.

    Args:
        pixels: labeled pixels of each class.
        iou: of each class, from 0 to 1.
    """
    occurring = sorted((count, value) for count, value in zip(pixels, iou, strict=True) if count)
    return mean(value for _, value in occurring[: max(1, len(occurring) // 2)])


def _scores(weights: Path, folder: Path) -> dict[str, float]:
    """Return mIoU, pixel accuracy, IoU of the rarer half of the classes and boundary F within 3 pixels, from 0 to 1."""
    with tempfile.TemporaryDirectory() as name:
        converted, result = Path(name) / "last.safetensors", Path(name) / "scores.json"
        for arguments in (
            ["convert", weights, converted],
            ["evaluate", converted, "--dataset", "folder", "--root", folder, "--json", result],
        ):
            subprocess.run([sys.executable, "-m", "danet", *map(str, arguments)], check=True, stdout=sys.stderr)
        found = json.loads(result.read_text())
    pixels = [sum(row) for row in found["confusion"]]
    return {
        "miou": found["miou"],
        "pixel_accuracy": found["pixel_accuracy"],
        "rare_iou": rare_iou(pixels, [value or 0.0 for value in found["iou"].values()]),
        "boundary_f": found["boundary_f"]["mean"]["3"],
    }


if __name__ == "__main__":
    sys.exit(command.main("losses", Options, run, accuracy_tables.losses, overwrite=True))
