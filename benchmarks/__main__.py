"""`python -m benchmarks NAME`: the kernel, data and network benchmarks."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from danet.cli.parsing import parse
from danet.errors import InputError
from danet.files import check_outputs, write_json


@dataclass(frozen=True)
class Attention:
    """Position attention by every way, side by side: time, share of the matrix-product rate, memory, error.

    For example: python -m benchmarks attention --positions 2304 9216 --backward
    """

    positions: tuple[int, ...] = (9216, 32768)
    """N of the feature grids"""
    channels: int = 512
    """C; query and key have an eighth"""
    backward: bool = False
    """time a forward and a backward pass together"""
    repeats: int = 5
    """runs of each way; at most 3 for N above 16,384"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    json: Path | None = None
    """write all numbers to this file too; - for standard output instead of the table"""


@dataclass(frozen=True)
class Cost:
    """What position attention costs as images grow, beside the whole network: time, memory, crossing points.

    For example: python -m benchmarks cost --positions 1024 4096 --plot cost.svg
    """

    positions: tuple[int, ...] = (1024, 4096, 9216, 16384, 32768, 65536)
    """N of the feature grids; an image has 64 N pixels"""
    backbone: str = "resnet50"
    """a timm name"""
    channels: int = 512
    """of the attention"""
    network_positions: int = 16384
    """run the whole network for square N up to this one"""
    repeats: int = 3
    """runs of each; one for N above 16,384"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    json: Path | None = None
    """write all numbers to this file too; - for standard output instead of the table"""
    plot: Path | None = None
    """write the curves of time to this SVG file"""


@dataclass(frozen=True)
class Data:
    """A training sample from two 2048 x 1024 PNG files: the released pipeline, ours, and ours with --cache.

    For example: python -m benchmarks data --repeats 40
    """

    pairs: int = 4
    """drawn images that take turns"""
    repeats: int = 20
    """samples of each way"""
    device: str | None = "cpu"
    """named in the result; samples are made on the CPU"""
    json: Path | None = None
    """write all numbers to this file too; - for standard output instead of the table"""


@dataclass(frozen=True)
class Network:
    """The whole network's forward pass, prepared in several ways: time, memory, and what changes in the answer.

    For example: python -m benchmarks network --json network.json
    """

    compiled: bool = False
    """compile too: a minute or more for each way"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    json: Path | None = None
    """write all numbers to this file too; - for standard output instead of the table"""


@dataclass(frozen=True)
class Protocols:
    """Several scales, mirrored, beside the released evaluation loop; and whole images beside windows.

    For example: python -m benchmarks protocols --json protocols.json
    """

    repeats: int = 3
    """runs of each way beside the released loop; the others run once"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""
    json: Path | None = None
    """write all numbers to this file too; - for standard output instead of the table"""


BENCHES: dict[str, type] = {
    "attention": Attention,
    "cost": Cost,
    "data": Data,
    "network": Network,
    "protocols": Protocols,
}
"""name -> its options; benchmarks.NAME has `run(**options) -> result` and `table(result) -> text`."""


def run(args: Sequence[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        lines = [
            f"  python -m benchmarks {name:10} {(kind.__doc__ or '').splitlines()[0]}" for name, kind in BENCHES.items()
        ]
        print(
            "\n".join(
                [
                    "usage: python -m benchmarks NAME [options]",
                    "",
                    "Ratios measured side by side in one run.",
                    "",
                    *lines,
                ]
            )
        )
        return 0
    name = args[0]
    if name not in BENCHES:
        raise InputError(name, "is no benchmark", f"use {', '.join(BENCHES)}")
    options = vars(parse(BENCHES[name], args[1:], name)).copy()
    paths = {key: options.pop(key) for key in ("json", "plot") if key in options}
    check_outputs(*paths.values())
    for key in ("positions", "network_positions", "repeats", "pairs", "channels"):
        least = 8 if key == "channels" else 1  # query and key have an eighth
        given = options.get(key, least)
        if (value := min(given) if isinstance(given, tuple) else given) < least:
            raise InputError(f"--{key.replace('_', '-')}", f"{value} is too few", f"give at least {least}")
    from danet.model.device import resolve_device

    options["device"] = str(resolve_device(options["device"]))
    bench = import_module(f"benchmarks.{name}")
    result = bench.run(**options)
    if paths["json"] is not None:
        write_json(paths["json"], result)
    if str(paths["json"]) != "-":
        print(bench.table(result))
    if paths.get("plot") is not None:
        from danet.files import write_atomically

        write_atomically(paths["plot"], bench.chart(result).encode())
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
