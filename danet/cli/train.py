"""`danet train`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from danet import recipes
from danet.cli.parsing import parse
from danet.errors import InputError


@dataclass(frozen=True)
class Train:
    """Train a recipe, whose every value can be given as an option. Interrupted, it goes on with danet train --resume
    RUN.

    For example: danet train folder --data.root my_pictures --optim.epochs 40
    """

    recipe: Annotated[recipes.Recipe, tyro.conf.arg(name="")]
    out: Path | None = None
    """the run's folder; runs/RECIPE if not given, with a number if that is taken"""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone (.safetensors with timm's keys), instead of timm's hub"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    workers: int = 1
    """processes that load pictures"""


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run, to the very weights of the uninterrupted one."""

    resume: Path
    """the run's folder"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    workers: int = 1
    """processes that load pictures"""


def run(args: Sequence[str]) -> int:
    if any(arg.split("=")[0] == "--resume" for arg in args):
        options = parse(Resume, args, "train")
        from danet.train.folder import read_recipe

        return _train(read_recipe(options.resume), options.resume, None, options, resume=True)
    if not args or args[0].startswith("-"):
        if set(args) & {"-h", "--help"}:
            print("usage: danet train RECIPE [options]\n       danet train --resume RUN\n")
            print(f"Recipes: {', '.join(recipes.RECIPES)}")
            print("Every option of a recipe, with its value there: danet train RECIPE --help")
            return 0
        raise InputError("RECIPE", "missing", f"use one of {', '.join(recipes.RECIPES)}, or --resume RUN")
    name = args[0]
    options = parse(Train, args[1:], f"train {name}", Train(recipes.find(name)))
    return _train(options.recipe, options.out or _free_folder(name), options.backbone_weights, options, resume=False)


def _train(
    recipe: recipes.Recipe, folder: Path, backbone_weights: Path | None, options: Train | Resume, resume: bool
) -> int:
    from danet.train.loop import Where, train

    where = Where(folder, backbone_weights, options.device, options.workers)
    result = train(recipe, where, resume)
    if result.stopped_by is not None:
        print(f"stopped; go on with: danet train --resume {folder}", file=sys.stderr)
        return 128 + result.stopped_by
    print(f"{folder}: best validation mIoU {result.miou:.4f}, weights in {folder / 'best.safetensors'}")
    return 0


def _free_folder(name: str) -> Path:
    numbered = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(folder for folder in numbered if not folder.exists())
