"""The memory of testing as published: a 2048 x 1024 image of 171 classes, 8 scales, mirrored, in 1024 x 1024 windows.

    python -m benchmarks.protocol_memory [--protocol NAME] [--at-input-size] [--batch N] [--json FILE]
    python -m benchmarks.protocol_memory --backbone resnet50 --scales 1 --json FILE

Prints the peak resident memory of the whole process as JSON. Without --backbone the network is a 1x1 convolution at
stride 8, so that the memory is that of the protocol; one sum of 171 x 1024 x 2048 scores in float32 is 1.43 GB of it.
"""

import argparse
import json
import resource
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import danet
from danet.model.fold_batchnorm import fold_batchnorm
from danet.predict.inference import segment
from danet.predict.protocols import PROTOCOLS
from danet.predict.sliding_window import Logits

CLASSES, HEIGHT, WIDTH, STRIDE = 171, 1024, 2048, 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--protocol", choices=PROTOCOLS, default="paper-multi")
    parser.add_argument("--at-input-size", action="store_true", help="the network upsamples its logits itself")
    parser.add_argument("--batch", type=int, help="images through the network at once")
    parser.add_argument("--backbone", help="a DANet over this timm network, its weights random")
    parser.add_argument("--scales", type=float, nargs="+", help="these alone of the protocol's")
    parser.add_argument("--json", type=Path, help="write the result here too")
    options = parser.parse_args()

    torch.manual_seed(0)
    classifier = nn.Conv2d(3, CLASSES, 1)

    def logits(images: Tensor) -> Tensor:
        grid = classifier(F.avg_pool2d(images, STRIDE, ceil_mode=True))
        if not options.at_input_size:
            return grid
        return F.interpolate(grid, size=images.shape[-2:], mode="bilinear", align_corners=True)

    shown_to: Logits = logits if options.backbone is None else _danet(options.backbone)
    protocol = PROTOCOLS[options.protocol]
    if options.scales is not None:
        protocol = replace(protocol, scales=tuple(options.scales))
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    before, start = _peak(), time.perf_counter()
    labels, confidence = segment(
        shown_to,
        image,
        (0.485, 0.456, 0.406),
        (0.229, 0.224, 0.225),
        torch.device("cpu"),
        protocol=protocol,
        batch=options.batch,
    )
    assert labels.shape == confidence.shape == (HEIGHT, WIDTH)
    result = {
        "image": [HEIGHT, WIDTH],
        "classes": CLASSES,
        "protocol": options.protocol,
        "scales": protocol.scales,
        "network": f"DANet, {options.backbone}" if options.backbone else "a 1x1 convolution",
        "logits": "at the input's size" if options.at_input_size else f"at stride {STRIDE}",
        "batch": options.batch,
        "before_bytes": before,
        "peak_bytes": _peak(),
        "sum_bytes": CLASSES * HEIGHT * WIDTH * 4,
        "seconds": round(time.perf_counter() - start, 1),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    text = json.dumps(result, indent=2)
    print(text)
    if options.json is not None:
        options.json.write_text(text + "\n")


def _danet(backbone: str) -> Logits:
    """As `danet evaluate` runs it: batch normalization folded, channels_last, logits at the features' size."""
    network = danet.DANet(CLASSES, backbone).eval()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    network = fold_batchnorm(network, torch.zeros(1, 3, 64, 64))
    return lambda images: network.logits(images).fused


def _peak() -> int:
    """Peak resident memory of this process, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    main()
