"""The folder of a run, and the options for running it.

Files: recipe.yaml (all settings), environment.json, metrics.csv, last.ckpt and previous.ckpt, best.safetensors,
report.html, batch.jpg and class_pixels.json (what it trains on), and bad.txt if images were skipped.
"""

import contextlib
import csv
import io
import json
import math
import os
import platform
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import yaml

from danet import portability, recipes
from danet.errors import InputError, missing_folder
from danet.files import open_own, read_limited, remove_incomplete, write_atomically, write_json
from danet.recipes import Recipe
from danet.text import shell_path
from danet.train import checkpoint
from danet.visualize.run_page import Run
from danet.weights import file as weights_file
from danet.weights.card import BEST_OF_RUN, peek
from danet.yaml_files import read_yaml

RECIPE, ENVIRONMENT, BEST, METRICS = "recipe.yaml", "environment.json", BEST_OF_RUN, "metrics.csv"
LOCK, SKIPPED, _SCRATCH = ".lock", "bad.txt", ".danet-scratch"
PREVIEW, PIXELS = "batch.jpg", "class_pixels.json"
_ROOT, _OF_RECIPE = "data_root", "data_root_of_recipe"  # in environment.json

_REQUIRED_COLUMNS = {"step", "epoch", "lr", "loss_total", "miou", "pixel_accuracy", "images_per_second"}
_METRICS_BYTES = 64 << 20
_BATCH_NORM_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class RunOptions:
    """Execution options. Apart from the initial weights, none affects the result.

    Args:
        folder: the run folder.
        backbone_weights: a .safetensors file with ImageNet weights of the backbone under timm's keys, used instead of
            the Hugging Face Hub.
        initial_weights: a weights file to start from, or "default"; see `with_network_of` and `load_into`.
        data_root: the folder of the dataset, if it is not that of the recipe, for example because it has moved.
        device: "cpu" or "cuda"; None: a GPU if available.
        workers: number of processes that load images, for each training process.
        checkpoint_seconds: time between checkpoints; the most work that a kill can cost, except for a validation.
        cache: folder for decoded training samples, see `danet.data.cache`; None: no cache.
        trackers: also send the numbers of metrics.csv to these experiment trackers, see `danet.train.trackers`.
        deterministic: reject operations whose results vary between runs on a GPU. On a CPU, results are always
            reproducible with the same number of threads.

    Raises:
        InputError: a negative number; both `initial_weights` and `backbone_weights`.
    """

    folder: Path
    backbone_weights: Path | None = None
    initial_weights: Path | None = None
    data_root: Path | None = None
    device: str | None = None
    workers: int = 1
    checkpoint_seconds: float = 60.0
    cache: Path | None = None
    trackers: tuple[str, ...] = ()
    deterministic: bool = False

    def __post_init__(self):
        if self.initial_weights is not None and self.backbone_weights is not None:
            what = "has no effect beside `initial_weights`, which contain a backbone"
            raise InputError("backbone_weights", what, "leave out one of the two")
        if self.workers < 0:
            what = f"must be 0 or more, got {self.workers}"
            raise InputError("workers", what, "use 0 to load images in the main process")
        if not self.checkpoint_seconds >= 0:
            raise InputError(
                "checkpoint_seconds", f"must be 0 or more, got {self.checkpoint_seconds}", "for example, use 60"
            )


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a run folder for this process, create it if needed, and remove incomplete files of a killed process.

    A folder that was created here and is left without a checkpoint is removed, unless other files are in it. The
    system releases the lock when this process ends, even if its workers live on for some seconds.

    Raises:
        InputError: another process has locked the folder, or it cannot be written to.
    """
    created = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        what = f"cannot create the run folder ({error.strerror})"
        raise InputError(folder, what, "choose another `folder`") from error
    with opened(folder / LOCK, os.O_RDWR | os.O_CREAT) as descriptor:
        _lock_file(descriptor, folder)
        remove_incomplete(folder)
        shutil.rmtree(folder / _SCRATCH, ignore_errors=True)
        try:
            yield
        finally:
            if created and not checkpoint.exists(folder):
                for name in (RECIPE, ENVIRONMENT, SKIPPED):
                    (folder / name).unlink(missing_ok=True)
            if not portability.WINDOWS:
                _remove_lock(folder, created)
    if portability.WINDOWS:  # which removes no open files
        _remove_lock(folder, created)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder in a locked run folder, on its disk; after a kill, `lock` removes it."""
    path = folder / _SCRATCH
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_lock(folder: Path, created: Sequence[Path]) -> None:
    """Remove the lock, and the folders that were created for it, from the inside out."""
    with contextlib.suppress(PermissionError):  # on Windows, another process has opened it meanwhile
        (folder / LOCK).unlink(missing_ok=True)
    for path in created:
        with contextlib.suppress(OSError):  # it is not empty
            path.rmdir()


def _lock_file(descriptor: int, folder: Path) -> None:
    try:
        portability.lock_for_process(descriptor)
        if not os.fstat(descriptor).st_nlink:  # its owner ended and removed the file after we had opened it
            raise BlockingIOError
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
    except BlockingIOError as error:
        owner = os.read(descriptor, 32).decode(errors="replace").strip() or "another"
        what, remedy = f"in use by process {owner}", "wait until it ends, or choose another `folder`"
        raise InputError(folder, what, remedy) from error
    except OSError as error:
        what, remedy = f"cannot lock it ({error.strerror})", "free some space, or choose another `folder`"
        raise InputError(folder, what, remedy) from error


def create(folder: Path, recipe: Recipe, root: Path | None = None, initial_weights: Path | None = None) -> None:
    """Write the recipe and the environment of a new run into a locked folder.

    Args:
        folder: the run folder.
        recipe: its recipe.
        root: the folder of the dataset, if it is not that of the recipe.
        initial_weights: the weights that it starts from, if any.

    Raises:
        InputError: the folder is not empty, or cannot be written to.
    """
    check_unused(folder, recipe)
    start = {}
    if initial_weights is not None and (card := peek(initial_weights)) is not None:
        start["initial_weights"] = {"file": str(initial_weights), "sha256": card.sha256, "license": card.license}
    write_json(folder / ENVIRONMENT, _environment() | _root_entries(recipe, root) | start)
    write_atomically(folder / RECIPE, _to_yaml(recipe))


@contextmanager
def removed_unless(steps: Sized, folder: Path) -> Iterator[None]:
    """Remove what a run has written if it fails before its first step, so that the folder can be used again.

    Args:
        steps: what has an entry for each step.
        folder: the run folder.
    """
    try:
        yield
    except (InputError, KeyboardInterrupt):
        if not steps:
            for name in (RECIPE, ENVIRONMENT, SKIPPED, PREVIEW, PIXELS, checkpoint.LAST, checkpoint.PREVIOUS):
                (folder / name).unlink(missing_ok=True)
        raise


def find_root(folder: Path, recipe: Recipe, given: Path | None = None) -> Path | None:
    """Return the folder of a run's dataset; None means that of the recipe.

    It is the given one, or the recorded one, which does not depend on the working directory, or that of the recipe. If
    that was edited since the other was recorded, it comes first.

    Raises:
        InputError: none is given, and neither of the others exists.
    """
    if given is not None or recipe.data.root is None:
        return given
    recorded, before = recorded_root(folder), _read_environment(folder).get(_OF_RECIPE)
    edited = before not in (None, str(recipe.data.root))
    roots = [recipe.data.root] if recorded is None or edited else [recorded, recipe.data.root]
    if root := next((root for root in roots if root.is_dir()), None):
        return root
    raise missing_folder(roots[0], "if the data of the run has moved, set `root` to its folder")


def recorded_root(folder: Path) -> Path | None:
    """Return the folder of a run's dataset as its environment.json records it, or None."""
    recorded = _read_environment(folder).get(_ROOT)
    return Path(recorded) if isinstance(recorded, str) else None


def record_root(folder: Path, recipe: Recipe, root: Path | None) -> None:
    """Write the folder of a resumed run's dataset into environment.json, if it is another one than before."""
    before, entry = _read_environment(folder), {} if root is None else _root_entries(recipe, root)
    if before | entry != before:
        write_json(folder / ENVIRONMENT, before | entry)


def record_plan(folder: Path, recipe: Recipe, plan: Mapping[str, Any]) -> None:
    """Write the recipe of a new run again, after it was fitted to the time, and why into environment.json."""
    write_json(folder / ENVIRONMENT, {**_read_environment(folder), "time_budget": dict(plan)})
    write_atomically(folder / RECIPE, _to_yaml(recipe))


def planned(recipe: Recipe, plan: Recipe) -> Recipe:
    """Return a recipe with the settings of another one that `danet.train.time_budget.plan` chooses."""
    optim = replace(recipe.optim, steps=plan.optim.steps, warmup=plan.optim.warmup)
    return replace(recipe, validate_every=plan.validate_every, optim=optim)


def identity(folder: Path) -> str:
    """Return a name of the run that no other run has: that of its folder and a number, kept in environment.json."""
    environment = _read_environment(folder)
    if not isinstance(environment.get("id"), str):
        environment["id"] = secrets.token_hex(4)
        write_json(folder / ENVIRONMENT, environment)
    return f"{folder.resolve().name}-{environment['id']}"


def _root_entries(recipe: Recipe, given: Path | None) -> dict[str, str]:
    """Return the entries of environment.json for the folder of a dataset, and for that of the recipe."""
    root = given or recipe.data.root
    of_recipe = {} if recipe.data.root is None else {_OF_RECIPE: str(recipe.data.root)}
    return {} if root is None else {_ROOT: str(root.absolute()), **of_recipe}


def _read_environment(folder: Path) -> dict[str, Any]:
    """Return the content of environment.json; nothing if it is missing or damaged, as it is not needed to resume."""
    try:
        content = json.loads(read_limited(folder / ENVIRONMENT))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def check_unused(folder: Path, recipe: Recipe) -> None:
    """Check that a folder can be used for a new run.

    It may contain a list of skipped images, and the files of the same command killed before its first checkpoint.

    Raises:
        InputError: it contains other files.
    """
    names = sorted(entry.name for entry in folder.iterdir() if entry.name not in (LOCK, SKIPPED))
    if names and not (set(names) <= {RECIPE, ENVIRONMENT} and _same_command(folder, recipe)):
        resumable = (folder / checkpoint.LAST).exists()
        command = f"danet train --resume {shell_path(folder)}"
        remedy = f"choose another `folder`, or continue it with {command}" if resumable else "choose another `folder`"
        raise InputError(folder, f"is not empty: it contains {names[0]}", remedy)


def can_continue(folder: Path, recipe: Recipe) -> bool:
    """Return whether the folder has a checkpoint of the same command, which torchrun may have restarted."""
    return _same_command(folder, recipe) and checkpoint.exists(folder)


def _same_command(folder: Path, recipe: Recipe) -> bool:
    file, environment = folder / RECIPE, _read_environment(folder)
    try:
        if "time_budget" in environment:
            recipe = planned(recipe, read_recipe(folder))
        return environment.get("command") == sys.argv and (not file.exists() or read_limited(file) == _to_yaml(recipe))
    except (OSError, ValueError):
        return False


def _to_yaml(recipe: Recipe) -> bytes:
    return yaml.safe_dump(recipes.to_dict(recipe), sort_keys=False).encode()


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


def read_recipe(folder: Path) -> Recipe:
    """Return the recipe of a run.

    Raises:
        InputError: not a run folder, or an invalid recipe.yaml.
    """
    file = folder / RECIPE
    try:
        entries = read_yaml(file)
    except (FileNotFoundError, NotADirectoryError) as error:
        what = f"not a run folder (no {RECIPE})" if folder.is_dir() else None
        remedy = "specify a folder written by danet train"
        raise InputError(folder, what, remedy) if what else missing_folder(folder, remedy) from error
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "check its permissions") from error
    except ValueError as error:
        raise InputError(file, str(error), "restore it from a copy") from error
    return recipes.from_dict(entries, str(file))


def write_metrics(folder: Path, history: Sequence[dict[str, Any]]) -> None:
    """Write metrics.csv, one row per validation."""
    text = io.StringIO()
    table = csv.DictWriter(text, fieldnames=list(history[-1]), restval=math.nan)
    table.writeheader()
    table.writerows(history)
    write_atomically(folder / METRICS, text.getvalue().encode())


def read(folder: Path) -> Run:
    """Return the content of a run with at least one validation.

    Raises:
        InputError: not the folder of such a run, or an invalid file in it.
    """
    recipe, history = read_recipe(folder), _read_metrics(folder / METRICS)
    tensors, card = weights_file.read(folder / BEST)
    sizes = [tensor.numel() for key, tensor in tensors.items() if key.split(".")[-1] not in _BATCH_NORM_BUFFERS]
    return Run(folder.resolve().name, recipe, history, card, sum(sizes))


def _read_metrics(file: Path) -> list[dict[str, float]]:
    try:
        rows = list(csv.DictReader(read_limited(file, _METRICS_BYTES).decode("utf-8").splitlines()))
        history = [{name: float(number) for name, number in row.items()} for row in rows]
    except OSError as error:
        raise InputError(file, f"cannot read it ({error.strerror})", "wait for the run's first validation") from error
    except (ValueError, TypeError, csv.Error) as error:
        raise InputError(file, f"is not a table of numbers ({error})", "restore it from a copy") from error
    if not history or not history[0].keys() >= _REQUIRED_COLUMNS:
        missing = f"columns {', '.join(sorted(_REQUIRED_COLUMNS - history[0].keys()))}" if history else "rows"
        raise InputError(file, f"has no {missing}", "restore it from a copy")
    return history


@contextmanager
def opened(file: Path, flags: int) -> Iterator[int]:
    """Open a file of a run folder, see `open_own`.

    Raises:
        InputError: it cannot be opened, or may be another file.
    """
    try:
        descriptor = open_own(file, flags)
    except OSError as error:
        what, remedy = f"cannot be opened ({error.strerror})", "remove it, or choose another `folder`"
        raise InputError(file, what, remedy) from error
    try:
        yield descriptor
    finally:
        os.close(descriptor)
