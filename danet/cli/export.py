"""`danet export`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

import tyro

from danet.cli.parsing import parse
from danet.errors import InputError, print_note, printable
from danet.weights.hub_files import FILE, is_address
from danet.weights.hub_files import parse as parse_address


@dataclass(frozen=True)
class Export:
    """Export a network to ONNX, OpenVINO (a pair .xml + .bin; keep them together), ExecuTorch or a Triton repository.

    The file includes everything needed to use it: danet predict, evaluate, robustness and serve accept it in place of a
    weights file, unless it has preprocessing inside.

    Example: danet export runs/camvid/best.safetensors --to onnx
    """

    to: Literal["onnx", "openvino", "executorch", "triton"]
    """the format; executorch: a .pte file for phones, which needs --size; triton: a model repository with preprocessing
    inside, for the Triton inference server"""
    weights: tyro.conf.Positional[Path] = Path("default")
    """a .safetensors file, or hf://user/repo on the Hugging Face Hub; default: the bundled weights"""
    out: Path | None = None
    """the file to write, or the folder for Triton; default: next to the weights file (current folder for the bundled
    weights, and those of the Hub)"""
    int8: bool = False
    """quantize the convolutions to int8: faster on CPUs with VNNI or AMX"""
    float16: bool = False
    """half precision, half the size (ONNX and Triton)"""
    preprocessing: bool = False
    """ONNX: take uint8 images B,H,W,3 of any size, and return labels and confidence at that size, as danet predict"""
    size: str | None = None
    """fixed HEIGHTxWIDTH of the only image that it takes, for ExecuTorch, and for programs such as OpenCV; default: any
    size"""
    opset: int = 18
    """version of the ONNX operators, 18 to 23"""
    calibration: Path | None = None
    """a folder of images typical of your data, to calibrate int8; no labels needed"""
    calibration_count: int = 100
    """number of calibration images, evenly spaced in the folder"""
    verify: bool = True
    """run the exported file and compare it with the network, on noise (int8: on up to 8 calibration images); if they
    differ, nothing is written and the exit status is 1"""
    images: tuple[Path, ...] = ()
    """more images to compare on"""
    verify_on: Path | None = None
    """also measure the mIoU of the network and of the exported file, on the val split of this folder with masks and
    dataset.yaml"""
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
    if options.images and not options.verify:
        what = "are images to compare on, but nothing is compared with --no-verify"
        raise InputError("--images", what, "leave out one of them")
    from danet.weights.export import Graph, export

    if options.verify_on is not None:
        from danet.evaluate.exported import check_folder

        check_folder(options.weights, options.verify_on)
    graph = Graph(_size(options.size), options.opset, options.float16, options.preprocessing)
    report = export(
        options.weights,
        options.out or _default_out(options),
        options.to,
        options.calibration,
        options.calibration_count,
        options.verify,
        options.images,
        options.overwrite,
        graph,
    )
    for name, difference, largest, equal, pixels in report.compared:
        text = f"logits differ by {difference:.1e} of {largest:.1f}, {equal / pixels:.3%} labels equal"
        print(printable(f"{name}: {text}"))
    if not report.good:
        names = " and ".join(map(str, report.files))
        what = "the exported network differs from the original; nothing was written"
        print_note(f"error: {names}: {what}")
        return 1
    for file in report.files:
        print(printable(f"{file}: {file.stat().st_size:,} bytes"))
    if options.verify_on is not None:
        from danet.evaluate.exported import measure_export

        whole = options.preprocessing or options.to == "triton"
        for name, miou in measure_export(
            options.weights, report.files[-1], options.verify_on, graph.size, whole
        ).items():
            print(printable(f"{name}: mIoU {100 * miou:.2f}%"))
    return 0


def _size(text: str | None) -> tuple[int, int] | None:
    """Parse HEIGHTxWIDTH."""
    if text is None:
        return None
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() for side in sides):
        raise InputError("size", f"must be HEIGHTxWIDTH, got {text!r}", "for example, use 512x1024")
    return int(sides[0]), int(sides[1])


def _default_out(options: Export) -> Path:
    if not options.weights.name:
        raise InputError(options.weights, "is a folder", "specify a weights file")
    stem = options.weights.with_suffix("")
    if is_address(options.weights):  # whose slashes are not folders
        repository, _, file = parse_address(str(options.weights))
        stem = Path(repository.rpartition("/")[2] if file == FILE else PurePosixPath(file).stem)
    if options.to == "triton":
        return stem.with_name(stem.name + "-triton")
    marks = {
        "int8": options.int8,
        "float16": options.float16,
        "whole": options.preprocessing,
        options.size: options.size is not None,
    }
    name = "-".join([stem.name, *(str(mark) for mark, used in marks.items() if used)])
    from danet.weights.export import FORMATS

    return stem.with_name(name + FORMATS[options.to][1])
