"""`danet export`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from danet.cli.parsing import parse
from danet.errors import InputError, printable


@dataclass(frozen=True)
class Export:
    """Export a network to ONNX (one file) or OpenVINO (a pair .xml + .bin; keep them together).

    The file includes everything needed to use it: danet predict, evaluate, robustness and serve accept it in place of a
    weights file.

    Example: danet export runs/camvid/best.safetensors --to onnx
    """

    to: Literal["onnx", "openvino"]
    """the format"""
    weights: tyro.conf.Positional[Path] = Path("default")
    """a .safetensors file; default: the bundled weights"""
    out: Path | None = None
    """the file to write; default: next to the weights file (current folder for the bundled weights)"""
    int8: bool = False
    """quantize the convolutions to int8 (OpenVINO): faster on CPUs with VNNI or AMX"""
    calibration: Path | None = None
    """a folder of images typical of your data, to calibrate int8; no labels needed"""
    calibration_count: int = 100
    """number of calibration images, evenly spaced in the folder"""
    verify: bool = True
    """run the exported file and compare it with the network, on noise (int8: on up to 8 calibration images); if they
    differ, nothing is written and the exit status is 1"""
    images: tuple[Path, ...] = ()
    """more images to compare on"""
    overwrite: bool = False
    """replace existing files"""


def run(args: Sequence[str]) -> int:
    """Run `danet export`."""
    options = parse(Export, args, "export")
    if options.int8 and options.calibration is None:
        raise InputError("--int8", "needs calibration images", "add --calibration FOLDER")
    if options.calibration is not None and not options.int8:
        raise InputError("--calibration", "needs --int8", "add --int8")
    if options.calibration_count < 1:
        what = f"must be at least 1, got {options.calibration_count}"
        raise InputError("calibration_count", what, "for example, use 100")
    from danet.weights.export import export

    report = export(
        options.weights,
        options.out or _default_out(options),
        options.to,
        options.calibration,
        options.calibration_count,
        options.verify,
        options.images,
        options.overwrite,
    )
    for name, difference, largest, equal, pixels in report.compared:
        text = f"logits differ by {difference:.1e} of {largest:.1f}, {equal / pixels:.3%} labels equal"
        print(printable(f"{name}: {text}"))
    if not report.good:
        names = " and ".join(map(str, report.files))
        what = "the exported network differs from the original; nothing was written"
        print(printable(f"error: {names}: {what}"), file=sys.stderr)
        return 1
    for file in report.files:
        print(printable(f"{file}: {file.stat().st_size:,} bytes"))
    return 0


def _default_out(options: Export) -> Path:
    stem = options.weights.with_suffix("")
    return stem.with_name(stem.name + ("-int8" if options.int8 else "") + (".onnx" if options.to == "onnx" else ".xml"))
