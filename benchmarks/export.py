"""What exporting is worth on this processor: the network in PyTorch (float32, eager, and with batch normalization
folded), in ONNX Runtime, in OpenVINO, and in OpenVINO in int8, in turns in one run; and their scores on CamVid's val
images.

    python -m benchmarks.export --camvid DIR --json benchmarks/results/export.json

Int8 is calibrated on images of CamVid's train split. Times are of one normalized image to logits at the feature
grid. Needs the extras export and openvino.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

import torch

from benchmarks.measure import environment, interleaved
from danet.data import registry
from danet.evaluate.confusion import Confusion
from danet.model.danet import DANet
from danet.model.fold_batchnorm import fold_batchnorm
from danet.predict.predictor import Predictor
from danet.weights import file as weights_file
from danet.weights import runtimes
from danet.weights.export import to_onnx, to_openvino
from danet.weights.file import Card
from danet.weights.quantize import CALIBRATION_COUNT, calibration_images, load_normalized

EXAMPLE = Path(__file__).parents[1] / "examples/china.jpg"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path, help="a .safetensors file; the package's own if not given")
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--count", type=int, default=CALIBRATION_COUNT, help="images for calibration")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--no-scores", action="store_true", help="times only")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    options = parser.parse_args()
    network, card = weights_file.load(options.weights)
    assert isinstance(network, DANet)
    predictors, entries = {"PyTorch": Predictor(network, card, "cpu")}, {}
    images = calibration_images(options.camvid / "images/train", options.count, card)
    for name, contents in _files(network, card, images):
        with tempfile.TemporaryDirectory() as folder:
            for suffix, content in contents.items():
                Path(folder, "net").with_suffix(suffix).write_bytes(content)
            predictors[name] = Predictor(*runtimes.load(Path(folder, "net").with_suffix(suffix)), "cpu")
        entries[name] = {"bytes": sum(map(len, contents.values()))}
    tensors = load_normalized(EXAMPLE, card)
    ways: dict[str, Callable[[], object]] = {name: _call(p.logits, tensors) for name, p in predictors.items()}
    ways["PyTorch, folded"] = _call(fold_batchnorm(network, tensors).logits, tensors)
    for name, timing in interleaved(ways, options.repeats).items():
        entries.setdefault(name, {})["milliseconds"] = round(1000 * timing.median, 1)
    samples = registry.load("camvid", options.camvid, "val")
    for name, predictor in predictors.items() if not options.no_scores else ():
        confusion = Confusion(len(samples.classes))
        for sample, labels, _ in predictor.predictions(samples):
            confusion.update(sample.labels, labels)
        entries[name]["miou"] = round(confusion.scores().miou, 5)
    for name, found in entries.items():
        times = entries["PyTorch"]["milliseconds"] / found["milliseconds"]
        score = f", mIoU {100 * found['miou']:.2f}" if "miou" in found else ""
        print(f"{name:16} {found['milliseconds']:7.1f} ms, {times:.2f} of PyTorch's speed{score}")
    if options.json is not None:
        versions = {name: version(name) for name in ("onnxruntime", "openvino", "nncf")}
        result = {"environment": environment() | versions, "image": list(tensors.shape[2:]), "ways": entries}
        result["instructions"] = _instructions()
        options.json.write_text(json.dumps(result, indent=2) + "\n")


def _files(network: DANet, card: Card, images: Sequence[Path]) -> Iterator[tuple[str, dict[str, bytes]]]:
    """Name, and suffix -> content; the last suffix is the one to open."""
    graph = to_onnx(network, card)
    yield "ONNX Runtime", {".onnx": graph}
    for name, calibrated in (("OpenVINO", ()), ("OpenVINO int8", images)):
        yield name, dict(zip((".bin", ".xml"), to_openvino(graph, card, calibrated), strict=True))


def _call(logits: Callable, images: torch.Tensor) -> Callable[[], object]:
    return torch.inference_mode()(lambda: logits(images))


def _instructions() -> list[str]:
    """Of those that int8 and bfloat16 are fast by, what the processor has (Linux)."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return sorted(flags & {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16"})


if __name__ == "__main__":
    main()
