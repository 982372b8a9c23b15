"""Multi-scale testing compared with the released evaluation loop, and whole images compared with windows.

python -m benchmarks.protocols --json protocols.json
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import environment, interleaved, peak_memory
from danet.model.danet import DANet
from danet.model.device import resolve_device
from danet.predict.predictor import Predictor
from danet.predict.protocols import PAPER_MULTI, RELEASED_MULTI_CITYSCAPES, Protocol
from danet.predict.sliding_window import averaged
from danet.weights import file as weights_file

LOOP_SIZE, LOOP_CROP = (256, 512), 256
"""A quarter of the sizes of Cityscapes and of the published crop, with the same number of windows."""
WHOLE_SIZE, WHOLE_CROP = (512, 1024), 512
LARGEST_SIZE, LARGEST_SCALE = (1024, 2048), 2.2
STRIDE = 16  # of the default network


@dataclass(frozen=True)
class Options:
    """Compare multi-scale testing with the released evaluation loop, and whole images with windows.

    Example: python -m benchmarks.protocols --json protocols.json
    """

    repeats: int = 3
    """runs of the comparison with the released loop; the others run once"""
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Measure time, peak memory and agreement with the default network on noise."""
    device = str(resolve_device(options.device))
    return {
        "environment": environment(device),
        "released_loop": compare_with_released_loop(device, options.repeats),
        "whole": compare_whole_with_windows(device),
        "largest": largest_view(device),
    }


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    loop, whole, largest = result["released_loop"], result["whole"], result["largest"]
    lines = [
        _title(loop["image"], f"{len(loop['scales'])} scales and flip, averaged as in the released code", loop["crop"])
    ]
    for name, row in loop["ways"].items():
        difference = f"largest difference of probabilities {row['largest_difference']:.1e}"
        lines.append(f"  {name:20}{row['median_s']:8.1f} s  {row['speedup']:.2f} x the speed  {difference}")
    lines.append(
        _title(whole["image"], f"{len(whole['scales'])} scales and flip, mean of the probabilities", whole["crop"])
    )
    for name, row in whole["ways"].items():
        lines.append(f"  {name:20}{row['seconds']:8.1f} s  {_megabytes(row['peak_bytes'])}")
    lines.append(f"  {whole['same_labels']:.2%} of the pixels have the same label in both")
    lines.append(f"{_title(largest['image'], 'whole')} at {largest['scale']}, N = {largest['positions']:,}")
    held = f"{largest['bytes_of_the_map_not_held'] / 1e9:.1f} GB of N x N weights were not stored"
    lines.append(f"  {largest['seconds']:.1f} s  {_megabytes(largest['peak_bytes'])}; {held}")
    return "\n".join(lines)


def released_loop(
    network: Callable[[Tensor], Tensor],
    image: Float[Tensor, "1 3 H W"],
    black: Float[Tensor, "1 3 1 1"],
    crop: int,
    stride: int,
    scales: tuple[float, ...],
) -> Float[Tensor, "K H W"]:
    """Evaluate as the released code does: one window and one orientation at a time, with full-size score maps.

    Args:
        network: images -> logits of the same size.
        image: normalized.
        black: the pixel for padding.
        crop: side of the windows in pixels.
        stride: distance of the windows in pixels.
        scales: of the image.
    """
    size = image.shape[2:]
    resize = partial(F.interpolate, mode="bilinear", align_corners=True)

    def padded(part: Tensor) -> Tensor:
        window = black.repeat(1, 1, max(crop, part.shape[2]), max(crop, part.shape[3]))
        window[..., : part.shape[2], : part.shape[3]] = part
        return window

    def exponentials(window: Tensor) -> Tensor:
        return (network(window) + network(window.flip(-1)).flip(-1)).exp()

    total = torch.zeros(())
    for scale in scales:
        long = math.ceil(max(size) * scale)
        height, width = (int(side * long / max(size) + 0.5) for side in size)
        source = padded(resize(image, (height, width)))
        below, right = (math.ceil((side - crop) / stride) + 1 for side in source.shape[2:])
        scores, visits = torch.zeros(()), source.new_zeros(1, 1, *source.shape[2:])
        for top in range(0, below * stride, stride):
            for left in range(0, right * stride, stride):
                part = source[..., top : top + crop, left : left + crop]
                window = exponentials(padded(part))[..., : part.shape[2], : part.shape[3]]
                scores = visits.new_zeros(1, window.shape[1], *source.shape[2:]) if scores.ndim == 0 else scores
                scores[..., top : top + crop, left : left + crop] += window
                visits[..., top : top + crop, left : left + crop] += 1
        total = total + resize((scores / visits)[..., :height, :width], size)
    return total[0]


def compare_with_released_loop(device: str, repeats: int) -> dict[str, Any]:
    """Compare the released multi-scale loop with ours, on the same network and as `danet evaluate` runs it."""
    predictor, image, black = _prepare(LOOP_SIZE, device)
    network = predictor.network
    assert isinstance(network, DANet)
    network.align_corners = True  # as in the released networks
    protocol = replace(RELEASED_MULTI_CITYSCAPES, crop=LOOP_CROP, long_side=max(LOOP_SIZE))
    stride = int(LOOP_CROP * protocol.stride)
    ways = {
        "released loop": lambda: released_loop(
            lambda images: network(images).fused, image, black, LOOP_CROP, stride, protocol.scales
        ),
        "ours, same network": lambda: _scores(lambda images: network.logits(images).fused, image, black, protocol),
        "ours": lambda: _scores(predictor.logits, image, black, protocol),
    }
    with torch.inference_mode():
        expected = ways["released loop"]()
        outputs = {name: way() for name, way in ways.items()}
        timings = interleaved(ways, repeats, warmup=0, device=device)
    base = timings["released loop"].median
    rows = {
        name: timings[name].as_dict()
        | {"speedup": base / timings[name].median}
        | {"largest_difference": (_probabilities(outputs[name]) - _probabilities(expected)).abs().max().item()}
        for name in ways
    }
    return {"image": LOOP_SIZE, "crop": LOOP_CROP, "scales": protocol.scales, "ways": rows}


def compare_whole_with_windows(device: str) -> dict[str, Any]:
    """Compare time, peak memory and labels of whole images and windows, at the paper's scales with flips."""
    predictor, image, black = _prepare(WHOLE_SIZE, device)
    protocols = {"windows": replace(PAPER_MULTI, crop=WHOLE_CROP), "whole": replace(PAPER_MULTI, crop=None)}
    labels = {}

    def predict(name: str) -> None:
        labels[name] = _scores(predictor.logits, image, black, protocols[name]).argmax(0)

    timings = interleaved({name: partial(predict, name) for name in protocols}, repeats=1, warmup=0, device=device)
    rows = {
        name: {"seconds": timings[name].median, "peak_bytes": peak_memory(prepare_view, WHOLE_SIZE, protocol, device)}
        for name, protocol in protocols.items()
    }
    agreement = float((labels["whole"] == labels["windows"]).double().mean())
    setting = {"image": WHOLE_SIZE, "crop": WHOLE_CROP, "scales": PAPER_MULTI.scales}
    return setting | {"ways": rows, "same_labels": agreement}


def largest_view(device: str) -> dict[str, Any]:
    """Measure a whole Cityscapes image at the paper's largest scale, without flip."""
    protocol = Protocol(scales=(LARGEST_SCALE,))
    call = prepare_view(LARGEST_SIZE, protocol, device)
    seconds = interleaved({"whole": call}, repeats=1, warmup=0, device=device)["whole"].median
    height, width = (math.ceil(math.ceil(side * LARGEST_SCALE) / STRIDE) for side in LARGEST_SIZE)
    return {
        "image": LARGEST_SIZE,
        "scale": LARGEST_SCALE,
        "positions": height * width,
        "bytes_of_the_map_not_held": 4 * (height * width) ** 2,
        "seconds": seconds,
        "peak_bytes": peak_memory(prepare_view, LARGEST_SIZE, protocol, device),
    }


def prepare_view(size: tuple[int, int], protocol: Protocol, device: str) -> Callable[[], object]:
    """Return a call that computes the default network's scores of a noise image, a tile at a time."""
    predictor, image, black = _prepare(size, device)

    def call() -> None:
        for _ in averaged(predictor.logits, image, black, size, protocol, batch=4):
            pass

    return call


def _prepare(size: tuple[int, int], device: str) -> tuple[Predictor, Tensor, Tensor]:
    """Return the default network, a normalized image of smooth noise, and the black pixel."""
    predictor = Predictor(*weights_file.load(), device)
    card = predictor.card
    grain = torch.rand(1, 3, size[0] // 16, size[1] // 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
    image = (F.interpolate(grain, size, mode="bilinear") - mean) / std
    image = image.contiguous(memory_format=torch.channels_last)
    return predictor, image.to(predictor.device), (-mean / std).to(predictor.device)


def _scores(logits: Callable[[Tensor], Tensor], image: Tensor, black: Tensor, protocol: Protocol) -> Tensor:
    parts = averaged(logits, image, black, (image.shape[2], image.shape[3]), protocol, batch=4)
    return torch.cat([scores for _, _, scores in parts], dim=1)


def _probabilities(scores: Tensor) -> Tensor:
    """Normalize sums of exponentials K,H,W."""
    return scores / scores.sum(0)


def _title(size: tuple[int, int], what: str, crop: int | None = None) -> str:
    windows = "" if crop is None else f", windows of {crop}"
    return f"{size[1]} x {size[0]}, {what}{windows}"


def _megabytes(peak: int | None) -> str:
    return "killed for lack of memory" if peak is None else f"{peak / 1e6:,.0f} MB peak memory"


if __name__ == "__main__":
    sys.exit(command.main("protocols", Options, run, table))
