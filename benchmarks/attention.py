"""Compare the implementations of position attention: time, share of the matrix-product rate, peak memory, error.

python -m benchmarks.attention --positions 2304 9216 --backward
"""

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import announce, environment, gemm, interleaved, peak_memory
from danet.model import attention_kernels
from danet.model.device import resolve_device

WAYS = {
    "plain": attention_kernels.plain,
    "tiled": attention_kernels.tiled,
    "fused": attention_kernels.fused,
    "triton": attention_kernels.triton_tiled,
}
"""Name -> implementation; `triton` is measured on GPUs only."""

CHECKED_ROWS = 256
"""Number of output rows that are compared with float64."""


@dataclass(frozen=True)
class Options:
    """Compare the implementations of position attention: time, share of the matrix-product rate, memory, error.

    Example: python -m benchmarks.attention --positions 2304 9216 --backward
    """

    positions: tuple[int, ...] = (9216, 32768)
    """numbers of positions N = H*W of the feature grid"""
    channels: int = 512
    """channels C; query and key have C / 8"""
    backward: bool = False
    """time a forward and a backward pass together"""
    repeats: int = 5
    """runs of each implementation; at most 3 for N above 16,384"""
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""
    json: JsonFile = None


def run(options: Options) -> dict[str, Any]:
    """Run all implementations in turns for each size.

    Returns:
        `{"environment", "channels", "backward", "sizes": [{"positions", "gemm": ..., "ways": {name: ...}}]}`; an
        implementation that needs too much memory is `{"left_out": reason}`.
    """
    device, channels, backward = str(resolve_device(options.device)), options.channels, options.backward
    sizes = []
    for n in options.positions:
        repeats = options.repeats if n <= 16384 else min(3, options.repeats)
        sizes.append(_size(n, channels, backward, repeats, device))
    return {"environment": environment(device), "channels": channels, "backward": backward, "sizes": sizes}


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    return "\n".join(line for size in result["sizes"] for line in _lines(size))


def operations(positions: int, channels: int, backward: bool) -> int:
    """Return the floating-point operations of attention without stored weights: 2 products forward, 5 backward."""
    width = channels // 8
    forward = 2 * positions**2 * (width + channels)
    return forward + 2 * positions**2 * (3 * width + 2 * channels) if backward else forward


def inputs(positions: int, channels: int, device: str) -> list[Tensor]:
    """Return normally distributed query, key (1,N,C//8) and value (1,N,C): energies up to 40, peaked attention."""
    generator = torch.Generator().manual_seed(0)
    widths = (channels // 8, channels // 8, channels)
    return [torch.randn(1, positions, width, generator=generator).to(device) for width in widths]


def left_out(way: str, positions: int, channels: int, backward: bool, memory: int | None) -> str | None:
    """Return why an implementation does not fit into the memory in bytes; None if it does."""
    if way != "plain" or memory is None:
        return None
    shape = (1, positions, positions, channels // 8, channels)
    needed = attention_kernels.attention_bytes(*shape, backward=backward, kernel="plain")
    return None if needed < 0.9 * memory else f"needs {needed / 1e9:.1f} GB, {memory / 1e9:.1f} GB are free"


def prepare(way: str, positions: int, channels: int, backward: bool, device: str) -> Callable[[], object]:
    """Return the call for `peak_memory`; a small call allocates the library's own buffers first."""
    call(way, inputs(64, channels, device), backward)()
    return call(way, inputs(positions, channels, device), backward)


def call(way: str, tensors: list[Tensor], backward: bool) -> Callable[[], object]:
    """Return a call that runs an implementation, with the gradients of all three inputs if `backward`."""
    attend = WAYS[way]
    if not backward:
        return torch.inference_mode()(lambda: attend(*tensors))
    tensors = [x.detach().requires_grad_() for x in tensors]
    grad = torch.randn(tensors[2].shape, generator=torch.Generator().manual_seed(1)).to(tensors[2].device)
    return lambda: torch.autograd.grad(attend(*tensors), tensors, grad)


def largest_error(way: str, tensors: list[Tensor]) -> float:
    """Return the largest error of some output rows against float64, relative to their largest value."""
    query, key, value = tensors
    rows = torch.linspace(0, query.shape[1] - 1, CHECKED_ROWS).long().unique()
    exact = attention_kernels.plain(*(x.double() for x in (query[:, rows], key, value)))
    with torch.inference_mode():
        result = WAYS[way](query, key, value)[:, rows]
    return ((result - exact).abs().max() / exact.abs().max()).item()


def _size(n: int, channels: int, backward: bool, repeats: int, device: str) -> dict[str, Any]:
    memory = environment(device)["memory_bytes"] if device == "cpu" else torch.cuda.mem_get_info()[0]
    names = [name for name in WAYS if device != "cpu" or name != "triton"]
    too_large = {name: reason for name in names if (reason := left_out(name, n, channels, backward, memory))}
    names = [name for name in names if name not in too_large]
    tensors = inputs(n, channels, device)
    product, product_operations = gemm(4096 if n >= 4096 else 1024, device)
    announce(f"{n:,} positions: timing {', '.join(names)} in turns")
    ways = {"gemm": product} | {name: call(name, tensors, backward) for name in names}
    timings = interleaved(ways, repeats, device=device)
    rate, count = product_operations / timings["gemm"].median, operations(n, channels, backward)
    rows: dict[str, Any] = {name: {"left_out": reason} for name, reason in too_large.items()}
    for name in names:
        announce(f"{n:,} positions: memory and error of {name}")
        seconds = timings[name].median
        rows[name] = {
            **timings[name].as_dict(),
            "share_of_gemm_rate": count / seconds / rate,
            "of_plain": seconds / timings["plain"].median if "plain" in timings else None,
            "peak_bytes": peak_memory(prepare, name, n, channels, backward, device),
            "largest_error": largest_error(name, tensors),
        }
    products = {**timings["gemm"].as_dict(), "operations_per_s": rate}
    return {
        "positions": n,
        "operations": count,
        "gemm": products,
        "ways": {name: rows[name] for name in WAYS if name in rows},
    }


def _lines(size: dict[str, Any]) -> Iterator[str]:
    rate = size["gemm"]["operations_per_s"]
    yield f"N = {size['positions']:,}; matrix products in the same run: {rate / 1e9:,.0f} GFLOP/s"
    names = ("median s", "fastest", "slowest", "of plain", "of products", "peak MB", "error")
    yield f"  {'':8}" + "".join(f"{name:>12}" for name in names)
    for name, row in size["ways"].items():
        if "left_out" in row:
            yield f"  {name:8}left out: {row['left_out']}"
            continue
        ratio = "" if row["of_plain"] is None else f"{row['of_plain']:.2f}"
        peak = "killed" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
        yield (
            f"  {name:8}{row['median_s']:12.3f}{row['fastest_s']:12.3f}{row['slowest_s']:12.3f}{ratio:>12}"
            f"{row['share_of_gemm_rate']:12.0%}{peak:>12}{row['largest_error']:12.1e}"
        )


if __name__ == "__main__":
    sys.exit(command.main("attention", Options, run, table))
