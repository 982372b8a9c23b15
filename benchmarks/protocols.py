"""Several scales, mirrored, beside the released evaluation loop; and whole images beside windows.
Command: `danet bench protocols`.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from benchmarks.measure import environment, interleaved, peak_memory
from danet.model.danet import DANet
from danet.predict.predictor import Predictor
from danet.predict.protocols import PAPER_MULTI, RELEASED_MULTI_CITYSCAPES, Protocol
from danet.predict.sliding_window import averaged
from danet.weights import file as weights_file

LOOP_SIZE, LOOP_CROP = (256, 512), 256
"""A quarter of Cityscapes and of the published crop: the published windows, on small images."""
WHOLE_SIZE, WHOLE_CROP = (512, 1024), 512
LARGEST_SIZE, LARGEST_SCALE = (1024, 2048), 2.2
STRIDE = 16  # of the default network


def run(device: str = "cpu", repeats: int = 3) -> dict[str, Any]:
    """Seconds, peak bytes and agreement of each way, with the default network on noise.

    Args:
        device: "cpu" or "cuda".
        repeats: of each timing of the first part; the other parts, of large images, run once.
    """
    return {
        "environment": environment(device),
        "released_loop": beside_the_released_loop(device, repeats),
        "whole": whole_beside_windows(device),
        "largest": largest_view(device),
    }


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    loop, whole, largest = result["released_loop"], result["whole"], result["largest"]
    lines = [_title(loop["image"], f"{len(loop['scales'])} scales, mirrored, the released averaging", loop["crop"])]
    for name, row in loop["ways"].items():
        difference = f"largest difference of a probability {row['largest_difference']:.1e}"
        lines.append(f"  {name:20}{row['median_s']:8.1f} s  {row['speedup']:.2f} of the loop's speed  {difference}")
    lines.append(
        _title(whole["image"], f"{len(whole['scales'])} scales, mirrored, mean of probabilities", whole["crop"])
    )
    for name, row in whole["ways"].items():
        lines.append(f"  {name:20}{row['seconds']:8.1f} s  {_megabytes(row['peak_bytes'])}")
    lines.append(f"  {whole['same_labels']:.2%} of the pixels have the same label")
    lines.append(f"{_title(largest['image'], 'whole')} at {largest['scale']}, N = {largest['positions']:,}")
    held = f"{largest['bytes_of_the_map_not_held'] / 1e9:.1f} GB of N x N weights were never held"
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
    """The released code's evaluation restated: one window at a time, its mirrored image apart, every map held whole.

    Args:
        network: images -> logits of their size.
        black: what windows are padded with.
        crop, stride: of the windows, in pixels.
    """
    size = image.shape[2:]
    resize = partial(F.interpolate, mode="bilinear", align_corners=True)

    def padded(part: Tensor) -> Tensor:
        window = black.repeat(1, 1, max(crop, part.shape[2]), max(crop, part.shape[3]))
        window[..., : part.shape[2], : part.shape[3]] = part
        return window

    def answer(window: Tensor) -> Tensor:
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
                seen = answer(padded(part))[..., : part.shape[2], : part.shape[3]]
                scores = visits.new_zeros(1, seen.shape[1], *source.shape[2:]) if scores.ndim == 0 else scores
                scores[..., top : top + crop, left : left + crop] += seen
                visits[..., top : top + crop, left : left + crop] += 1
        total = total + resize((scores / visits)[..., :height, :width], size)
    return total[0]


def beside_the_released_loop(device: str, repeats: int) -> dict[str, Any]:
    """The released multi-scale protocol three times: the released loop, our windows through the same network, and our
    windows as `danet evaluate` runs them.
    """
    predictor, image, black = _prepare(LOOP_SIZE, device)
    network = predictor.network
    assert isinstance(network, DANet)
    network.align_corners = True  # as the released networks bring their logits to the window
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
        | {"largest_difference": (_shares(outputs[name]) - _shares(expected)).abs().max().item()}
        for name in ways
    }
    return {"image": LOOP_SIZE, "crop": LOOP_CROP, "scales": protocol.scales, "ways": rows}


def whole_beside_windows(device: str) -> dict[str, Any]:
    """The paper's scales, mirrored, whole and by windows: seconds, peak bytes, and how many pixels agree."""
    predictor, image, black = _prepare(WHOLE_SIZE, device)
    protocols = {"windows": replace(PAPER_MULTI, crop=WHOLE_CROP), "whole": replace(PAPER_MULTI, crop=None)}
    labels = {}

    def show(name: str) -> None:
        labels[name] = _scores(predictor.logits, image, black, protocols[name]).argmax(0)

    timings = interleaved({name: partial(show, name) for name in protocols}, repeats=1, warmup=0, device=device)
    rows = {
        name: {"seconds": timings[name].median, "peak_bytes": peak_memory(prepare_view, WHOLE_SIZE, protocol, device)}
        for name, protocol in protocols.items()
    }
    agreement = float((labels["whole"] == labels["windows"]).double().mean())
    shown = {"image": WHOLE_SIZE, "crop": WHOLE_CROP, "scales": PAPER_MULTI.scales}
    return shown | {"ways": rows, "same_labels": agreement}


def largest_view(device: str) -> dict[str, Any]:
    """A Cityscapes image whole at the paper's largest scale, one view, not mirrored."""
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
    """A call that brings the default network's scores to an image of noise, a band at a time."""
    predictor, image, black = _prepare(size, device)

    def call() -> None:
        for _ in averaged(predictor.logits, image, black, size, protocol, batch=4):
            pass

    return call


def _prepare(size: tuple[int, int], device: str) -> tuple[Predictor, Tensor, Tensor]:
    """The default network, an image of smooth noise, normalized, and the black pixel."""
    predictor = Predictor(*weights_file.load(), device)
    card = predictor.card
    grain = torch.rand(1, 3, size[0] // 16, size[1] // 16, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (card.mean, card.std))
    image = (F.interpolate(grain, size, mode="bilinear") - mean) / std
    image = image.contiguous(memory_format=torch.channels_last)
    return predictor, image.to(predictor.device), (-mean / std).to(predictor.device)


def _scores(logits: Callable[[Tensor], Tensor], image: Tensor, black: Tensor, protocol: Protocol) -> Tensor:
    bands = averaged(logits, image, black, (image.shape[2], image.shape[3]), protocol, batch=4)
    return torch.cat([band for _, band in bands], dim=1)


def _shares(scores: Tensor) -> Tensor:
    """Sums of exponentials K,H,W as probabilities."""
    return scores / scores.sum(0)


def _title(size: tuple[int, int], what: str, crop: int | None = None) -> str:
    windows = "" if crop is None else f", windows of {crop}"
    return f"{size[1]} x {size[0]}, {what}{windows}"


def _megabytes(peak: int | None) -> str:
    return "ended for want of memory" if peak is None else f"{peak / 1e6:,.0f} MB above the start"
