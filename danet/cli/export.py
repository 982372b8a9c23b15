"""`danet export`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from danet.cli.parsing import parse, printable
from danet.errors import InputError


@dataclass(frozen=True)
class Export:
    """Write a network as one ONNX file, or as an OpenVINO pair .xml + .bin (keep the two together). The file holds all
    that is needed to use it, and every command takes it in place of a weights file.

    For example: danet export runs/camvid/best.safetensors --to onnx
    """

    to: Literal["onnx", "openvino"]
    """whose format"""
    weights: tyro.conf.Positional[Path] = Path("default")
    """a .safetensors file, or default: the weights that come with the package"""
    out: Path | None = None
    """the file to write; beside the weights, for the package's own in this folder, if not given"""
    int8: bool = False
    """quantize the convolutions to int8 (OpenVINO): faster on processors with VNNI or AMX"""
    calibration: Path | None = None
    """a folder of images like those to come, by which int8 is calibrated; no labels are needed"""
    calibration_count: int = 100
    """how many of them, evenly spaced"""
    verify: bool = True
    """run the file and compare it with the network, on noise of two sizes and two batches (int8: on up to 8 of the
    calibration's images); if they differ nothing is written and the exit status is 1"""
    images: tuple[Path, ...] = ()
    """compare on these images too"""
    overwrite: bool = False
    """replace files that exist"""


def run(args: Sequence[str]) -> int:
    options = parse(Export, args, "export")
    if options.int8 and options.calibration is None:
        raise InputError("--int8", "needs images to calibrate by", "add --calibration FOLDER")
    if options.calibration is not None and not options.int8:
        raise InputError("--calibration", "is for int8", "add --int8")
    from danet.weights.export import export

    report = export(
        options.weights,
        options.out or _beside(options),
        options.to,
        options.calibration,
        options.calibration_count,
        options.verify,
        options.images,
        options.overwrite,
    )
    for shown, difference, largest, equal, pixels in report.compared:
        print(
            printable(f"{shown}: logits differ by {difference:.1e} of {largest:.1f}, {equal / pixels:.3%} labels equal")
        )
    if not report.good:
        names = " and ".join(map(str, report.files))
        print(printable(f"error: {names}: would not answer as the network does; nothing was written"), file=sys.stderr)
        return 1
    for file in report.files:
        print(printable(f"{file}: {file.stat().st_size:,} bytes"))
    return 0


def _beside(options: Export) -> Path:
    stem = options.weights.with_suffix("")
    return stem.with_name(stem.name + ("-int8" if options.int8 else "") + (".onnx" if options.to == "onnx" else ".xml"))
