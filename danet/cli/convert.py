"""`danet convert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import parse
from danet.errors import InputError, printable

_FOREIGN = "layer4_dilations", "align_corners", "no_align_corners", "classes"
"""Options for checkpoints of other programs."""


@dataclass(frozen=True)
class Convert:
    """Convert a checkpoint to a .safetensors file: of a run, of the released DANet or DRANet, or of mmsegmentation.

    No code in the checkpoint is run.

    Examples: danet convert runs/folder/last.ckpt last.safetensors; danet convert DANet101.pth.tar danet101.safetensors
    """

    source: tyro.conf.Positional[Path]
    """RUN/last.ckpt, or a checkpoint as downloaded (.pth.tar files are not tar archives)"""
    destination: tyro.conf.Positional[Path]
    """the .safetensors file to write"""
    raw: bool = False
    """of a run: the weights themselves, not their moving average (optim.ema)"""
    layer4_dilations: tuple[int, ...] | None = None
    """dilations of layer4 in training; default: taken from the config stored in the checkpoint; otherwise 4 8 16
    (released code) or 2 4 4 (mmsegmentation)"""
    align_corners: tyro.conf.FlagCreatePairsOff[bool] = False
    """the network was trained with align_corners; default: taken from the config stored in the checkpoint;
    otherwise on for the released code and for file names containing 769x769"""
    no_align_corners: tyro.conf.FlagCreatePairsOff[bool] = False
    """the network was trained without align_corners"""
    classes: str | None = None
    """use the class names and colors of this dataset; default: those stored in the checkpoint; otherwise those of
    the known dataset with the same number of classes"""


def run(args: Sequence[str]) -> int:
    """Run `danet convert`."""
    options = parse(Convert, args, "convert")
    from danet.train.checkpoint import is_checkpoint

    if is_checkpoint(options.source):
        return _convert_run(options)
    if options.raw:
        raise InputError("raw", f"{options.source} is not a checkpoint of danet train", "leave it out")
    return _convert_foreign(options)


def _convert_run(options: Convert) -> int:
    from danet.train.convert_checkpoint import convert_checkpoint

    given = {name: getattr(options, name) for name in _FOREIGN}
    if name := next((name for name, value in given.items() if value), None):
        raise InputError(name, "checkpoints of danet train say how the network was built", "leave it out")
    card = convert_checkpoint(options.source, options.destination, options.raw)
    scores = f", validation mIoU {card.metrics['miou']:.1%}" if "miou" in card.metrics else ", not validated"
    averaged = card.recipe["optim"]["ema"] and not options.raw
    kind = "moving average of the weights" if averaged else "weights"
    print(printable(f"{options.destination}: {kind} at step {card.metrics['step']}{scores}"))
    return 0


def _convert_foreign(options: Convert) -> int:
    from danet.weights.convert import GIVEN, convert

    if options.align_corners and options.no_align_corners:
        raise InputError("--align-corners", "conflicts with --no-align-corners", "use only one of them")
    align_corners = options.align_corners if options.align_corners or options.no_align_corners else None
    card = convert(options.source, options.destination, options.layer4_dilations, align_corners, options.classes)
    known = card.recipe["known"]
    settings = ", ".join(f"{key} {v}" + (f" ({known[key]})" if key in known else "") for key, v in card.network.items())
    flags = {
        "layer4_dilations": "--layer4-dilations",
        "align_corners": "--no-align-corners" if card.network["align_corners"] else "--align-corners",
        "classes": "--classes NAME",
    }
    others = ", ".join(flag for key, flag in flags.items() if known[key] != GIVEN)
    names = f"first classes {', '.join(card.classes.names[:3])} ({known['classes']})"
    facts = [settings, f"normalization {known['normalization']}", names, *([f"to change: {others}"] if others else [])]
    print(printable(f"{options.destination}: {'; '.join(facts)}"))
    return 0
