"""`danet train`."""

import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from danet import recipes
from danet.cli.parsing import parse
from danet.errors import InputError

if TYPE_CHECKING:
    from danet.train.loop import Where


@dataclass(frozen=True)
class Train:
    """Train a recipe, whose every value can be given as an option. Interrupted, it goes on with danet train --resume
    RUN.

    For example: danet train folder --data.root my_images --optim.epochs 40
    """

    recipe: Annotated[recipes.Recipe, tyro.conf.arg(name="")]
    out: Path | None = None
    """the run's folder; runs/RECIPE if not given, with a number if that is taken"""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone (.safetensors with timm's keys), instead of timm's hub"""
    initial_weights: Path | None = None
    """a .safetensors of the same network to begin from, for fine-tuning"""
    dry_run: bool = False
    """build everything, print what the run would be and what memory it needs, and train nothing"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    workers: int = 1
    """processes that load images"""
    cache: Path | None = None
    """keep decoded training images in this folder, uncompressed, and read only the crops of them"""
    tensorboard: bool = False
    """write the curves to RUN/tensorboard too (pip install 'danet[track]')"""
    deterministic: bool = False
    """the same bits in every run on this device, or an error that names the operation which cannot give them"""


@dataclass(frozen=True)
class Resume:
    """Go on with an interrupted run, to the very weights of the uninterrupted one."""

    resume: Path
    """the run's folder"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    workers: int = 1
    """processes that load images"""
    cache: Path | None = None
    """keep decoded training images in this folder, uncompressed, and read only the crops of them"""
    tensorboard: bool = False
    """write the curves to RUN/tensorboard too (pip install 'danet[track]')"""
    deterministic: bool = False
    """the same bits in every run on this device, or an error that names the operation which cannot give them"""


def run(args: Sequence[str]) -> int:
    if any(arg.split("=")[0] == "--resume" for arg in args):
        options = parse(Resume, args, "train")
        from danet.train.loop import Where
        from danet.train.run_folder import read_recipe

        where = Where(options.resume, **_how(options))
        return _train(read_recipe(options.resume), where, resume=True)
    if not args or args[0].startswith("-"):
        if set(args) & {"-h", "--help"}:
            print("usage: danet train RECIPE [options]\n       danet train --resume RUN\n")
            print(f"Recipes: {', '.join(recipes.RECIPES)}")
            print("Every option of a recipe, with its value there: danet train RECIPE --help")
            return 0
        raise InputError("RECIPE", "missing", "danet recipes lists them; or --resume RUN")
    options = parse(Train, args[1:], f"train {args[0]}", Train(recipes.find(args[0])))
    from danet.train.loop import Where

    folder = options.out or _free_folder(args[0])
    where = Where(folder, options.backbone_weights, options.initial_weights, **_how(options))
    with _options_as_here():
        if options.dry_run:
            from danet.train.dry_run import describe

            print(describe(options.recipe, where))
            return 0
        return _train(options.recipe, where, resume=False)


def _train(recipe: recipes.Recipe, where: "Where", resume: bool) -> int:
    from danet.train.loop import train

    result = train(recipe, where, resume)
    if result.stopped_by is not None:
        print(f"stopped; go on with: danet train --resume {where.folder}", file=sys.stderr)
        return 128 + result.stopped_by
    best = where.folder / "best.safetensors"
    print(f"{where.folder}: best validation mIoU {result.miou:.4f}, weights in {best}")
    return 0


@contextmanager
def _options_as_here() -> Iterator[None]:
    """Datasets name the options of danet evaluate."""
    names = {"root": "--data.root", "dataset": "--data.dataset", "split": "--data.train-split or --data.val-split"}

    def renamed(text: str) -> str:
        return re.sub(r"(?<!\S)--(root|dataset|split)\b", lambda found: names[found[1]], text)

    try:
        yield
    except InputError as error:
        where = renamed(error.where) if isinstance(error.where, str) else error.where
        raise InputError(where, error.what, renamed(error.remedy)) from error


def _how(options: Train | Resume) -> dict[str, Any]:
    return {name: getattr(options, name) for name in ("device", "workers", "cache", "tensorboard", "deterministic")}


def _free_folder(name: str) -> Path:
    if "WORLD_SIZE" in os.environ:
        raise InputError("--out", "missing: torchrun's processes share one folder", "give it")
    numbered = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(folder for folder in numbered if not folder.exists())
