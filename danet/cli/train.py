"""The command `danet train`."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from danet import recipes
from danet.cli.output import print_classes
from danet.cli.parsing import given_names, option_words, parse, without_options
from danet.errors import InputError, print_note, printable, warn_renamed
from danet.text import shell_path

if TYPE_CHECKING:
    from danet.train.result import Result

_ALIASES = {"folder": "--out"}
_OF_RUNS = ("tensorboard", "tracker", "deterministic")  # options of `Execution` that only runs have


@dataclass(frozen=True)
class Execution:
    """How to run it. None of these options affects the result."""

    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""
    workers: int = 1
    """processes that load images"""
    cache: Path | None = None
    """keep decoded training images in this folder and read only the crops; helps if image decoding is the bottleneck"""
    tensorboard: bool = False
    """also write the curves to RUN/tensorboard; needs the extra track (uv sync --extra track)"""
    tracker: Literal["tensorboard", "wandb", "mlflow", "trackio"] | None = None
    """also send the curves to this experiment tracker, whose package must be installed"""
    deterministic: bool = False
    """make runs on this device reproducible to the bit; an operation that prevents this is an error"""


@dataclass(frozen=True)
class Train:
    """Train a recipe and write a run folder: weights (best.safetensors), metrics.csv, report.html and checkpoints.

    Every value of the recipe is an option. Interrupt with Ctrl-C; continue with danet train --resume RUN.

    Example: danet train folder --data.root my_images --auto
    """

    recipe: Annotated[recipes.Recipe, tyro.conf.arg(name="")]
    out: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """the run folder; default: runs/RECIPE, or runs/RECIPE-2, -3, ... if it exists; with --fold 1/5,
    runs/RECIPE-fold1of5"""
    initial_weights: Path | None = None
    """start from these weights instead of ImageNet's: a .safetensors file, hf://user/repo, or default for the bundled
    ones; their network is used, and outputs of classes that they do not know are new"""
    backbone_weights: Path | None = None
    """ImageNet weights of the backbone: a .safetensors file with timm's parameter names; default: download them from
    the Hugging Face Hub"""
    time_budget: str | None = None
    """choose the number of steps so that the run ends in this time on this machine: 30m, 1.5h, 1h30m"""
    auto: bool = False
    """for your own images: choose --data.size, --data.crop, --optim.accumulate, --workers, --optim.steps and more from
    the images, the memory and the measured speed of this machine, and print the command with the choices; options that
    you give are kept"""
    dry_run: bool = False
    """print the settings, data, steps and required memory without training; does not check the masks (use danet check
    for that)"""
    find_lr: bool = False
    """do not train, but take up to 100 steps with growing learning rates, and suggest one; writes find_lr.png and
    find_lr.json to --out (default: runs/RECIPE-find-lr) and keeps no weights"""
    execution: Annotated[Execution, tyro.conf.arg(name="")] = field(default_factory=Execution)


@dataclass(frozen=True)
class MovedData:
    """Where the data is."""

    root: Path | None = None
    """the folder of the dataset (or --root), if it has moved since the run was started"""


@dataclass(frozen=True)
class Resume:
    """Continue an interrupted run. It ends with exactly the weights of an uninterrupted run.

    The settings are those in RUN/recipe.yaml. The recipe and the data must be those that the run was started with.

    Example: danet train --resume runs/folder
    """

    resume: Path
    """the run folder"""
    data: MovedData = field(default_factory=MovedData)
    execution: Annotated[Execution, tyro.conf.arg(name="")] = field(default_factory=Execution)


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    if any(arg.split("=")[0] == "--resume" for arg in args):
        return _resume(parse(Resume, args, "train"))
    if not args or args[0].startswith("-"):
        if set(args) & {"-h", "--help"}:
            print(_help())
            return 0
        raise InputError(
            "danet train", "RECIPE is missing", "specify a recipe, for example toy; see danet train --help"
        )
    args = _spell_out_loss(args)
    options = parse(Train, args[1:], f"train {args[0]}", Train(recipes.find(args[0])), _ALIASES)
    if options.find_lr:
        return _find_lr(options, args)
    return _choose(options, args) if options.auto else _start(options, args)


def _spell_out_loss(args: Sequence[str]) -> list[str]:
    """Replace danet 0.1.0's --loss, with four weights, by an option per weight."""
    args = list(args)
    if "--loss" in args:
        at = args.index("--loss")
        names = [f"--loss.{name}" for name in ("fused", "position", "channel", "auxiliary")]
        warn_renamed("danet train", "--loss", "--loss.fused, --loss.position, ...")
        args[at : at + 5] = [word for pair in zip(names, args[at + 1 : at + 5], strict=False) for word in pair]
    return args


def _start(options: Train, args: Sequence[str]) -> int:
    from danet.train.start import train
    from danet.train.time_budget import check_steps_are_free

    folder, weights = _folder(options, args[0]), (options.backbone_weights, options.initial_weights)
    if options.dry_run:
        from danet.data import registry
        from danet.train.dry_run import describe
        from danet.train.start import run_options

        if options.time_budget is not None:
            what = "needs the time of some training steps"
            raise InputError("time_budget", what, "leave it out, or leave out `dry_run`")
        given = {"backbone_weights": weights[0], "initial_weights": weights[1], **vars(options.execution)}
        print(describe(options.recipe, run_options(folder, **given)))
        data = options.recipe.data
        if data.root is None and not registry.DATASETS[data.dataset].synthetic:
            note = f"note: --data.root is missing; training needs the folder of the {data.dataset} dataset"
            print(note, file=sys.stderr)
        return 0
    if options.time_budget is not None:
        check_steps_are_free(given_names(args))
    backbone, initial = weights
    execution = {**vars(options.execution), "time_budget": options.time_budget}
    return _report(train(options.recipe, out=folder, backbone_weights=backbone, initial_weights=initial, **execution))


def _folder(options: Train, name: str) -> Path:
    from danet.train.start import unused_folder

    fold = options.recipe.data.fold
    run_name = name if fold is None else "{}-fold{}of{}".format(name, *recipes.parse_fold(fold))
    return options.out or unused_folder(run_name)


def _choose(options: Train, args: Sequence[str]) -> int:
    """Choose the settings that are not given, print them and the command, and train."""
    from danet.train.auto import choose
    from danet.train.dry_run import describe
    from danet.train.loop import exhaust
    from danet.train.start import print_choices, run_options
    from danet.train.time_budget import parse_seconds

    folder = _folder(options, args[0])
    weights = {"backbone_weights": options.backbone_weights, "initial_weights": options.initial_weights}
    seconds = None if options.time_budget is None else parse_seconds(options.time_budget)
    given = given_names(args)
    run = run_options(folder, **weights, **vars(options.execution))
    choice = print_choices(choose(options.recipe, run, given, seconds))
    chosen = [word for name, value in choice.settings.items() for word in option_words(name, value)]
    command = without_options(args, ("--auto", "--dry-run", "--time-budget"))
    print(printable(f"command: danet train {shlex.join([*command, *chosen])}"), file=sys.stderr)
    if options.dry_run:
        print(describe(choice.recipe, choice.options))
        return 0
    return _report(exhaust(choice.start()))


def _find_lr(options: Train, args: Sequence[str]) -> int:
    """Suggest a learning rate, and print the command that uses it."""
    from danet.train.find_lr import PLOT, find_learning_rate
    from danet.train.start import unused_folder

    execution = vars(options.execution)
    own = {"auto": options.auto, "dry_run": options.dry_run}
    for name, value in {**own, **{name: execution[name] for name in _OF_RUNS}}.items():
        if value:
            raise InputError(name, "is not for `find_lr`, which keeps no run", "leave out one of them")
    folder = options.out or unused_folder(f"{args[0]}-find-lr")
    found = find_learning_rate(
        options.recipe,
        out=folder,
        time_budget=options.time_budget,
        backbone_weights=options.backbone_weights,
        initial_weights=options.initial_weights,
        **{name: value for name, value in execution.items() if name not in _OF_RUNS},
    )
    if found.suggestion is None:
        remedy = f"see {folder / PLOT}; check the data with danet check, or try other initial weights"
        raise InputError("find_lr", f"no learning rate from {found.rates[0]:g} on makes the loss fall", remedy)
    print(printable(f"{folder / PLOT}: the loss falls until {found.flat_from:.2g}; suggested: {found.suggestion:g}"))
    command = without_options(args, ("--find-lr", "--out", "--time-budget", "--optim.lr"))
    print(printable(f"next: danet train {shlex.join([*command, '--optim.lr', f'{found.suggestion:g}'])}"))
    return 0


def _resume(options: Resume) -> int:
    from danet.train.start import train

    return _report(train(data=options.data.root, resume=options.resume, **vars(options.execution)))


def _report(result: "Result") -> int:
    if result.stopped_by is not None:
        command = f"danet train --resume {shell_path(result.folder)}"
        print(printable(f"stopped; continue with: {command}"), file=sys.stderr)
        return 128 + result.stopped_by
    weights = result.weights
    if result.final is not None:
        if (confusion := result.final.evaluation.confusion).matrix.any():
            print_classes(confusion, result.final.evaluation.classes.names)
        for line in result.final.warnings:
            print_note(f"warning: {line}")
    print(printable(f"{weights}: best validation mIoU {result.miou:.1%}; report: {result.folder / 'report.html'}"))
    print(printable(f"next: danet predict IMAGE --weights {shell_path(weights)} --out results"))
    return 0


def _help() -> str:
    own = [name for name in recipes.RECIPES if name not in recipes.PUBLISHED]
    examples = {
        "toy": "a first run, without any data",
        "folder --data.root my_images": "your own images; see also danet init",
        "folder --data.root my_images --dry-run": "print the settings and the required memory",
        "camvid --data.root DIR --optim.epochs 40": "change a setting of a recipe",
        "folder --data.root my_images --auto": "choose what suits the images and the machine",
        "toy --find-lr": "suggest a learning rate",
        "--resume runs/toy": "continue an interrupted run",
    }
    lines = [
        "usage: danet train RECIPE [options]",
        "       danet train --resume RUN [options]",
        "",
        "Train a network. A recipe sets the network, the data, the augmentation and the optimizer.",
        "",
        "recipes:",
        *(f"  {name:16} {recipes.RECIPES[name].about}" for name in own),
        f"  and {len(recipes.PUBLISHED)} recipes of the paper and of mmsegmentation; danet recipes lists them",
        "",
        "examples:",
        *(f"  danet train {words:40} {text}" for words, text in examples.items()),
        "",
        "danet train RECIPE --help lists all options with the values of that recipe.",
    ]
    return "\n".join(lines)
