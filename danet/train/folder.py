"""A run's folder: recipe.yaml (resolved), environment.json, metrics.csv, last.ckpt, best.safetensors, report.html."""

import csv
import io
import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from danet import recipes
from danet.errors import InputError
from danet.files import write_atomically
from danet.recipes import Recipe

CHECKPOINT, BEST = "last.ckpt", "best.safetensors"


def create(folder: Path, recipe: Recipe) -> None:
    """Make a new run folder with its recipe and environment.

    Raises:
        InputError: it holds something already, or cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = next(folder.iterdir(), None)
    except OSError as error:
        raise InputError(
            folder, f"cannot be made a run folder ({error.strerror})", "give --out another folder"
        ) from error
    if taken is not None:
        remedy = (
            f"go on with danet train --resume {folder}" if (folder / CHECKPOINT).exists() else "give --out a new folder"
        )
        raise InputError(folder, f"is not empty: it holds {taken.name}", remedy)
    text = yaml.safe_dump(recipes.to_dict(recipe), sort_keys=False)
    write_atomically(folder / "recipe.yaml", text.encode())
    write_atomically(folder / "environment.json", json.dumps(_environment(), indent=2).encode())


def read_recipe(folder: Path) -> Recipe:
    """The recipe that a run was started with.

    Raises:
        InputError: not a run folder, or a recipe.yaml that was damaged.
    """
    file = folder / "recipe.yaml"
    try:
        entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "give the folder of a run") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(file, f"is no YAML ({' '.join(str(error).split())})", "restore it from a copy") from error
    return recipes.from_dict(entries, str(file))


def write_metrics(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """metrics.csv: a row each validation."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[-1]))
    table.writeheader()
    table.writerows(history)
    write_atomically(folder / "metrics.csv", text.getvalue().encode())


def _environment() -> dict[str, Any]:
    packages = ("danet", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")
    return {
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in packages},
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
