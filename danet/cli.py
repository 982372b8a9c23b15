"""The commands: parse, call one function, print. No logic.

Exit status: 0 good, 1 our fault, 2 the user's input, told in one line `error: <file or option>: <what>; <what to do>`
(`--debug` shows the traceback), 130 or 143 stopped by SIGINT or SIGTERM. Torch is imported inside the commands that
need it, so that `--help` answers at once.
"""

import contextlib
import difflib
import io
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

import tyro

from danet import recipes
from danet.errors import InputError

Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Predict:
    """Segment pictures: for each an overlay with legend, its labels as a palette PNG, and JSON with each class's share.

    For example: danet predict street.jpg photos/ --out results
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """pictures, and folders of pictures"""
    weights: Path | None = None
    """a .safetensors file; the weights that come with the package if not given"""
    out: Path = Path("segmented")
    """folder for the results"""
    overwrite: bool = False
    """replace results that exist"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


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


@dataclass(frozen=True)
class Evaluate:
    """Score weights on a data set, over full pictures: mean IoU, IoU of each class, pixel and mean accuracy."""

    weights: tyro.conf.Positional[Path]
    """a .safetensors file"""
    dataset: str = "folder"
    """camvid, folder, toy or toy-context"""
    root: Path | None = None
    """the data set's folder"""
    split: str = "val"
    """train or val"""
    json: Path | None = None
    """write the scores and the confusion matrix to this file too; - for standard output instead of the table"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


@dataclass(frozen=True)
class Convert:
    """Turn a released DANet checkpoint (.pth.tar) into one self-describing .safetensors file. Runs nothing that the
    file holds.
    """

    source: tyro.conf.Positional[Path]
    """the checkpoint, as downloaded (it is not a tar archive)"""
    destination: tyro.conf.Positional[Path]
    """the .safetensors file to write"""
    layer4_dilations: tuple[int, ...] = (4, 8, 16)
    """multi-grid that it was trained with; 2 4 4 for none"""
    align_corners: bool = True
    """bilinear upsampling that it was trained with"""
    classes: str | None = None
    """whose class names and colours: a data set's; by their number if not given"""


def predict(args: Sequence[str]) -> int:
    options = _parse(Predict, args, "predict")
    from danet.predict import find_images, load

    if not options.images:
        raise InputError("IMAGE", "none given", "name pictures or folders of pictures")
    files = find_images(options.images, options.out, options.overwrite)
    predictor = load(options.weights, options.device)
    failed = 0
    for file in files:
        try:
            segmentation = predictor(file)
            written = segmentation.save(options.out, options.overwrite)
        except InputError as error:
            if len(files) == 1:
                raise
            failed += 1
            print(_error_line(error), file=sys.stderr)
            continue
        shares = ", ".join(f"{found['name']} {found['share']:.0%}" for found in segmentation.summary()["classes"][:4])
        print(_printable(f"{written[0]}  {shares}"))
    if failed:
        raise InputError(f"{failed} of {len(files)} pictures", "could not be segmented", "see the lines above")
    return 0


def train(args: Sequence[str]) -> int:
    if any(arg.split("=")[0] == "--resume" for arg in args):
        options = _parse(Resume, args, "train")
        from danet.train.folder import read_recipe

        return _run(read_recipe(options.resume), options.resume, None, options, resume=True)
    if not args or args[0].startswith("-"):
        if set(args) & {"-h", "--help"}:
            print("usage: danet train RECIPE [options]\n       danet train --resume RUN\n")
            print(f"Recipes: {', '.join(recipes.RECIPES)}")
            print("Every option of a recipe, with its value there: danet train RECIPE --help")
            return 0
        raise InputError("RECIPE", "missing", f"use one of {', '.join(recipes.RECIPES)}, or --resume RUN")
    name = args[0]
    options = _parse(Train, args[1:], f"train {name}", Train(recipes.find(name)))
    return _run(options.recipe, options.out or _free_folder(name), options.backbone_weights, options, resume=False)


def _run(
    recipe: recipes.Recipe, folder: Path, backbone_weights: Path | None, options: Train | Resume, resume: bool
) -> int:
    from danet.train.loop import Where
    from danet.train.loop import train as run

    where = Where(folder, backbone_weights, options.device, options.workers)
    result = run(recipe, where, resume)
    if result.stopped_by is not None:
        print(f"stopped; go on with: danet train --resume {folder}", file=sys.stderr)
        return 128 + result.stopped_by
    print(f"{folder}: best validation mIoU {result.miou:.4f}, weights in {folder / 'best.safetensors'}")
    return 0


def evaluate(args: Sequence[str]) -> int:
    options = _parse(Evaluate, args, "evaluate")
    from danet import data
    from danet.evaluate import check_classes
    from danet.evaluate import evaluate as score
    from danet.predict import load

    samples = data.load(options.dataset, options.root, options.split)
    predictor = load(options.weights, options.device)
    check_classes(predictor.card, samples, str(options.weights))
    confusion = score(lambda images: predictor.network(images).fused, predictor.card, samples, predictor.device)
    scores = confusion.scores()
    names = samples.classes.names
    if str(options.json) != "-":
        _print_scores(scores, names, len(samples))
    if options.json is not None:
        result = {
            "weights": str(options.weights),
            "sha256": predictor.card.sha256,
            "dataset": options.dataset,
            "split": options.split,
            "pictures": len(samples),
            **scores.as_dict(names),
            "confusion": confusion.matrix.tolist(),
        }
        _write_json(options.json, result)
    return 0


def convert(args: Sequence[str]) -> int:
    options = _parse(Convert, args, "convert")
    from danet.deploy.convert import convert as run

    card = run(options.source, options.destination, options.layer4_dilations, options.align_corners, options.classes)
    decided = ", ".join(f"{key} {value}" for key, value in card.network.items())
    print(f"{options.destination}: {decided}; first classes {', '.join(card.classes.names[:3])}")
    return 0


def list_recipes(args: Sequence[str]) -> int:
    if args:
        raise InputError(args[0], "danet recipes takes nothing", "use danet train RECIPE --help for a recipe's values")
    for name, recipe in recipes.RECIPES.items():
        settings = f"{recipe.network.backbone} stride {recipe.network.output_stride}, {recipe.optim.epochs} epochs"
        print(f"{name:18} {settings}, batch {recipe.data.batch}")
        print(f"{'':18} {recipe.about}")
    return 0


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "predict": (predict, "pictures or folders -> overlay, labels, JSON"),
    "train": (train, "a recipe, on CamVid, on your own folder, or on drawn scenes"),
    "evaluate": (evaluate, "weights + data set -> mean IoU, IoU of each class"),
    "convert": (convert, "a released DANet checkpoint -> .safetensors"),
    "recipes": (list_recipes, "what can be trained"),
}


def main(args: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit status."""
    args = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in args
    args = [arg for arg in args if arg != "--debug"]
    try:
        if not args or args[0] in ("-h", "--help"):
            print(_usage())
            return 0
        if args[0] == "--version":
            from danet import __version__

            print(__version__)
            return 0
        if args[0] not in COMMANDS:
            near = difflib.get_close_matches(args[0], COMMANDS, n=1)
            raise InputError(
                args[0], "is no command", f"did you mean {near[0]}?" if near else f"use {', '.join(COMMANDS)}"
            )
        return COMMANDS[args[0]][0](args[1:])
    except InputError as error:
        if debug:
            raise
        print(_error_line(error), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 1


def _usage() -> str:
    lines = [f"  danet {name:10} {about}" for name, (_, about) in COMMANDS.items()]
    return "\n".join(
        [
            "danet: Dual Attention Networks for scene segmentation",
            "",
            *lines,
            "",
            "danet COMMAND --help shows a command's options; --debug shows the traceback of an error.",
        ]
    )


def _parse(kind: type[Parsed], args: Sequence[str], command: str, default: Parsed | None = None) -> Parsed:
    """Parse by tyro, its boxed error message made one line."""
    given: dict[str, Any] = {} if default is None else {"default": default}
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(kind, prog=f"danet {command}", args=args, **given)
    except SystemExit as stop:
        if not stop.code:
            raise
        raise _option_error(messages.getvalue(), command) from None


def _option_error(message: str, command: str) -> InputError:
    lines = [line.strip(" │╭╮╰╯─") for line in message.splitlines()]
    lines = [line for line in lines if line][1:]  # the first is the box's title
    text = " ".join(lines)
    near = re.search(r"Perhaps you meant:.*?(--[\w.-]+)", text)
    option = re.search(r"--?[\w.-]+", lines[0]) if lines else None
    remedy = f"did you mean {near[1]}?" if near else f"see danet {command} --help"
    return InputError(option[0] if option else "options", lines[0] if lines else "cannot be read", remedy)


def _free_folder(name: str) -> Path:
    numbered = (Path("runs") / (name if i == 1 else f"{name}-{i}") for i in range(1, 10_000))
    return next(folder for folder in numbered if not folder.exists())


def _print_scores(scores: Any, names: Sequence[str], pictures: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "IoU %")
    for name, iou in zip(names, scores.iou, strict=True):
        table.add_row(name, "n/a" if iou != iou else f"{100 * iou:.2f}")
    Console().print(table)
    left_out = len(names) - scores.counted
    note = f" ({left_out} in neither ground truth nor prediction, left out)" if left_out else ""
    print(f"mIoU {100 * scores.miou:.2f} over {scores.counted} classes{note}, {pictures} full pictures")
    print(f"pixel accuracy {100 * scores.pixel_accuracy:.2f}, mean accuracy {100 * scores.mean_accuracy:.2f}")


def _write_json(path: Path, result: dict[str, Any]) -> None:
    text = json.dumps(result, indent=2)
    if str(path) == "-":
        print(text)
        return
    try:
        path.write_text(text + "\n")
    except OSError as error:
        raise InputError(path, f"cannot be written ({error.strerror})", "give another file") from error


def _error_line(error: InputError) -> str:
    return _printable(f"error: {error}")


def _printable(text: str) -> str:
    """File names may hold newlines, terminal escapes or bytes that are no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogateescape").decode() for c in text)
