"""softmax(Q K^T) V a tile of weights at a time, forward and backward, in plain torch calls.

The softmax is taken while its row goes by (Milakov and Gimelshein, "Online normalizer calculation for softmax", 2018;
Rabe and Staats, "Self-attention does not need O(n^2) memory", 2021; Dao et al., "FlashAttention", 2022): with the
largest energy m of the row so far, the sums of exp(e - m) and of exp(e - m) v are kept, and both shrink by
exp(m - m') when a larger m' comes. What is left besides the products is four passes over a tile that stays in the
cache, and a tile is large enough for the products to run at the full rate.

The exponential is 2^(e log2(e) - m): torch's exp2 takes a third of the time of its exp, and factor and shift are one
fused pass with one rounding, so that the error is that of `plain`. m is kept in those units.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = {"cpu": (2048, 1024), "cuda": (4096, 8192)}
"""Queries and keys of a tile: 8 MiB of weights in float32 stay in a processor's cache; a GPU wants long products."""

_LOG2_E = math.log2(math.e)


def tiled(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Tile by tile, in float32 at least; the backward pass computes the weights again. No second derivatives."""
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


def _forward(query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The result, in the layout of `value`, and of each row the largest energy, by log 2, and the sum of `_exp`."""
    out = _zeros(value, query.shape[1])
    peak = query.new_full((*query.shape[:2], 1), -math.inf)
    total = torch.zeros_like(peak)
    for image, rows, columns, (weights,) in _tiles(query, key, buffers=1):
        torch.mm(query[image, rows], key[image, columns].t(), out=weights)  # n,m
        largest = torch.maximum(peak[image, rows], weights.amax(1, keepdim=True).mul_(_LOG2_E))
        _exp(weights, largest)
        shrink = (peak[image, rows] - largest).exp2_()
        total[image, rows] = total[image, rows].mul_(shrink).add_(weights.sum(1, keepdim=True))
        out[image, rows].mul_(shrink).addmm_(weights, value[image, columns])
        peak[image, rows] = largest
    return out.div_(total), peak, total


def _backward(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, out: Tensor, peak: Tensor, total: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value. With p = exp(e - largest), unnormalized, and g = grad / total:
    value's is p^T g, the energies' p (g V^T - rowsum(g out)).
    """
    grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
    shared = None
    for image, rows, columns, (weights, slope) in _tiles(query, key, buffers=2):
        if shared != (image, rows):
            shared = (image, rows)
            g = grad[image, rows] / total[image, rows]  # n,C
            along = (g * out[image, rows]).sum(1, keepdim=True)
        torch.mm(query[image, rows], key[image, columns].t(), out=weights)
        _exp(weights, peak[image, rows])
        grad_value[image, columns].addmm_(weights.t(), g)
        torch.mm(g, value[image, columns].t(), out=slope)
        weights.mul_(slope.sub_(along))  # the energies' gradient, n,m
        grad_query[image, rows].addmm_(weights, key[image, columns])
        grad_key[image, columns].addmm_(weights.t(), query[image, rows])
    return grad_query, grad_key, grad_value


def _exp(energies: Tensor, peak: Tensor) -> None:
    """exp(e - largest), in place, with peak = largest / log 2."""
    torch.add(-peak, energies, alpha=_LOG2_E, out=energies).exp2_()


def _tiles(query: Tensor, key: Tensor, buffers: int) -> Iterator[tuple[int, slice, slice, list[Tensor]]]:
    """Image, queries, keys, and room for the tile, the same memory every time; all keys of some queries in turn."""
    height, width = TILE["cuda" if query.is_cuda else "cpu"]
    rows, columns = _parts(query.shape[1], height), _parts(key.shape[1], width)
    room = query.new_empty(buffers, rows[0].stop * columns[0].stop)
    for image in range(query.shape[0]):
        for r in rows:
            for c in columns:
                n, m = r.stop - r.start, c.stop - c.start
                yield image, r, c, [buffer[: n * m].view(n, m) for buffer in room]


def _parts(size: int, longest: int) -> list[slice]:
    """As few parts as can be, of nearly equal length."""
    step = math.ceil(size / math.ceil(size / longest))
    return [slice(start, min(start + step, size)) for start in range(0, size, step)]


def _zeros(value: Tensor, rows: int) -> Tensor:
    """B,rows,C, its memory ordered as that of `value`: no copy where features are B,C,H,W, none where they are rows."""
    batch, _, channels = value.shape
    if value.stride(1) < value.stride(2):
        return value.new_zeros(batch, channels, rows).transpose(1, 2)
    return value.new_zeros(batch, rows, channels)
