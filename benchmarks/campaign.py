"""Compare networks on one dataset with one backbone, recipe and number of steps, seed by seed (ablation, baselines).

A run is a folder OUT/NAME-SEED of `danet train`, with PROTOCOL.npz, the confusion matrix of each validation image. A
campaign can be interrupted at any time: the same command reads the finished runs and resumes the unfinished one. Rows
without runs in OUT keep what the JSON has of them, so the rows of a table may be trained on several days or machines.
Nothing is selected on the validation images: each run is evaluated once, at its end.
"""

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from benchmarks.intervals import SEEDS
from benchmarks.measure import environment
from benchmarks.summary import GREEK, SHARES, Measured, Row, summarize
from benchmarks.validation import confusion_matrices
from danet import recipes
from danet.data import registry
from danet.errors import InputError
from danet.evaluate.confusion import Confusion
from danet.files import write_atomically, write_json
from danet.model.device import resolve_device
from danet.predict.protocols import find_protocol
from danet.recipes import Data, Network, Optim, Recipe
from danet.train import checkpoint, run_folder
from danet.train.loop import train
from danet.train.run_folder import RunOptions

SHRINK = 0.8
"""CamVid's 480 x 360 images are resized to 384 x 288, which all strides divide."""

BASE = Recipe(
    about="CamVid in small, to compare networks",
    network=Network("tf_efficientnet_lite0", output_stride=16, width=128, align_corners=False),
    data=Data("camvid", batch=4, crop=(192, 256), scale=(SHRINK, SHRINK), jitter=0.3, size=384),
    optim=Optim(epochs=16, lr=0.01, head_lr_factor=5.0, ema=0.99, warmup=50),
)

_NOTHING: Mapping[str, Any] = {"rows": (), "runs": ()}


@dataclass(frozen=True)
class Options:
    """Train and compare networks on one dataset with one backbone, recipe and number of steps, seed by seed.

    The same command resumes an interrupted campaign.
    """

    root: Path
    """folder of the dataset"""
    dataset: Literal["camvid", "folder"] = "camvid"
    """camvid, or any folder with a dataset.yaml (see `danet init`), whose images keep their size"""
    out: Path = Path("runs/campaign")
    """folder of the runs"""
    json: Path | None = None
    """write all results to this file, again after each run; rows that have no runs keep what it has of them"""
    backbone: str = BASE.network.backbone
    """a timm name"""
    output_stride: int = BASE.network.output_stride
    """stride of the features: 8 or 16"""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone; default: timm's from the Hugging Face hub"""
    epochs: int | None = None
    """number of epochs; default: that of the recipe"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """precision of the training"""
    seeds: int = 1
    """number of seeds, 1 to 10"""
    only: tuple[str, ...] | None = None
    """train only these rows; finished runs of other rows are still read"""
    threads: int | None = None
    """CPU threads; default: torch's choice"""
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""


def base(options: Options) -> Recipe:
    """Return the recipe that all rows share."""
    width = BASE.network.width if options.backbone == BASE.network.backbone else None
    network = replace(BASE.network, backbone=options.backbone, output_stride=options.output_stride, width=width)
    epochs = BASE.optim.epochs if options.epochs is None else options.epochs
    data = replace(BASE.data, dataset=options.dataset, root=options.root)
    if options.dataset == "folder":
        data = replace(data, scale=(1.0, 1.0), size=None)
    return replace(
        BASE,
        about=BASE.about if options.dataset == "camvid" else "a folder in small, to compare networks",
        network=network,
        data=data,
        optim=replace(BASE.optim, epochs=epochs, precision=options.precision),
        validate_every=epochs,
    )


def run(rows: Sequence[Row], options: Options) -> dict[str, Any]:
    """Train and evaluate what is missing, seed by seed, in the order of the rows.

    Returns:
        `{"environment", "recipe", "images", "rows": [...], "runs": [...]}`: a run is a row with one seed, with scores
        as fractions; a row has their mean, spread and differences, and the paper's mIoU in %.

    Raises:
        InputError: an invalid option; a folder with a run of another recipe, or in use by another process.
        SystemExit: after SIGINT or SIGTERM.
    """
    names = [row.name for row in rows]
    if unknown := sorted(set(options.only or ()) - set(names)):
        raise InputError("only", f"{', '.join(unknown)} is unknown", f"use {', '.join(names)}")
    if not 1 <= options.seeds <= SEEDS:
        raise InputError("seeds", f"must be from 1 to {SEEDS}, got {options.seeds}", "choose another number")
    if options.threads:
        torch.set_num_threads(options.threads)
    earlier = _earlier(options)
    seeds = range(1, options.seeds + 1)
    runnable = [row for row in rows if not row.left_out]
    measured: dict[tuple[str, int], Measured] = {}
    for seed, row in ((seed, row) for seed in seeds for row in runnable):
        if (finished := _npz(row, seed, options).exists()) or row.name in (options.only or names):
            measured[row.name, seed] = _measure(row, seed, options)
            if not finished:
                print(f"{row.name} seed {seed}: mIoU {measured[row.name, seed].facts['miou']:.4f}", flush=True)
                if options.json is not None:
                    write_json(options.json, result(rows, measured, options, earlier))
    return result(rows, measured, options, earlier)


def result(
    rows: Sequence[Row],
    measured: Mapping[tuple[str, int], Measured],
    options: Options,
    earlier: Mapping[str, Any] = _NOTHING,
) -> dict[str, Any]:
    """Return the result of `run` for the measurements so far; other rows are those of an earlier result."""
    new = {name for name, _ in measured}
    kept = {row["name"]: row for row in earlier["rows"] if row["name"] not in new}
    return {
        "environment": environment(resolve_device(options.device)),
        "recipe": recipes.to_dict(_shared_recipe(options)),
        **_shared_facts(options),
        "rows": [kept.get(row.name) or summarize(row, measured) for row in rows],
        "runs": [*(run for run in earlier["runs"] if run["name"] in kept), *(each.facts for each in measured.values())],
    }


def _shared_recipe(options: Options) -> Recipe:
    shared = base(options)
    return replace(shared, data=replace(shared.data, root=None))


def _shared_facts(options: Options) -> dict[str, Any]:
    """Return what all rows of a result share, besides the recipe."""
    return {
        "backbone_weights": None if options.backbone_weights is None else options.backbone_weights.name,
        "images": {split: len(registry.load(options.dataset, options.root, split)) for split in ("train", "val")},
    }


def _earlier(options: Options) -> Mapping[str, Any]:
    """Return what the file for the result has from an earlier call.

    Raises:
        InputError: no result of a campaign, or one of another recipe, other backbone weights or other images.
    """
    if options.json is None or not options.json.is_file():
        return _NOTHING
    try:
        read = json.loads(options.json.read_text())
        recipe = recipes.from_dict(read["recipe"], str(options.json))
        same = recipe == _shared_recipe(options) and all(read[k] == v for k, v in _shared_facts(options).items())
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(options.json, "is not the result of a campaign", "choose another `json`") from error
    if not same:
        what = "contains results of another recipe, other backbone weights or other images"
        raise InputError(options.json, what, "choose another `json`")
    return read


def _measure(row: Row, seed: int, options: Options) -> Measured:
    """Read the results of a row and seed from its folder, after training and evaluating it if necessary."""
    run, file = _folder(row, seed, options), _npz(row, seed, options)
    wanted = replace(row.recipe, seed=seed)
    if not (run / run_folder.METRICS).exists():  # written by the validation at the end of the run
        _train(run, wanted, options)
    read = run_folder.read(run)
    _check_same(run, read.recipe, wanted)
    if not file.exists():
        _evaluate(run, file, row, options)
    with np.load(file) as stored:
        names, matrices = stored["names"], stored["matrices"]
    confusion = Confusion(len(read.card.classes))
    confusion.matrix = matrices.sum(0)
    last = read.history[-1]
    pace = last["images_per_second"]  # 0 if the run was killed between its last step and its validation
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
        "attention": {} if row.off else {name: last[name] for name in SHARES if name in last},
        **confusion.scores().as_dict(read.card.classes.names),
    }
    return Measured(names.tolist(), matrices, facts)


def _train(run: Path, recipe: Recipe, options: Options) -> None:
    """Train to the end, from the start or from the last checkpoint."""
    resume = checkpoint.exists(run)
    if resume:
        _check_same(run, run_folder.read_recipe(run), recipe)
    else:
        with run_folder.lock(run):
            for name in (run_folder.RECIPE, run_folder.ENVIRONMENT):
                (run / name).unlink(missing_ok=True)  # left by a run that was killed before its first checkpoint
    run_options = RunOptions(run, backbone_weights=options.backbone_weights, device=options.device)
    ended = train(recipe, run_options, resume=resume)
    if ended.stopped_by is not None:
        raise SystemExit(128 + ended.stopped_by)


def _evaluate(run: Path, file: Path, row: Row, options: Options) -> None:
    """Write the confusion matrix of each validation image."""
    protocol = find_protocol(row.protocol)
    names, matrices = confusion_matrices(
        run / run_folder.BEST, options.dataset, options.root, protocol, row.off, options.device
    )
    content = io.BytesIO()
    np.savez_compressed(content, names=np.array(names), matrices=matrices)
    write_atomically(file, content.getvalue())


def _check_same(run: Path, recipe: Recipe, wanted: Recipe) -> None:
    """Check that a run has the wanted recipe, except for the folder of the images."""
    if replace(recipe, data=replace(recipe.data, root=wanted.data.root)) != wanted:
        raise InputError(run, "contains a run of another recipe", "choose another `out`")


def _folder(row: Row, seed: int, options: Options) -> Path:
    return options.out / f"{row.run or row.name}-{seed}"


def _npz(row: Row, seed: int, options: Options) -> Path:
    return _folder(row, seed, options) / f"{'-without-'.join((row.protocol, *row.off))}.npz"
