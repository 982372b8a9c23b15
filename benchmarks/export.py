"""Latency and mIoU of exported networks on this CPU: PyTorch, and ONNX Runtime and OpenVINO in several precisions.

    python -m benchmarks.export --camvid DIR --json benchmarks/results/export.json

`--backbone resnet50` measures a network of dense convolutions, whose random weights do not change the times. All run in
turns in one process, from normalized image to logits at the feature grid; mIoU is that of CamVid's
validation images. Int8 is calibrated on CamVid's training images. Needs the extras `export` and `openvino`.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import danet
from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import environment, interleaved
from danet.data import registry
from danet.data.datasets import camvid
from danet.evaluate.confusion import Confusion
from danet.model.danet import DANet
from danet.model.fold_batchnorm import fold_batchnorm
from danet.predict.predictor import Predictor
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.export import to_onnx, to_openvino
from danet.weights.export_variants import quantize_onnx, to_float16
from danet.weights.file import Card
from danet.weights.quantize import CALIBRATION_COUNT, calibration_images, load_normalized

EXAMPLE = Path(__file__).parents[1] / "examples/china.jpg"


@dataclass(frozen=True)
class Options:
    """Measure latency and mIoU of exported networks: PyTorch, and ONNX Runtime and OpenVINO in several precisions.

    Example: python -m benchmarks.export --camvid DIR --json export.json
    """

    camvid: Path
    """folder of CamVid"""
    weights: Path | None = None
    """a .safetensors file; default: the bundled weights"""
    backbone: str | None = None
    """measure DANet on this backbone with random weights instead; no mIoU"""
    count: int = CALIBRATION_COUNT
    """number of images for calibration"""
    repeats: int = 15
    """runs of each"""
    scores: bool = True
    """also measure the mIoU"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Export the network, and measure all variants."""
    network, card = weights_file.load(options.weights) if options.backbone is None else _random(options.backbone)
    assert isinstance(network, DANet)
    predictors, entries = {"PyTorch": Predictor(network, card, "cpu")}, {}
    images = calibration_images(options.camvid / "images/train", options.count, card)
    for name, contents in _files(network, card, images):
        with tempfile.TemporaryDirectory() as folder:
            for suffix, content in contents.items():
                Path(folder, "net").with_suffix(suffix).write_bytes(content)
            file = Path(folder, "net").with_suffix(suffix)
            predictors[name] = danet.load(file)
            if name == "OpenVINO" and runtimes.supports_bfloat16():
                predictors["OpenVINO bfloat16"] = danet.load(file, dtype="bfloat16")
        entries[name] = {"bytes": sum(map(len, contents.values()))}
    tensors = load_normalized(EXAMPLE, card)
    ways: dict[str, Callable[[], object]] = {name: _call(p.logits, tensors) for name, p in predictors.items()}
    ways["PyTorch, folded"] = _call(fold_batchnorm(network, tensors).logits, tensors)
    for name, timing in interleaved(ways, options.repeats).items():
        entries.setdefault(name, {})["milliseconds"] = round(1000 * timing.median, 1)
    samples = registry.load("camvid", options.camvid, "val")
    for name, predictor in predictors.items() if options.scores and options.backbone is None else ():
        confusion = Confusion(len(samples.classes))
        for sample, labels, _ in predictor.predictions(samples):
            confusion.update(sample.labels, labels)
        entries[name]["miou"] = round(confusion.scores().miou, 5)
    versions = {name: version(name) for name in ("onnxruntime", "openvino", "nncf")}
    result = {"environment": environment() | versions, "image": list(tensors.shape[2:]), "ways": entries}
    result["backbone"] = card.network["backbone"]
    return result | {"instructions": _instructions()}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines, base = [], result["ways"]["PyTorch"]["milliseconds"]
    for name, way in result["ways"].items():
        score = f", mIoU {100 * way['miou']:.2f}%" if "miou" in way else ""
        lines.append(
            f"{name:20} {way['milliseconds']:7.1f} ms, {base / way['milliseconds']:.2f} x PyTorch's speed{score}"
        )
    return "\n".join(lines)


def _random(backbone: str) -> tuple[DANet, Card]:
    """Return DANet on a backbone with random weights, and a card for CamVid at a long side of 480."""
    torch.manual_seed(0)
    arguments = {"num_classes": 11, "backbone": backbone}
    return DANet(11, backbone).eval(), Card(arguments, camvid.CLASSES, (0.5,) * 3, (0.5,) * 3, size=480)


def _files(network: DANet, card: Card, images: Sequence[Path]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Yield a name and the contents by suffix; the last suffix is the file to open."""
    graph = to_onnx(network, card)
    yield "ONNX Runtime", {".onnx": graph}
    yield "ONNX Runtime float16", {".onnx": to_float16(graph)}
    yield "ONNX Runtime int8", {".onnx": quantize_onnx(graph, card, images)}
    for name, calibrated in (("OpenVINO", ()), ("OpenVINO int8", images)):
        yield name, dict(zip((".bin", ".xml"), to_openvino(graph, card, calibrated), strict=True))


def _call(logits: Callable, images: torch.Tensor) -> Callable[[], object]:
    return torch.inference_mode()(lambda: logits(images))


def _instructions() -> list[str]:
    """Return the CPU's instruction sets that matter for int8 and bfloat16 (Linux)."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"})


if __name__ == "__main__":
    sys.exit(command.main("export", Options, run, table))
