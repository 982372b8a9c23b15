"""Memory of the published test protocol: a 2048 x 1024 image, 171 classes, 8 scales with flip, 1024 x 1024 windows.

    python -m benchmarks.protocol_memory --json FILE
    python -m benchmarks.protocol_memory --backbone resnet50 --scales 1 --json FILE

The result is the peak resident memory of the whole process. Without --backbone the network is a 1x1 convolution at
stride 8, so that the memory is that of the protocol; one sum of 171 x 1024 x 2048 float32 scores takes 1.43 GB of it.
"""

import json
import resource
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import danet
from benchmarks import command
from danet.model.fold_batchnorm import fold_batchnorm
from danet.predict.inference import Inference
from danet.predict.protocols import find_protocol
from danet.predict.sliding_window import Logits

CLASSES, HEIGHT, WIDTH, STRIDE = 171, 1024, 2048, 8


@dataclass(frozen=True)
class Options:
    """Measure the peak memory of the published test protocol on a 2048 x 1024 image with 171 classes.

    Example: python -m benchmarks.protocol_memory --backbone resnet50 --scales 1
    """

    protocol: str = "paper-multi"
    """test-time protocol, see danet evaluate"""
    at_input_size: bool = False
    """the network upsamples its logits itself"""
    batch: int | None = None
    """images per forward pass"""
    backbone: str | None = None
    """timm name of the backbone of an untrained DANet; default: a 1x1 convolution"""
    scales: tuple[float, ...] | None = None
    """scales; default: those of the protocol"""
    json: Path | None = None
    """write the result to this file as well; - prints only the result"""


def run(options: Options) -> dict[str, Any]:
    """Segment a noise image and measure the peak memory of this process."""
    torch.manual_seed(0)
    classifier = nn.Conv2d(3, CLASSES, 1)

    def logits(images: Tensor) -> Tensor:
        grid = classifier(F.avg_pool2d(images, STRIDE, ceil_mode=True))
        if not options.at_input_size:
            return grid
        return F.interpolate(grid, size=images.shape[-2:], mode="bilinear", align_corners=True)

    network: Logits = logits if options.backbone is None else _danet(options.backbone)
    protocol = find_protocol(options.protocol)
    if options.scales is not None:
        protocol = replace(protocol, scales=tuple(options.scales))
    image = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    before, start = _peak(), time.perf_counter()
    mean, std, device = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), torch.device("cpu")
    labels, confidence = Inference(network, mean, std, device, protocol=protocol, batch=options.batch).segment(image)
    assert labels.shape == confidence.shape == (HEIGHT, WIDTH)
    return {
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


def table(result: dict[str, Any]) -> str:
    """Format the result as JSON."""
    return json.dumps(result, indent=2)


def _danet(backbone: str) -> Logits:
    """Return an untrained DANet as `danet evaluate` runs it, with logits at the feature grid."""
    network = danet.DANet(CLASSES, backbone).eval()
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    network = fold_batchnorm(network, torch.zeros(1, 3, 64, 64))
    return lambda images: network.logits(images).fused


def _peak() -> int:
    """Return the peak resident memory of this process in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


if __name__ == "__main__":
    sys.exit(command.main("protocol_memory", Options, run, table))
