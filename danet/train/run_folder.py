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
from danet.files import read_yaml, write_atomically
from danet.recipes import Recipe
from danet.train import checkpoint, claim, quarantine
from danet.visualize.run_page import Run
from danet.weights import file as weights_file

RECIPE, ENVIRONMENT, BEST, METRICS = "recipe.yaml", "environment.json", "best.safetensors", "metrics.csv"


def create(folder: Path, recipe: Recipe) -> None:
    """Begin a run in a folder that is claimed: its recipe and environment.

    Raises:
        InputError: it holds something already, or cannot be written.
    """
    check_free(folder, recipe)
    write_atomically(folder / ENVIRONMENT, json.dumps(_environment(), indent=2).encode())
    write_atomically(folder / RECIPE, _text(recipe))


def check_free(folder: Path, recipe: Recipe) -> None:
    """Raises InputError unless the folder is empty but for a list of bad images, or this command was killed in it
    before its first checkpoint.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.name not in (claim.LOCK, quarantine.FILE))
    if names and not (set(names) <= {RECIPE, ENVIRONMENT} and _begun(folder, recipe)):
        remedy = (
            f"go on with danet train --resume {folder}"
            if (folder / checkpoint.LAST).exists()
            else "give --out a new folder"
        )
        raise InputError(folder, f"is not empty: it holds {names[0]}", remedy)


def can_go_on(folder: Path, recipe: Recipe) -> bool:
    """Whether this very command, started again, finds its own run there with a checkpoint."""
    return _begun(folder, recipe) and any((folder / name).exists() for name in (checkpoint.LAST, checkpoint.PREVIOUS))


def _begun(folder: Path, recipe: Recipe) -> bool:
    try:
        command = json.loads((folder / ENVIRONMENT).read_bytes())["command"]
        file = folder / RECIPE
        return command == sys.argv and (not file.exists() or file.read_bytes() == _text(recipe))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _text(recipe: Recipe) -> bytes:
    return yaml.safe_dump(recipes.to_dict(recipe), sort_keys=False).encode()


def read_recipe(folder: Path) -> Recipe:
    """The recipe that a run was started with.

    Raises:
        InputError: not a run folder, or a recipe.yaml that was damaged.
    """
    file = folder / RECIPE
    try:
        entries = read_yaml(file)
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "give the folder of a run") from error
    except ValueError as error:
        raise InputError(file, f"is no YAML ({error})", "restore it from a copy") from error
    return recipes.from_dict(entries, str(file))


def write_metrics(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """metrics.csv: a row each validation."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[-1]))
    table.writeheader()
    table.writerows(history)
    write_atomically(folder / METRICS, text.getvalue().encode())


def read(folder: Path) -> Run:
    """A run that was validated at least once.

    Raises:
        InputError: not the folder of such a run, or a file of it that was damaged.
    """
    recipe, history = read_recipe(folder), _read_metrics(folder / METRICS)
    tensors, card = weights_file.read(folder / BEST)
    trained = [t.numel() for key, t in tensors.items() if key.split(".")[-1] not in _COUNTED_ALONG]
    return Run(folder.resolve().name, recipe, history, card, sum(trained))


_COUNTED_ALONG = ("running_mean", "running_var", "num_batches_tracked")  # by batch normalization; no parameters


def _read_metrics(file: Path) -> list[dict[str, float]]:
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8").splitlines()))
        history = [{name: float(number) for name, number in row.items()} for row in rows]
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "wait for the run's first validation") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(file, f"is no table of numbers ({error})", "restore it from a copy") from error
    if not history or not history[0].keys() >= _NEEDED:
        missing = ", ".join(sorted(_NEEDED - history[0].keys())) if history else "every row"
        raise InputError(file, f"{missing} is missing", "restore it from a copy")
    return history


_NEEDED = {"step", "epoch", "lr", "loss_total", "miou", "pixel_accuracy", "images_per_second"}


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
