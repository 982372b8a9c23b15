"""The generated parts of docs/model_card.md: facts from the card of the bundled weights, and their evaluation.

    danet evaluate danet/default.safetensors --dataset camvid --root CAMVID --json benchmarks/results/default.json
    python -m benchmarks.tables

danet evaluate never overwrites a file: remove the old default.json first.
"""

from functools import cache
from textwrap import fill
from typing import Any

from benchmarks.markdown import markdown, megabytes, percent, read
from danet import recipes
from danet.data.registry import DATASETS
from danet.errors import InputError
from danet.recipes import Recipe
from danet.weights import file as weights_file
from danet.weights.file import Card


def network() -> str:
    """Return the architecture, size, checksum and classes."""
    card, recipe, count = _weights()
    net = recipe.network
    modules = [f"{name} attention" for name in ("position", "channel") if getattr(net, name)]
    form = f" ({net.channel_form} form)" if net.channel else ""
    decoder = f"; a gated decoder up to stride {net.decoder_stride}" if net.decoder else ""
    text = (
        f"{net.backbone}; {' and '.join(modules) or 'no attention'}{form} at stride {net.output_stride}, "
        f"{net.width or 'a quarter of the backbone as'} channels{decoder}. Classes: {', '.join(card.classes.names)}. "
        f"Images are resized so that the longer side has {card.size} pixels."
    )
    size = megabytes(weights_file.DEFAULT.stat().st_size, 1)
    file = f"`danet/default.safetensors`: {size} MB, {count / 1e6:.2f} million values. SHA-256 of the tensors:"
    return f"\n{file}\n`{card.sha256}`.\n\n{fill(text, 120)}\n\n"


def training() -> str:
    """Return the training set and the settings."""
    card, recipe, _ = _weights()
    optim, data = recipe.optim, recipe.data
    epoch, images = card.metrics.get("epoch", optim.epochs), DATASETS["camvid"].counts["train"]
    text = (
        f"CamVid (Brostow et al., ECCV 2008 and Pattern Recognition Letters 2009): the {images} "
        f"training images of the standard split, 480 x 360 pixels, recorded in Cambridge. {epoch} of {optim.epochs} "
        f"epochs; batch size {data.batch}; crops of {data.crop[0]} x {data.crop[1]}; random scale {data.scale[0]:g} to "
        f"{data.scale[1]:g}; random flips; color jitter {data.jitter:g}; "
        f"{'photometric distortion; ' * data.photometric}{data.degrade:.0%} of the crops degraded; "
        f"{data.rare:.0%} of the crops around rare classes; {optim.algorithm}, learning rate {optim.lr:g}, "
        f"{optim.head_lr_factor:g} times that for the head; "
        f"weight average (EMA) {optim.ema:g}; class weights: {recipe.class_weights}; weight of Lovasz-Softmax "
        f"{recipe.criterion.lovasz:g}, of the attention loss {recipe.loss.attention:g}; seed {recipe.seed}. "
        f"The logits are divided by {card.metrics['temperature']:.2f}."
    )
    return f"\n{fill(text, 120)}\n\n"


def license_terms() -> str:
    """Return the license in the card."""
    text = _weights()[0].license
    return f"\n{text[:1].upper()}{text[1:]}.\n\n"


def scores() -> str:
    """Return the scores over all classes."""
    result = _evaluation()
    miou, pixels, classes = (percent(result[name]) for name in ("miou", "pixel_accuracy", "mean_accuracy"))
    text = (
        f"On CamVid's {result['images']} full validation images, at their original size: **mIoU {miou}%**, pixel "
        f"accuracy {pixels}%, mean accuracy {classes}%."
    )
    return f"\n{fill(text, 120)}\n\n"


def classes() -> str:
    """Return IoU and boundary F of each class."""
    result = _evaluation()
    rows = [
        (name, percent(iou), percent(result["boundary_f"]["classes"][name]["3"])) for name, iou in result["iou"].items()
    ]
    return markdown(("class", "IoU, %", "boundary F within 3 pixels, %"), rows)


def calibration() -> str:
    """Return mean confidence, accuracy, calibration error, and the bins that contain pixels."""
    result = _evaluation()
    bins = [row for row in result["calibration"]["bins"] if row["pixels"]]
    total = sum(row["pixels"] for row in bins)
    confidence = sum(row["pixels"] * row["confidence"] for row in bins) / total
    text = (
        f"Mean confidence over all pixels {percent(confidence)}%, accuracy {percent(result['pixel_accuracy'])}%, "
        f"expected calibration error over 15 bins **{percent(result['calibration']['ece'])}%**."
    )
    rows = [
        (
            f"{row['low']:.2f} to {row['high']:.2f}",
            *map(percent, (row["pixels"] / total, row["confidence"], row["accuracy"])),
        )
        for row in bins
    ]
    head = ("confidence", "share of the pixels, %", "mean confidence, %", "accuracy, %")
    return f"\n{fill(text, 120)}\n{markdown(head, rows)}"


def worst_classes() -> str:
    """Return the three classes with the lowest IoU."""
    rated = sorted((iou, name) for name, iou in _evaluation()["iou"].items() if iou is not None)
    return f"\nThe worst classes are {', '.join(f'{name} (IoU {percent(iou)}%)' for iou, name in rated[:3])}.\n\n"


@cache
def _weights() -> tuple[Card, Recipe, int]:
    tensors, card = weights_file.read(weights_file.DEFAULT)
    recipe = recipes.from_dict(card.recipe, str(weights_file.DEFAULT))
    return card, recipe, sum(tensor.numel() for tensor in tensors.values())


def _evaluation() -> dict[str, Any]:
    result, card = read("default"), _weights()[0]
    if result["sha256"] != card.sha256:
        what = f"measures other weights than {weights_file.DEFAULT.name}"
        raise InputError("benchmarks/results/default.json", what, "run danet evaluate again")
    return result


def other_cities() -> str:
    """Return mIoU on streets of other cities, next to the weights of 0.1.0."""
    names = {"default.safetensors": "bundled weights", "0.1.0.safetensors": "those of 0.1.0"}
    titles = {"idd_lite": "IDD Lite (India)", "labelmefacade": "LabelMeFacade"}
    rows = [
        (
            f"{titles[row['dataset']]}, {row['images']} images",
            names[row["weights"]],
            percent(row["miou"]),
            ", ".join(f"{name} {percent(iou)}" for name, iou in row["iou"].items()),
        )
        for row in read("other_cities")["rows"]
    ]
    return markdown(("", "", "mIoU, %", "IoU, %"), rows)
