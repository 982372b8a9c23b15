"""The command `danet look`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from danet.cli.parsing import parse
from danet.errors import InputError, printable
from danet.files import check_outputs, write_json
from danet.weights.hub_files import is_address

if TYPE_CHECKING:
    from danet.visualize.attention_answers import Answers
    from danet.visualize.ground_truth import GroundTruth
    from danet.visualize.network_comparison import Comparison
    from danet.visualize.panels import Sheet

WEIGHTS = (".safetensors", ".onnx", ".xml", ".pte")
"""Suffixes of weights and exported networks."""


@dataclass(frozen=True)
class Look:
    """Show where points of an image attend, what channels respond to, and what each module changes.

    For one image, write a page with a map for each point, channel maps and, with --without, the prediction without each
    module. For several images, write one row per image, like Figure 6 of the paper, and with --without also rows like
    Figures 4 and 5. With several --weights, write the predictions of these networks side by side.

    Example: danet look street.jpg --point 120 80 --out street.html
    """

    images: tyro.conf.Positional[tuple[Path, ...]]
    """one or more images"""
    point: Annotated[tyro.conf.UseAppendAction[tuple[tuple[int, int], ...]], tyro.conf.arg(metavar="X Y")] = ()
    """x and y of a point in pixels of the image; repeatable; default: a point in each of the two largest classes"""
    channels: tuple[int, ...] = ()
    """channel maps to show, numbered from 1 as in the paper; default: those that respond most to the points' classes in
    the first image"""
    class_name: Annotated[str | None, tyro.conf.arg(name="class")] = None
    """instead of --channels: show the two channels that respond most to this class in the first image"""
    without: bool = False
    """also show the predictions with each module switched off"""
    truth: tuple[Path, ...] = ()
    """ground truth masks of class ids, one per image, to mark what each module corrects"""
    ignore: int = 255
    """mask value of unlabeled pixels"""
    dataset: str | None = None
    """take the ground truth from this dataset, whose files the images must be: folder, camvid, cityscapes, voc,
    context, context59, coco-stuff or ade20k; default: folder if --root is given"""
    root: Path | None = None
    """folder of the dataset"""
    split: str = "val"
    """val, train, or another split of the dataset"""
    weights: tuple[Path, ...] = ()
    """a .safetensors file or hf://user/repo, or several to compare their predictions; default: the bundled weights"""
    out: Path | None = None
    """output file, .png or .html; default: NAME_look.png, or look.png for several images"""
    json: Path | None = None
    """also write the numbers to this file; - for standard output"""
    overwrite: bool = False
    """replace existing files"""
    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = _separated(parse(Look, args, "look"))
    if not options.images:
        raise InputError("danet look", "no images given", "specify one or more images")
    one = len(options.images) == 1
    out = options.out or Path(f"{options.images[0].stem}_look.png" if one else "look.png")
    if out.suffix.lower() not in (".png", ".html"):
        raise InputError(out, f"unsupported format {out.suffix or '(no suffix)'}", "use .png or .html")
    if options.channels and options.class_name is not None:
        raise InputError("class_name", "conflicts with `channels`", "use only one of them")
    if options.truth and len(options.truth) != len(options.images):
        what = f"{len(options.truth)} masks for {len(options.images)} images"
        raise InputError("truth", what, "specify one mask per image")
    if options.truth and (options.dataset or options.root):
        raise InputError("truth", "conflicts with a dataset", "leave out `truth`, or `dataset` and `root`")
    if options.split != "val" and not (options.dataset or options.root):
        raise InputError("split", "is that of a dataset", "add `dataset` or `root`, or leave it out")
    if options.ignore != 255 and not options.truth:
        raise InputError("ignore", "is for the masks of `truth`", "add `truth`, or leave it out")
    check_outputs(out, options.json, overwrite=options.overwrite, remedy="choose another `out`, or add `overwrite`")
    from danet.files import write_atomically
    from danet.visualize.attention_figure import to_png
    from danet.visualize.attention_page import to_html

    results, sheet = (_compare if len(options.weights) > 1 else _look)(options)
    write_atomically(out, (to_html if out.suffix.lower() == ".html" else to_png)(sheet), options.overwrite)
    if options.json is not None:
        write_json(options.json, {"images": [result.as_dict() for result in results]}, options.overwrite)
    if str(options.json) != "-":
        print(printable(str(out)))
    return 0


def _separated(options: Look) -> Look:
    """Return the options with the images that follow the weights, as in `danet look --weights W IMAGE`, as images."""
    weights, images = list(options.weights[:1]), []
    for path in options.weights[1:]:
        (weights if path.suffix in WEIGHTS or str(path) == "default" or is_address(path) else images).append(path)
    return replace(options, weights=tuple(weights), images=(*options.images, *images))


def _look(options: Look) -> "tuple[Sequence[Answers], Sheet]":
    from danet.predict.predictor import load
    from danet.visualize.attention_answers import look_at
    from danet.visualize.attention_panels import sheet

    predictor = load(options.weights[0] if options.weights else None, options.device)
    questions = options.point, options.channels, options.class_name, options.without, _truths(options)
    answers = look_at(predictor, options.images, *questions)
    return answers, sheet(answers)


def _compare(options: Look) -> "tuple[Sequence[Comparison], Sheet]":
    from danet.predict.predictor import load
    from danet.visualize.network_comparison import compare, distinct_names, sheet

    for name in ("point", "channels", "class_name", "without"):
        if getattr(options, name) not in ((), None, False):
            what = f"needs a single network, but {len(options.weights)} are given"
            raise InputError(name, what, f"specify one file of weights, or leave out `{name}`")
    names = distinct_names(options.weights, "weights")
    predictors = {name: load(path, options.device) for name, path in zip(names, options.weights, strict=True)}
    comparisons = compare(predictors, options.images, _truths(options))
    return comparisons, sheet(comparisons)


def _truths(options: Look) -> "list[GroundTruth]":
    from danet.data import registry
    from danet.visualize.ground_truth import from_dataset, from_masks

    if options.dataset is None and options.root is None:
        return from_masks(options.truth, options.ignore)
    samples = registry.load(options.dataset or "folder", options.root, options.split)
    return from_dataset(samples, options.images)
