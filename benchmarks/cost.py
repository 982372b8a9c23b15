"""What position attention costs as images grow, beside the whole network: time, memory, and where the curves cross.
Command: `danet bench cost`.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch

from benchmarks import attention
from benchmarks.chart import Curve, loglog
from benchmarks.measure import announce, available_memory, environment, interleaved, peak_memory
from danet.model.attention_kernels import attention_bytes
from danet.model.danet import DANet

STRIDE = 8
"""Pixels of the image to a position, each way."""

MEMORIES = (4e9, 8e9, 16e9, 24e9, 80e9)
"""Bytes for which `run` says at what N plain attention fills them."""


def run(
    positions: Sequence[int] = (1024, 4096, 9216, 16384, 32768, 65536),
    backbone: str = "resnet50",
    channels: int = 512,
    network_positions: int = 16384,
    repeats: int = 3,
    device: str = "cpu",
) -> dict[str, Any]:
    """Forward passes of one image: plain and tiled attention, and DANet on an image with that many positions.

    Args:
        positions: N = H*W of the feature grid; the image has 64 N pixels.
        channels: C of the attention.
        network_positions: the network is run for square N up to this one.
        repeats: runs that count up to N = 16,384, after one that does not; above there is one run.

    Returns:
        `{"environment", "backbone", "channels", "sizes": [{"positions", "plain", "tiled", "network"}], "crossings",
        "plain_fills"}`; what was not run is `{"left_out": why}`.
    """
    sizes = []
    for n in positions:
        announce(f"{n:,} positions")
        sizes.append(_size(n, backbone, channels, n <= network_positions, repeats, device))
    result = {"environment": environment(device), "backbone": backbone, "channels": channels, "sizes": sizes}
    return result | {"crossings": crossings(sizes), "plain_fills": {b: filled_at(b, channels) for b in MEMORIES}}


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    lines = [f"{'N':>7}  " + "".join(f"{name:>24}" for name in ("plain s, MB", "tiled s, MB", "network s, MB"))]
    for size in result["sizes"]:
        cells = [_cell(size[name]) for name in ("plain", "tiled", "network")]
        lines.append(f"{size['positions']:>7,}  " + "".join(f"{cell:>24}" for cell in cells))
    for text, n in result["crossings"].items():
        lines.append(f"{text}: " + ("nowhere in these sizes" if n is None else f"from N = {n:,.0f}"))
    filled = ", ".join(f"{size / 1e9:g} GB at N = {n:,}" for size, n in result["plain_fills"].items())
    return "\n".join([*lines, f"plain attention fills {filled}"])


def chart(result: dict[str, Any], what: str = "median_s") -> str:
    """The curves as an SVG text; `what` is "median_s" or "peak_bytes"."""
    unit = 1.0 if what == "median_s" else 1e6
    curves = {
        name: [(n, value / unit) for n, value in curve(result["sizes"], name, what)]
        for name in ("plain", "tiled", "network")
    }
    title = f"Position attention, {result['channels']} channels, and DANet with {result['backbone']}"
    up = "seconds" if what == "median_s" else "MB above the start"
    return loglog(title, "positions N of the feature grid", up, {name: c for name, c in curves.items() if c})


def curve(sizes: Sequence[dict[str, Any]], name: str, what: str = "median_s") -> Curve:
    """(N, value) where it was measured."""
    return [(size["positions"], size[name][what]) for size in sizes if size[name].get(what) is not None]


def crossings(sizes: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """From which N on; interpolated between the sizes that were measured, None where no two of them enclose it."""
    plain, tiled, network = (curve(sizes, name) for name in ("plain", "tiled", "network"))
    attended = dict(tiled)
    others = [(n, seconds - attended[n]) for n, seconds in network if seconds > attended[n]]
    rest = max((seconds / n for n, seconds in others[-1:]), default=None)
    every = [(size["positions"], rest * size["positions"]) for size in sizes] if rest else []
    return {
        "plain takes longer than tiled": crossing(plain, tiled),
        "plain takes longer than the rest of the network": crossing(plain, every),
        "tiled takes longer than the rest of the network": crossing(tiled, every),
    }


def crossing(rising: Curve, other: Curve) -> float | None:
    """The last x from which on `rising` is above `other`, interpolated along straight lines over logarithms; the first
    where it always is, None where it ends below.
    """
    there = dict(other)
    ratios = [(math.log(x), math.log(y / there[x])) for x, y in rising if x in there]
    if not ratios or ratios[-1][1] <= 0:
        return None
    found = math.exp(ratios[0][0])
    for (x0, r0), (x1, r1) in pairwise(ratios):
        if r0 <= 0 < r1:
            found = math.exp(x0 + (x1 - x0) * -r0 / (r1 - r0))
    return found


def filled_at(memory: float, channels: int) -> int:
    """The largest N whose plain attention takes no more than so many bytes above its inputs."""
    low, high = 1, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        fits = attention_bytes(1, middle, middle, channels // 8, channels, kernel="plain") <= memory
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def prepare(n: int, backbone: str, channels: int, device: str) -> Callable[[], object]:
    """For `peak_memory`: the network as `danet predict` runs it, with one image of n positions, a square."""
    torch.manual_seed(0)
    network = DANet(19, backbone, output_stride=STRIDE, width=channels).eval().to(device)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    side = STRIDE * math.isqrt(n)
    image = torch.randn(1, 3, side, side, device=device).to(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: network(image))


def _size(n: int, backbone: str, channels: int, with_network: bool, repeats: int, device: str) -> dict[str, Any]:
    memory = available_memory() if device == "cpu" else torch.cuda.mem_get_info()[0]
    rows: dict[str, Any] = {"positions": n}
    calls: dict[str, Callable[[], object]] = {}
    fresh: dict[str, tuple] = {}
    tensors = attention.inputs(n, channels, device)
    for name in ("plain", "tiled"):
        if why := attention.left_out(name, n, channels, False, memory):
            rows[name] = {"left_out": why}
        else:
            calls[name] = attention.call(name, tensors, False)
            fresh[name] = (attention.prepare, name, n, channels, False, device)
    if not with_network or math.isqrt(n) ** 2 != n:
        rows["network"] = {"left_out": "not asked for" if not with_network else "N is no square"}
    else:
        calls["network"] = prepare(n, backbone, channels, device)
        fresh["network"] = (prepare, n, backbone, channels, device)
    small = n <= 16384
    timings = interleaved(calls, repeats if small else 1, warmup=int(small), device=device)
    for name, timing in timings.items():
        rows[name] = timing.as_dict() | {"peak_bytes": peak_memory(*fresh[name])}
    return rows


def _cell(row: dict[str, Any]) -> str:
    if "left_out" in row:
        return "-"
    peak = "ended" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
    return f"{row['median_s']:.3f}, {peak}"
