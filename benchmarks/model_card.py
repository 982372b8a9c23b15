"""docs/model_card.md: what the weights that come with the package are, from the card in their file and from an
evaluation of them.

    danet evaluate danet/default.safetensors --dataset camvid --root CAMVID --json benchmarks/results/default.json
    python -m benchmarks.model_card

danet evaluate overwrites nothing: remove the old default.json first.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from textwrap import fill
from typing import Any

from danet import recipes
from danet.data.registry import DATASETS
from danet.errors import InputError
from danet.files import write_atomically
from danet.recipes import Recipe
from danet.weights import file as weights_file
from danet.weights.file import Card

ROOT = Path(__file__).parents[1]
EVALUATION, PAGE = ROOT / "benchmarks/results/default.json", ROOT / "docs/model_card.md"


ELSEWHERE = """![A junction in France](street_overlay.png)

A suburb in France (`examples/street.jpg`): road, sky, trees and houses are found, poles at their feet; paths beside the
road are called road or lawn, lawns tree, a wall and a piece of a house car. A temple by a lake
([china_overlay.png](china_overlay.png)): a building between trees, a part of it is called fence and pavement, and the
lake, which no class stands for, is called sky. Stronger JPEG compression alone turned half of the temple into trees.
`python docs/images.py` draws both."""
"""What was seen on images that are not of CamVid."""

COMMAND = """One command, from ImageNet weights to its end (recipe `camvid`, 1 h 44 min on two cores); in float16:

    danet train camvid --data.root CAMVID --backbone-weights efficientnet_lite0_imagenet.safetensors"""
"""What the card in the file does not tell."""


def main() -> None:
    write_atomically(PAGE, page(weights_file.DEFAULT, json.loads(EVALUATION.read_text())).encode())
    print(PAGE)


def page(file: Path, measured: dict[str, Any]) -> str:
    """The page, in Markdown.

    Args:
        measured: what `danet evaluate --json` wrote of this file.

    Raises:
        InputError: it is of other weights.
    """
    tensors, card = weights_file.read(file)
    if measured["sha256"] != card.sha256:
        raise InputError(EVALUATION, f"measures other weights than {file.name}", "run danet evaluate again")
    size, numbers = file.stat().st_size / 1e6, sum(tensor.numel() for tensor in tensors.values()) / 1e6
    recipe = recipes.from_dict(card.recipe, str(file))
    shown = f"Images are shown to it with their longer side at {card.size} pixels."
    what = f"{_network(recipe)} Classes: {', '.join(card.classes.names)}. {shown}"
    return f"""# Model card: the weights that come with the package

Written by `python -m benchmarks.model_card` from the card in the file and from
[default.json](../benchmarks/results/default.json), the output of

    danet evaluate danet/default.safetensors --dataset camvid --root CAMVID --json benchmarks/results/default.json

## What it is

`danet/default.safetensors`, {size:.1f} MB, {numbers:.2f} million numbers. SHA-256 of the tensors:
`{card.sha256}`.
{fill(what, 120)}

## What it is for

To try this package with, offline: predict, look, serve, export. To begin from when you train on street images of your
own with the same classes (`--initial-weights`). It is research, not a product: nothing that people's safety or rights
depend on may rest on it.

## What it was trained with

CamVid (Brostow et al., ECCV 2008 and Pattern Recognition Letters 2009): the {DATASETS["camvid"].counts["train"]} training
images of the standard split, 480 x 360 pixels, from drives through Cambridge. The backbone began with ImageNet
weights.
{fill(_training(recipe, card), 120)}

{COMMAND}

Every setting stands in the file: `danet.weights.read(danet.weights.DEFAULT)`.

## License

{card.license[:1].upper()}{card.license[1:]}.

## How good it is

{_scores(measured)}

## On images from elsewhere

{ELSEWHERE}

## Limits

- The validation images are of the same city and the same camera as the training images: elsewhere it is worse, by
  how much is not known.
- Worst are {_worst(measured)}: what is thin, small or rare.
- Night, rain, snow, other countries, cameras and viewpoints were not in the training set. An image of no street gets
  street classes too, some with high confidence; what belongs to none of the classes (CamVid's void) is called one of
  them.
"""


def _scores(measured: dict[str, Any]) -> str:
    miou, right, accuracy = (_percent(measured[name]) for name in ("miou", "pixel_accuracy", "mean_accuracy"))
    sure, error = _percent(_confidence(measured)), _percent(measured["calibration"]["ece"])
    images = measured["images"]
    return f"""On CamVid's {images} validation images, whole, scored at their own size: **mIoU {miou} %**,
pixel accuracy {right} %, mean accuracy {accuracy} %. Settings were chosen by that mIoU on these images, so on
others of the same kind it is a little lower.

{_table(("class", "IoU %", "boundary F within 3 pixels, %"), _classes(measured))}

Calibration: of the pixels that it is 80 % sure of, are 80 % right? Over all pixels it is {sure} % sure and {right} %
right; expected calibration error over 15 bins: **{error} %**.

{_table(("confidence", "share of the pixels, %", "mean confidence, %", "right, %"), _bins(measured))}"""


def _network(recipe: Recipe) -> str:
    network = recipe.network
    modules = [f"{name} attention" for name in ("position", "channel") if getattr(network, name)]
    form = "" if not network.channel else f" ({network.channel_form} form)"
    return (
        f"{network.backbone} at output stride {network.output_stride}, "
        f"{' and '.join(modules) or 'no attention'}{form}, {network.width or 'a quarter of the backbone as'} channels."
    )


def _training(recipe: Recipe, card: Card) -> str:
    optim, shown = recipe.optim, recipe.data
    return (
        f"Epochs: {card.metrics.get('epoch', optim.epochs)} of {optim.epochs}; batch {shown.batch}; crops "
        f"{shown.crop[0]} x {shown.crop[1]}; random scale {shown.scale[0]:g} to {shown.scale[1]:g}, flips, "
        f"color jitter {shown.jitter:g}; learning rate {optim.lr:g}, the head's {optim.head_lr_factor:g} times that; "
        f"average of the weights {optim.ema:g}; class weights {recipe.class_weights}; seed {recipe.seed}."
    )


def _classes(measured: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    for name, iou in measured["iou"].items():
        yield name, _percent(iou), _percent(measured["boundary_f"]["classes"][name]["3"])


def _bins(measured: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Those with a pixel."""
    total = sum(row["pixels"] for row in measured["calibration"]["bins"])
    for row in measured["calibration"]["bins"]:
        if row["pixels"]:
            ends = f"{row['low']:.2f} to {row['high']:.2f}"
            yield ends, *map(_percent, (row["pixels"] / total, row["confidence"], row["accuracy"]))


def _confidence(measured: dict[str, Any]) -> float:
    """The mean over all pixels."""
    bins = [row for row in measured["calibration"]["bins"] if row["pixels"]]
    return sum(row["pixels"] * row["confidence"] for row in bins) / sum(row["pixels"] for row in bins)


def _worst(measured: dict[str, Any]) -> str:
    counted = [(iou, name) for name, iou in measured["iou"].items() if iou is not None]
    return ", ".join(f"{name} (IoU {_percent(iou)} %)" for iou, name in sorted(counted)[:3])


def _table(head: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ("---",) * len(head), *rows))


def _percent(fraction: float | None) -> str:
    return "n/a" if fraction is None else f"{100 * fraction:.1f}"


if __name__ == "__main__":
    main()
