"""`danet convert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import parse
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
    """dilations of layer4 that it was trained with; 4 8 16 for the released, 2 4 4 for mmsegmentation's if not given"""
    align_corners: tyro.conf.FlagCreatePairsOff[bool] = False
    """it was trained with align_corners: what is taken for the released if neither is given"""
    no_align_corners: tyro.conf.FlagCreatePairsOff[bool] = False
    """it was trained without: what is taken for mmsegmentation's if neither is given"""
    classes: str | None = None
    """whose class names and colours: a data set's; by their number if not given"""


def run(args: Sequence[str]) -> int:
    options = parse(Convert, args, "convert")
    from danet.deploy.convert import convert

    if options.align_corners and options.no_align_corners:
        raise InputError("--align-corners", "and --no-align-corners cannot both be", "leave one of them out")
    align_corners = options.align_corners if options.align_corners or options.no_align_corners else None
    card = convert(options.source, options.destination, options.layer4_dilations, align_corners, options.classes)
    decided = ", ".join(f"{key} {value}" for key, value in card.network.items())
    print(f"{options.destination}: {decided}; first classes {', '.join(card.classes.names[:3])}")
    return 0
