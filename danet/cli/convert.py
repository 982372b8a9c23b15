"""`danet convert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import parse, printable
from danet.errors import InputError


@dataclass(frozen=True)
class Convert:
    """Turn a DANet checkpoint of the released code (.pth.tar) or of mmsegmentation (.pth) into one self-describing
    .safetensors file. Runs nothing that the file holds.
    """

    source: tyro.conf.Positional[Path]
    """the checkpoint, as downloaded (it is not a tar archive)"""
    destination: tyro.conf.Positional[Path]
    """the .safetensors file to write"""
    layer4_dilations: tuple[int, ...] | None = None
    """dilations of layer4 that it was trained with; if not given, those of the config in the file, else 4 8 16 for the
    released and 2 4 4 for mmsegmentation's"""
    align_corners: tyro.conf.FlagCreatePairsOff[bool] = False
    """it was trained with align_corners; if neither is given, as the config in the file says, else with for 769x769 in
    its name and for the released"""
    no_align_corners: tyro.conf.FlagCreatePairsOff[bool] = False
    """it was trained without"""
    classes: str | None = None
    """whose class names and colors: a dataset's; if not given, those in the file, else by their number"""


def run(args: Sequence[str]) -> int:
    options = parse(Convert, args, "convert")
    from danet.weights.convert import GIVEN, convert

    if options.align_corners and options.no_align_corners:
        raise InputError("--align-corners", "and --no-align-corners cannot both be", "leave one of them out")
    align_corners = options.align_corners if options.align_corners or options.no_align_corners else None
    card = convert(options.source, options.destination, options.layer4_dilations, align_corners, options.classes)
    known = card.recipe["known"]
    decided = ", ".join(f"{key} {v}" + (f" ({known[key]})" if key in known else "") for key, v in card.network.items())
    changes = {
        "layer4_dilations": "--layer4-dilations",
        "align_corners": "--no-align-corners" if card.network["align_corners"] else "--align-corners",
        "classes": "--classes NAME",
    }
    others = ", ".join(change for key, change in changes.items() if known[key] != GIVEN)
    names = f"first classes {', '.join(card.classes.names[:3])} ({known['classes']})"
    print(printable(f"{options.destination}: {decided}; {names}" + (f"; to change: {others}" if others else "")))
    return 0
