"""Position attention by every way, side by side: time, share of the matrix-product rate, peak memory, error.
Command: `danet bench attention`.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import announce, environment, gemm, interleaved, peak_memory
from danet.model import attention_kernels

WAYS = {
    "plain": attention_kernels.plain,
    "tiled": attention_kernels.tiled,
    "fused": attention_kernels.fused,
    "triton": attention_kernels.triton_tiled,
}
"""name -> the way; `triton` is measured on GPUs only."""

CHECKED_ROWS = 256
"""Rows of the result that are compared with float64 sums."""


def run(
    positions: Sequence[int] = (9216, 32768),
    channels: int = 512,
    backward: bool = False,
    repeats: int = 5,
    device: str = "cpu",
) -> dict[str, Any]:
    """The ways one after another, in turns, for each size.

    Args:
        positions: N = H*W of the feature grid.
        channels: C; query and key have C // 8, as in the paper's code.
        backward: a forward and a backward pass together.
        repeats: runs that count of each way; for N above 16,384 at most 3.

    Returns:
        `{"environment", "channels", "backward", "sizes": [{"positions", "gemm": ..., "ways": {name: ...}}]}`; a way
        that the memory would not suffice for is `{"left_out": why}`.
    """
    sizes = [_size(n, channels, backward, repeats if n <= 16384 else min(3, repeats), device) for n in positions]
    return {"environment": environment(device), "channels": channels, "backward": backward, "sizes": sizes}


def table(result: dict[str, Any]) -> str:
    """The result for people."""
    return "\n".join(line for size in result["sizes"] for line in _lines(size))


def operations(positions: int, channels: int, backward: bool) -> int:
    """Floating-point operations of exact attention that keeps no weights: two products forward, five backward."""
    width = channels // 8
    forward = 2 * positions**2 * (width + channels)
    return forward + 2 * positions**2 * (3 * width + 2 * channels) if backward else forward


def inputs(positions: int, channels: int, device: str) -> list[Tensor]:
    """Query, key and value, 1,N,C//8 and 1,N,C, normally distributed: energies up to 40, attention far from uniform."""
    generator = torch.Generator().manual_seed(0)
    widths = (channels // 8, channels // 8, channels)
    return [torch.randn(1, positions, width, generator=generator).to(device) for width in widths]


def left_out(way: str, positions: int, channels: int, backward: bool, memory: int | None) -> str | None:
    """Why a way cannot be run in so many bytes of memory; None if it can."""
    if way != "plain" or memory is None:
        return None
    shape = (1, positions, positions, channels // 8, channels)
    needed = attention_kernels.attention_bytes(*shape, backward=backward, kernel="plain")
    return None if needed < 0.9 * memory else f"needs {needed / 1e9:.1f} GB, {memory / 1e9:.1f} GB are free"


def prepare(way: str, positions: int, channels: int, backward: bool, device: str) -> Callable[[], object]:
    """For `peak_memory`: makes the inputs, and the library's own buffers by a small call."""
    call(way, inputs(64, channels, device), backward)()
    return call(way, inputs(positions, channels, device), backward)


def call(way: str, tensors: list[Tensor], backward: bool) -> Callable[[], object]:
    """One run of a way, with the gradients of all three inputs if `backward`."""
    attend = WAYS[way]
    if not backward:
        return torch.inference_mode()(lambda: attend(*tensors))
    tensors = [x.detach().requires_grad_() for x in tensors]
    grad = torch.randn(tensors[2].shape, generator=torch.Generator().manual_seed(1)).to(tensors[2].device)
    return lambda: torch.autograd.grad(attend(*tensors), tensors, grad)


def largest_error(way: str, tensors: list[Tensor]) -> float:
    """Largest error of some rows of the result against float64 sums, relative to the largest value there."""
    query, key, value = tensors
    rows = torch.linspace(0, query.shape[1] - 1, CHECKED_ROWS).long().unique()
    exact = attention_kernels.plain(*(x.double() for x in (query[:, rows], key, value)))
    with torch.inference_mode():
        found = WAYS[way](query, key, value)[:, rows]
    return ((found - exact).abs().max() / exact.abs().max()).item()


def _size(n: int, channels: int, backward: bool, repeats: int, device: str) -> dict[str, Any]:
    memory = environment(device)["memory_bytes"] if device == "cpu" else torch.cuda.mem_get_info()[0]
    names = [name for name in WAYS if device != "cpu" or name != "triton"]
    refused = {name: why for name in names if (why := left_out(name, n, channels, backward, memory))}
    names = [name for name in names if name not in refused]
    tensors = inputs(n, channels, device)
    product, product_operations = gemm(4096 if n >= 4096 else 1024, device)
    announce(f"{n:,} positions: timing {', '.join(names)} in turns")
    ways = {"gemm": product} | {name: call(name, tensors, backward) for name in names}
    timings = interleaved(ways, repeats, device=device)
    rate, least = product_operations / timings["gemm"].median, operations(n, channels, backward)
    rows: dict[str, Any] = {name: {"left_out": why} for name, why in refused.items()}
    for name in names:
        announce(f"{n:,} positions: memory and error of {name}")
        seconds = timings[name].median
        rows[name] = {
            **timings[name].as_dict(),
            "share_of_gemm_rate": least / seconds / rate,
            "of_plain": seconds / timings["plain"].median if "plain" in timings else None,
            "peak_bytes": peak_memory(prepare, name, n, channels, backward, device),
            "largest_error": largest_error(name, tensors),
        }
    products = {**timings["gemm"].as_dict(), "operations_per_s": rate}
    return {
        "positions": n,
        "operations": least,
        "gemm": products,
        "ways": {name: rows[name] for name in WAYS if name in rows},
    }


def _lines(size: dict[str, Any]) -> Iterator[str]:
    rate = size["gemm"]["operations_per_s"]
    yield f"N = {size['positions']:,}; matrix products in the same run {rate / 1e9:,.0f} GFLOP/s"
    names = ("median s", "fastest", "slowest", "of plain", "of products", "MB above", "error")
    yield f"  {'way':8}" + "".join(f"{name:>12}" for name in names)
    for name, row in size["ways"].items():
        if "left_out" in row:
            yield f"  {name:8}left out: {row['left_out']}"
            continue
        ratio = "" if row["of_plain"] is None else f"{row['of_plain']:.2f}"
        peak = "ended" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:,.0f}"
        yield (
            f"  {name:8}{row['median_s']:12.3f}{row['fastest_s']:12.3f}{row['slowest_s']:12.3f}{ratio:>12}"
            f"{row['share_of_gemm_rate']:12.0%}{peak:>12}{row['largest_error']:12.1e}"
        )
