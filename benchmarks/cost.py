"""Time and memory of position attention and of whole networks as images grow, and where the curves cross.

python -m benchmarks.cost --positions 1024 4096 --plot cost.svg
"""

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from benchmarks import attention, command, plots
from benchmarks.command import JsonFile
from benchmarks.measure import announce, available_memory, environment, interleaved, peak_memory
from danet.model.attention_kernels import attention_bytes
from danet.model.baselines import build_network
from danet.model.device import resolve_device
from danet.model.dranet import CompactPositionAttention

Curve = Sequence[tuple[float, float]]

STRIDE = 8
"""Pixels of the image per position, in each direction."""

NETWORKS = {"network": "danet", "dranet": "dranet"}
"""Name in the result -> architecture."""

MEMORIES = (4e9, 8e9, 16e9, 24e9, 80e9)
"""Memory sizes in bytes; the result says which N fills them with plain attention."""


@dataclass(frozen=True)
class Options:
    """Measure position attention and whole networks as images grow: time, memory, crossing points.

    Example: python -m benchmarks.cost --positions 1024 4096 --plot cost.svg
    """

    positions: tuple[int, ...] = (1024, 4096, 9216, 16384, 32768, 65536)
    """numbers of positions N of the feature grid; an image has 64 N pixels"""
    backbone: str = "resnet50"
    """a timm name"""
    channels: int = 512
    """channels of the attention"""
    network_positions: int = 16384
    """run the whole networks for square N up to this one"""
    repeats: int = 3
    """runs of each, after a warm-up; one run for N above 16,384"""
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""
    json: JsonFile = None
    plot: Path | None = None
    """write the curves of time to this SVG file"""


def run(options: Options) -> dict[str, Any]:
    """Time forward passes of position attention, and of whole networks on an image with as many positions.

    "plain" and "tiled" are DANet's attention, given query, key and value. "compact" is the module of DRANet, which
    makes them itself. "network" is DANet and "dranet" is DRANet, with the same backbone and channels.

    Returns:
        `{"environment", "backbone", "channels", "sizes": [{"positions", "plain", "tiled", "compact", "network",
        "dranet"}], "crossings", "plain_fills"}`; what was not run is `{"left_out": reason}`.
    """
    device, backbone, channels = str(resolve_device(options.device)), options.backbone, options.channels
    sizes = []
    for n in options.positions:
        announce(f"{n:,} positions")
        sizes.append(_size(n, backbone, channels, n <= options.network_positions, options.repeats, device))
    result = {"environment": environment(device), "backbone": backbone, "channels": channels, "sizes": sizes}
    return result | {"crossings": crossings(sizes), "plain_fills": {b: filled_at(b, channels) for b in MEMORIES}}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    names = ("plain", "tiled", "compact", "network", "dranet")
    lines = [f"{'N':>7}  " + "".join(f"{f'{name} s, MB':>20}" for name in names)]
    for size in result["sizes"]:
        cells = [_cell(size[name]) for name in names]
        lines.append(f"{size['positions']:>7,}  " + "".join(f"{cell:>20}" for cell in cells))
    for text, n in result["crossings"].items():
        lines.append(f"{text}: " + ("at none of these sizes" if n is None else f"from N = {n:,.0f}"))
    filled = ", ".join(f"{size / 1e9:g} GB at N = {n:,}" for size, n in result["plain_fills"].items())
    return "\n".join([*lines, f"plain attention fills {filled}"])


def plot(result: dict[str, Any]) -> bytes:
    """Draw the curves of time as SVG."""
    return plots.draw("cost", result)


def curve(sizes: Sequence[dict[str, Any]], name: str) -> Curve:
    """Return (N, seconds) for the measured sizes."""
    return [(size["positions"], size[name]["median_s"]) for size in sizes if "median_s" in size[name]]


def crossings(sizes: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    """Return the N from which each statement holds, interpolated between the measured sizes; None if it never does."""
    plain, tiled, network = (curve(sizes, name) for name in ("plain", "tiled", "network"))
    attention_s = dict(tiled)
    others = [(n, seconds - attention_s[n]) for n, seconds in network if seconds > attention_s[n]]
    per_position = max((seconds / n for n, seconds in others[-1:]), default=None)
    rest = [(size["positions"], per_position * size["positions"]) for size in sizes] if per_position else []
    return {
        "plain takes longer than tiled": crossing(plain, tiled),
        "plain takes longer than the rest of the network": crossing(plain, rest),
        "tiled takes longer than the rest of the network": crossing(tiled, rest),
    }


def crossing(rising: Curve, other: Curve) -> float | None:
    """Return the x from which `rising` stays above `other`, interpolated linearly between logarithms.

    The first x if it always is above; None if it ends below.
    """
    reference = dict(other)
    ratios = [(math.log(x), math.log(y / reference[x])) for x, y in rising if x in reference]
    if not ratios or ratios[-1][1] <= 0:
        return None
    cross = math.exp(ratios[0][0])
    for (x0, r0), (x1, r1) in pairwise(ratios):
        if r0 <= 0 < r1:
            cross = math.exp(x0 + (x1 - x0) * -r0 / (r1 - r0))
    return cross


def filled_at(memory: float, channels: int) -> int:
    """Return the largest N whose plain attention fits into the memory in bytes, without its inputs."""
    low, high = 1, 1 << 20
    while low < high:
        middle = (low + high + 1) // 2
        fits = attention_bytes(1, middle, middle, channels // 8, channels, kernel="plain") <= memory
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def prepare_compact(n: int, channels: int, device: str) -> Callable[[], object]:
    """Return the forward pass of DRANet's position attention over about n positions, for `peak_memory`."""
    torch.manual_seed(0)
    module = CompactPositionAttention(channels).eval().to(device)
    height = math.isqrt(n)
    x = torch.randn(1, channels, height, n // height, device=device)
    return torch.inference_mode()(lambda: module(x))


def prepare(n: int, architecture: str, backbone: str, channels: int, device: str) -> Callable[[], object]:
    """Return the forward pass of a square image with n positions, for `peak_memory`."""
    torch.manual_seed(0)
    arguments = {"num_classes": 19, "backbone": backbone, "output_stride": STRIDE, "width": channels}
    network = build_network(architecture, **arguments).eval().to(device)
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
        if reason := attention.left_out(name, n, channels, False, memory):
            rows[name] = {"left_out": reason}
        else:
            calls[name] = attention.call(name, tensors, False)
            fresh[name] = (attention.prepare, name, n, channels, False, device)
    calls["compact"] = prepare_compact(n, channels, device)
    fresh["compact"] = (prepare_compact, n, channels, device)
    for name, architecture in NETWORKS.items():
        if not with_network or math.isqrt(n) ** 2 != n:
            rows[name] = {"left_out": "too large" if not with_network else "N is not a square"}
        else:
            calls[name] = prepare(n, architecture, backbone, channels, device)
            fresh[name] = (prepare, n, architecture, backbone, channels, device)
    small = n <= 16384
    timings = interleaved(calls, repeats if small else 1, warmup=int(small), device=device)
    for name, timing in timings.items():
        rows[name] = timing.as_dict() | {"peak_bytes": peak_memory(*fresh[name])}
    return rows


def _cell(row: dict[str, Any]) -> str:
    if "left_out" in row:
        return "-"
    peak = "killed" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
    return f"{row['median_s']:.3f}, {peak}"


if __name__ == "__main__":
    sys.exit(command.main("cost", Options, run, table, plot))
