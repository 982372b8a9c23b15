"""softmax(Q K^T) V computed one tile of weights at a time, forward and backward, in plain torch calls.

This is the online softmax (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018; Rabe and Staats,
"Self-attention does not need O(n^2) memory", 2021; Dao et al., "FlashAttention", 2022). For each row we keep the
largest energy m so far and the sums of exp(e - m) and exp(e - m) v; when a larger m' appears, both sums are scaled by
exp(m - m'). Besides the products this takes four passes over a tile, which stays in the cache and is still large enough
for the products to run at full speed.

The exponential is 2^(e log2(e) - m), with m in those units: torch's exp2 takes a third of the time of its exp. Scaling
and subtraction are one fused pass with one rounding, so the error is that of `plain`.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = {"cpu": (2048, 1024), "cuda": (4096, 8192)}
"""Queries and keys per tile. On CPUs, 8 MiB of float32 weights stay in the cache; GPUs need long products."""

_LOG2_E = math.log2(math.e)


def tiled(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Return softmax(Q K^T) V, computed in float32 or better.

    The backward pass computes the weights again. Second derivatives are not supported.
    """
    work = torch.promote_types(torch.promote_types(query.dtype, value.dtype), torch.float32)
    return _Tiled.apply(query.to(work), key.to(work), value.to(work)).to(value.dtype)


class _Tiled(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            out, peak, total = _forward(query, key, value)
        ctx.save_for_backward(query, key, value, out, peak, total)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.autocast(grad.device.type, enabled=False):
            return _backward(grad, *ctx.saved_tensors)


def tiled_logsumexp(query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"]) -> Float[Tensor, "B N"]:
    """Return log sum_j exp(q_i . k_j) for each row i, computed in float32 or better.

    The backward pass computes the weights again. Second derivatives are not supported.
    """
    work = torch.promote_types(query.dtype, torch.float32)
    return _TiledLogSumExp.apply(query.to(work), key.to(work))


class _TiledLogSumExp(torch.autograd.Function):
    """The gradient of row i is g_i S_i, so that of the query is g_i S_i K and that of the key sum_i S_i^T g_i q_i."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor) -> Tensor:
        with torch.autocast(query.device.type, enabled=False):
            mean_key, peak, total = _forward(query, key, key)
        ctx.save_for_backward(query, key, mean_key, peak, total)
        return ((peak + total.log2()) / _LOG2_E).squeeze(2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:
        query, key, mean_key, peak, total = ctx.saved_tensors
        grad_key = torch.zeros_like(key)
        with torch.autocast(grad.device.type, enabled=False):
            weighted = query * grad[..., None] / total  # B,N,D
            for b, rows, columns, (weights,) in _tiles(query, key, buffers=1):
                torch.mm(query[b, rows], key[b, columns].t(), out=weights)
                _exp(weights, peak[b, rows])
                grad_key[b, columns].addmm_(weights.t(), weighted[b, rows])
        return grad[..., None] * mean_key, grad_key


def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the result in the layout of `value`, and for each row the largest energy / log 2 and the sum of `_exp`."""
    out = _zeros(value, query.shape[1])
    peak = query.new_full((*query.shape[:2], 1), -math.inf)
    total = torch.zeros_like(peak)
    for b, rows, columns, (weights,) in _tiles(query, key, buffers=1):
        torch.mm(query[b, rows], key[b, columns].t(), out=weights)  # n,m
        largest = torch.maximum(peak[b, rows], weights.amax(1, keepdim=True).mul_(_LOG2_E))
        _exp(weights, largest)
        shrink = (peak[b, rows] - largest).exp2_()
        total[b, rows] = total[b, rows].mul_(shrink).add_(weights.sum(1, keepdim=True))
        out[b, rows].mul_(shrink).addmm_(weights, value[b, columns])
        peak[b, rows] = largest
    return out.div_(total), peak, total


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of query, key and value.

    With p = exp(e - largest), not normalized, and g = grad / total, the gradient of the value is p^T g and that of the
    energies is p (g V^T - rowsum(g out)).
    """
    grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
    current = None
    for b, rows, columns, (weights, slope) in _tiles(query, key, buffers=2):
        if current != (b, rows):
            current = (b, rows)
            g = grad[b, rows] / total[b, rows]  # n,C
            along = (g * out[b, rows]).sum(1, keepdim=True)
        torch.mm(query[b, rows], key[b, columns].t(), out=weights)
        _exp(weights, peak[b, rows])
        grad_value[b, columns].addmm_(weights.t(), g)
        torch.mm(g, value[b, columns].t(), out=slope)
        weights.mul_(slope.sub_(along))  # the energies' gradient, n,m
        grad_query[b, rows].addmm_(weights, key[b, columns])
        grad_key[b, columns].addmm_(weights.t(), query[b, rows])
    return grad_query, grad_key, grad_value


def _exp(energies: Tensor, peak: Tensor) -> None:
    """Replace energies by exp(e - largest), in place, with peak = largest / log 2."""
    torch.add(-peak, energies, alpha=_LOG2_E, out=energies).exp2_()


def _tiles(query: Tensor, key: Tensor, buffers: int) -> Iterator[tuple[int, slice, slice, list[Tensor]]]:
    """Yield the image, the queries and the keys of each tile, with buffers for it that all tiles share.

    All keys of one range of queries follow one another.
    """
    height, width = TILE["cuda" if query.is_cuda else "cpu"]
    rows, columns = _parts(query.shape[1], height), _parts(key.shape[1], width)
    memory = query.new_empty(buffers, rows[0].stop * columns[0].stop)
    for b in range(query.shape[0]):
        for r in rows:
            for c in columns:
                n, m = r.stop - r.start, c.stop - c.start
                yield b, r, c, [buffer[: n * m].view(n, m) for buffer in memory]


def _parts(size: int, longest: int) -> list[slice]:
    """Split a range into the fewest parts of nearly equal length that are at most `longest`."""
    step = math.ceil(size / math.ceil(size / longest))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _zeros(value: Tensor, rows: int) -> Tensor:
    """Return zeros B,rows,C in the memory order of `value`, so that later reshapes need no copy."""
    batch, _, channels = value.shape
    if value.stride(1) < value.stride(2):
        return value.new_zeros(batch, channels, rows).transpose(1, 2)
    return value.new_zeros(batch, rows, channels)
