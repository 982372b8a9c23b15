"""`danet convert`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import parse


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


def run(args: Sequence[str]) -> int:
    options = parse(Convert, args, "convert")
    from danet.deploy.convert import convert

    card = convert(
        options.source, options.destination, options.layer4_dilations, options.align_corners, options.classes
    )
    decided = ", ".join(f"{key} {value}" for key, value in card.network.items())
    print(f"{options.destination}: {decided}; first classes {', '.join(card.classes.names[:3])}")
    return 0
