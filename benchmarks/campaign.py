"""Networks side by side on CamVid: equal backbone, recipe and budget, seed by seed. What ablation.py and baselines.py
share.

A run is a folder OUT/NAME-SEED as `danet train` makes it, and in it PROTOCOL.npz, the confusion matrix of each
validation image. A campaign can be killed at any time: the same command reads the runs that are finished and goes on
with the one that was interrupted. Nothing is chosen by the validation images: each run is measured once, at its end.
"""

import argparse
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.intervals import SEEDS
from benchmarks.measure import environment
from benchmarks.shown import matrices
from benchmarks.summary import GREEK, Measured, Row, summarize
from danet import recipes
from danet.data import registry
from danet.errors import InputError
from danet.evaluate.confusion import Confusion
from danet.files import write_atomically
from danet.model.device import resolve_device
from danet.predict.protocols import find_protocol
from danet.recipes import Data, Network, Optim, Recipe
from danet.train import checkpoint, run_folder
from danet.train.loop import train
from danet.train.run_folder import RunOptions

SHRINK = 0.8
"""CamVid's 480 x 360 images are brought to 384 x 288, so that every stride divides them."""

BASE = Recipe(
    about="CamVid in small, to compare networks",
    network=Network("tf_efficientnet_lite0", output_stride=16, width=128, align_corners=False),
    data=Data("camvid", batch=4, crop=(192, 256), scale=(SHRINK, SHRINK), jitter=0.3, size=384),
    optim=Optim(epochs=16, lr=0.01, head_lr_factor=5.0, ema=0.99, warmup=50),
)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """The options of every campaign."""
    options = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    options.add_argument("--out", type=Path, default=Path("runs/campaign"), help="folder of the runs")
    options.add_argument("--json", type=Path, help="file for the numbers, written again after each run")
    options.add_argument("--backbone", default=BASE.network.backbone, help="a timm name")
    options.add_argument("--output-stride", type=int, default=BASE.network.output_stride)
    options.add_argument("--backbone-weights", type=Path, help="its ImageNet weights, instead of timm's hub")
    options.add_argument("--epochs", type=int, default=BASE.optim.epochs)
    options.add_argument("--precision", choices=("float32", "bf16"), default=BASE.optim.precision, help="of training")
    options.add_argument("--seeds", type=int, default=1, help=f"1 to {SEEDS}")
    options.add_argument("--only", nargs="+", help="rows to train; those of others that are finished are read")
    options.add_argument("--threads", type=int, help="of each computation; torch's choice if not given")
    options.add_argument("--device", help="cpu or cuda; a GPU if there is one")
    return options


def base(options: argparse.Namespace) -> Recipe:
    """The recipe that all rows share."""
    width = BASE.network.width if options.backbone == BASE.network.backbone else None
    network = replace(BASE.network, backbone=options.backbone, output_stride=options.output_stride, width=width)
    return replace(
        BASE,
        network=network,
        data=replace(BASE.data, root=options.camvid),
        optim=replace(BASE.optim, epochs=options.epochs, precision=options.precision),
        validate_every=options.epochs,
    )


def run(rows: Sequence[Row], options: argparse.Namespace) -> dict[str, Any]:
    """Train and measure what is missing, seed by seed, in the order of the rows, and return the result.

    Returns:
        `{"environment", "recipe", "images", "rows": [...], "runs": [...]}`: a run is one row with one seed, its
        scores fractions; a row is their mean, spread and differences, with the paper's mIoU in %.

    Raises:
        InputError: an option that cannot be; a folder that holds a run of another recipe, or that another process uses.
        SystemExit: by SIGINT or SIGTERM.
    """
    names = [row.name for row in rows]
    if unknown := set(options.only or ()) - set(names):
        raise InputError("--only", f"{', '.join(sorted(unknown))} is no row", f"use {', '.join(names)}")
    if not 1 <= options.seeds <= SEEDS:
        raise InputError("--seeds", f"{options.seeds} is not from 1 to {SEEDS}", "give a number in between")
    if options.threads:
        torch.set_num_threads(options.threads)
    seeds = range(1, options.seeds + 1)
    runnable = [row for row in rows if not row.left_out]
    found: dict[tuple[str, int], Measured] = {}
    for seed, row in ((seed, row) for seed in seeds for row in runnable):
        if (there := _npz(row, seed, options).exists()) or row.name in (options.only or names):
            found[row.name, seed] = _measured(row, seed, options)
            if not there:
                print(f"{row.name} seed {seed}: mIoU {found[row.name, seed].facts['miou']:.4f}", flush=True)
                write(options.json, result(rows, found, options))
    return result(rows, found, options)


def result(
    rows: Sequence[Row], found: Mapping[tuple[str, int], Measured], options: argparse.Namespace
) -> dict[str, Any]:
    """What `run` returns, of what has been measured so far."""
    shared = base(options)
    recipe = recipes.to_dict(replace(shared, data=replace(shared.data, root=None)))
    weights = None if options.backbone_weights is None else options.backbone_weights.name
    return {
        "environment": environment(resolve_device(options.device)),
        "recipe": recipe,
        "backbone_weights": weights,
        "images": registry.DATASETS["camvid"].counts,
        "rows": [summarize(row, found) for row in rows],
        "runs": [measured.facts for measured in found.values()],
    }


def write(path: Path | None, entries: dict[str, Any]) -> None:
    """The JSON, whole or not at all; nothing where no file is named."""
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, (json.dumps(entries, indent=2) + "\n").encode())


def weights_of(row: Row, seed: int, options: argparse.Namespace) -> Path:
    """The weights that a row's run with this seed ended with."""
    return _folder(row, seed, options) / run_folder.BEST


def _measured(row: Row, seed: int, options: argparse.Namespace) -> Measured:
    """Of this row and seed, from its folder; trained and shown the images first where that has not been done."""
    run, file = _folder(row, seed, options), _npz(row, seed, options)
    wanted = replace(row.recipe, seed=seed)
    if not (run / run_folder.METRICS).exists():  # the only validation is the last thing that a run does
        _train(run, wanted, options)
    read = run_folder.read(run)
    _check_same(run, read.recipe, wanted)
    if not file.exists():
        _show(run, file, row, options)
    with np.load(file) as stored:
        names, of_images = stored["names"], stored["matrices"]
    confusion = Confusion(len(read.card.classes))
    confusion.matrix = of_images.sum(0)
    last = read.history[-1]
    pace = last["images_per_second"]  # 0 where the run was killed between its last step and its validation
    facts = {
        "name": row.name,
        "seed": seed,
        "protocol": row.protocol,
        "epochs": wanted.optim.epochs,
        "parameters": read.parameters,
        "seconds": last["step"] * wanted.data.batch / pace if pace else None,
        "scales": {
            name: 0.0 if name in row.off else last[f"{name}_scale"] for name in GREEK if f"{name}_scale" in last
        },
        **confusion.scores().as_dict(read.card.classes.names),
    }
    return Measured(names.tolist(), of_images, facts)


def _train(run: Path, recipe: Recipe, options: argparse.Namespace) -> None:
    """To the end, from the start or from the last checkpoint."""
    begun = checkpoint.exists(run)
    if begun:
        _check_same(run, run_folder.read_recipe(run), recipe)
    else:
        with run_folder.lock(run):
            for name in (run_folder.RECIPE, run_folder.ENVIRONMENT):
                (run / name).unlink(missing_ok=True)  # of a run that was killed before its first checkpoint
    run_options = RunOptions(run, backbone_weights=options.backbone_weights, device=options.device)
    ended = train(recipe, run_options, resume=begun)
    if ended.stopped_by is not None:
        raise SystemExit(128 + ended.stopped_by)


def _show(run: Path, file: Path, row: Row, options: argparse.Namespace) -> None:
    """Write each validation image's confusion matrix."""
    names, found = matrices(run / run_folder.BEST, options.camvid, find_protocol(row.protocol), row.off, options.device)
    content = io.BytesIO()
    np.savez_compressed(content, names=np.array(names), matrices=found)
    write_atomically(file, content.getvalue())


def _check_same(run: Path, found: Recipe, wanted: Recipe) -> None:
    """Where the images lie does not matter."""
    if replace(found, data=replace(found.data, root=wanted.data.root)) != wanted:
        raise InputError(run, "holds a run of another recipe", "give --out another folder")


def _folder(row: Row, seed: int, options: argparse.Namespace) -> Path:
    return options.out / f"{row.run or row.name}-{seed}"


def _npz(row: Row, seed: int, options: argparse.Namespace) -> Path:
    return _folder(row, seed, options) / f"{'-without-'.join((row.protocol, *row.off))}.npz"
