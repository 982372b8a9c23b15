"""mIoU of trained weights on CamVid's validation images with attention switched off at test time, and of their twin.

The branches and everything learned with attention stay. Windows have about as many positions as the training crops. The
twin was trained without attention.

    python -m benchmarks.without --camvid DIR --json without.json
    python -m benchmarks.without --camvid DIR --window 448 --json without_windows.json
    python -m benchmarks.without --camvid DIR --twin TWIN --json benchmarks/results/bundled_twin.json
"""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import environment
from benchmarks.summary import GREEK
from benchmarks.validation import confusion_matrices
from danet.evaluate.intervals import mean_iou, paired_difference
from danet.model.device import resolve_device
from danet.predict.protocols import WHOLE
from danet.weights import file as weights_file

OFF = (("position",), ("channel",), ("position", "channel"))


@dataclass(frozen=True)
class Options:
    """Measure the mIoU of trained weights on CamVid with attention switched off at test time.

    Example: python -m benchmarks.without --camvid DIR --json without.json
    """

    camvid: Path
    """folder of CamVid"""
    weights: Path = weights_file.DEFAULT
    """of a network with both modules"""
    window: int | None = None
    """side of the windows in pixels; default: whole images"""
    twin: Path | None = None
    """weights of the same network, trained with alpha and beta held at 0, to compare with"""
    json: JsonFile = None
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""


def run(options: Options) -> dict[str, Any]:
    """Evaluate the weights with both modules, without either, and without both."""
    network, card = weights_file.load(options.weights)
    scales = {name: network.get_parameter(f"{name}.attention.scale").item() for name in GREEK}
    protocol = replace(WHOLE, crop=options.window, stride=2 / 3, windows="shifted")
    _, both = confusion_matrices(options.weights, "camvid", options.camvid, protocol, device=options.device)
    rows = []
    for off in OFF:
        _, matrices = confusion_matrices(options.weights, "camvid", options.camvid, protocol, off, options.device)
        rows.append({"off": off, **paired_difference(matrices, both)})
    if options.twin is not None:
        _, matrices = confusion_matrices(options.twin, "camvid", options.camvid, protocol, device=options.device)
        rows.append({"twin": weights_file.load(options.twin)[1].sha256, **paired_difference(matrices, both)})
    result = {"environment": environment(resolve_device(options.device)), "sha256": card.sha256, "scales": scales}
    return result | {"window": options.window, "miou": float(mean_iou(both.sum(0))), "rows": rows}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines = [", ".join(f"{GREEK[name]} {value:+.2f}" for name, value in result["scales"].items())]
    lines.append(f"with both{'':19} mIoU {100 * result['miou']:.2f}%")
    for row in result["rows"]:
        low, high = (f"{100 * end:+.2f}" for end in row["by_images_95"])
        difference = f"{100 * row['difference']:+.2f} [{low} {high}]"
        words = f"without {' and '.join(row['off'])}" if "off" in row else "twin, trained without"
        lines.append(f"{words:28} mIoU {100 * row['miou']:.2f}%, {difference}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(command.main("without", Options, run, table))
