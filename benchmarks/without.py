"""What each module's attention is worth to weights that are trained: mIoU on CamVid's validation images with it
switched off in testing. The branches and what was learned beside them stay. In windows attention has as few positions
as it had in training.

    python -m benchmarks.without --camvid DIR --json benchmarks/results/without.json
    python -m benchmarks.without --camvid DIR --window 448 --json benchmarks/results/without_windows.json
"""

import argparse
from dataclasses import replace
from pathlib import Path

from benchmarks.campaign import write
from benchmarks.intervals import by_images, mean_iou
from benchmarks.measure import environment
from benchmarks.shown import matrices
from benchmarks.summary import GREEK
from danet.model.device import resolve_device
from danet.predict.protocols import WHOLE
from danet.weights import file as weights_file

OFF = (("position",), ("channel",), ("position", "channel"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--weights", type=Path, default=weights_file.DEFAULT, help="of a network with both modules")
    parser.add_argument("--window", type=int, help="show windows of so many pixels a side instead of whole images")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--device", help="cpu or cuda; a GPU if there is one")
    options = parser.parse_args()
    network, card = weights_file.load(options.weights)
    scales = {name: network.get_parameter(f"{name}.attention.scale").item() for name in GREEK}
    print(", ".join(f"{GREEK[name]} {value:+.2f}" for name, value in scales.items()))
    rows = []
    shown_by = replace(WHOLE, crop=options.window, stride=2 / 3, windows="shifted")
    _, whole = matrices(options.weights, options.camvid, shown_by, device=options.device)
    print(f"with both{'':15} mIoU {100 * mean_iou(whole.sum(0)):.2f} %", flush=True)
    for off in OFF:
        _, shown = matrices(options.weights, options.camvid, shown_by, off, options.device)
        rows.append(
            {
                "off": off,
                "miou": float(mean_iou(shown.sum(0))),
                "difference": float(mean_iou(shown.sum(0)) - mean_iou(whole.sum(0))),
                "by_images_95": by_images([shown], [whole]),
            }
        )
        low, high = rows[-1]["by_images_95"]
        print(
            f"without {' and '.join(off):20} mIoU {100 * rows[-1]['miou']:.2f} %, "
            f"{100 * rows[-1]['difference']:+.2f} [{100 * low:+.2f} {100 * high:+.2f}]",
            flush=True,
        )
    found = {"environment": environment(resolve_device(options.device)), "sha256": card.sha256, "scales": scales}
    found |= {"window": options.window, "miou": float(mean_iou(whole.sum(0))), "rows": rows}
    write(options.json, found)


if __name__ == "__main__":
    main()
