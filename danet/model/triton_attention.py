"""softmax(Q K^T) V as Triton kernels for CUDA, forward and backward: D up to 128, any C, any number of positions.

The sums are those of tiled_attention.py. A program computes one block of rows and one block of channels, so Q K^T is
computed once per block of channels (twice for 512 channels) and not once per head, as in torch's kernels. One kernel
computes the gradients of queries and keys, with their roles exchanged. Tested on the CPU by Triton's interpreter and
compiled for compute capability 8.0 and 9.0 (tests/model/test_kernels.py); not yet run on a GPU, so `attend` prefers the
fused kernels.
"""

# ruff: noqa: N803 - sizes and constants of kernels are in capitals
# pyright: reportArgumentType=false, reportCallIssue=false

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

LOG2_E = tl.constexpr(1.4426950408889634)
BLOCK = 64
"""Queries and keys per block."""


@triton.jit
def load(x, rows, columns, height, width):
    """Load rows and columns of a contiguous height x width matrix, with 0 outside."""
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    return tl.load(x + rows[:, None].to(tl.int64) * width + columns[None, :], mask=inside, other=0.0)


@triton.jit
def store(x, values, rows, columns, height, width):
    """Store rows and columns of a contiguous height x width matrix, skipping those outside."""
    inside = (rows[:, None] < height) & (columns[None, :] < width)
    tl.store(x + rows[:, None].to(tl.int64) * width + columns[None, :], values.to(x.dtype.element_ty), mask=inside)


@triton.jit
def forward_kernel(
    query, key, value, out, level, N, M, D, C, SIZE: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr
):
    """Compute one block of the result, and set `level` B,N to log2 of the sum of exp(energy)."""
    image = tl.program_id(1).to(tl.int64)
    query, key, value, out = query + image * N * D, key + image * M * D, value + image * M * C, out + image * N * C
    rows, wide = tl.program_id(0) * SIZE + tl.arange(0, SIZE), tl.arange(0, WIDTH)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    q = load(query, rows, wide, N, D)
    peak = tl.full((SIZE,), float("-inf"), tl.float32)
    total = tl.zeros((SIZE,), tl.float32)
    sums = tl.zeros((SIZE, CHANNELS), tl.float32)
    for start in range(0, M, SIZE):
        columns = start + tl.arange(0, SIZE)
        energy = tl.dot(q, tl.trans(load(key, columns, wide, M, D)), input_precision="ieee") * LOG2_E
        energy = tl.where(columns[None, :] < M, energy, float("-inf"))
        largest = tl.maximum(peak, tl.max(energy, 1))
        weights = tl.exp2(energy - largest[:, None])
        shrink = tl.exp2(peak - largest)
        total = total * shrink + tl.sum(weights, 1)
        v = load(value, columns, channels, M, C)
        sums = sums * shrink[:, None] + tl.dot(weights.to(v.dtype), v, input_precision="ieee")
        peak = largest
    store(out, sums / total[:, None], rows, channels, N, C)
    if tl.program_id(2) == 0:
        tl.store(level + image * N + rows, peak + tl.log2(total), mask=rows < N)


@triton.jit
def value_kernel(
    query, key, grad, level, grad_value, N, M, D, C, SIZE: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr
):
    """Compute one block of the gradient of the value, weights^T grad."""
    image = tl.program_id(1).to(tl.int64)
    query, key = query + image * N * D, key + image * M * D
    columns, wide = tl.program_id(0) * SIZE + tl.arange(0, SIZE), tl.arange(0, WIDTH)
    channels = tl.program_id(2) * CHANNELS + tl.arange(0, CHANNELS)
    k = load(key, columns, wide, M, D)
    sums = tl.zeros((SIZE, CHANNELS), tl.float32)
    for start in range(0, N, SIZE):
        rows = start + tl.arange(0, SIZE)
        energy = tl.dot(k, tl.trans(load(query, rows, wide, N, D)), input_precision="ieee") * LOG2_E  # m,n
        norm = tl.load(level + image * N + rows, mask=rows < N, other=float("inf"))  # outside: weight 0
        g = load(grad + image * N * C, rows, channels, N, C)
        sums += tl.dot(tl.exp2(energy - norm[None, :]).to(g.dtype), g, input_precision="ieee")
    store(grad_value + image * M * C, sums, columns, channels, M, C)


@triton.jit
def slope_kernel(
    ours, theirs, left, right, level, along, grad_ours, N, M, D, C,
    SIZE: tl.constexpr, WIDTH: tl.constexpr, CHANNELS: tl.constexpr, QUERIES: tl.constexpr,
):  # fmt: skip
    """Compute one block of the gradient of `ours`, N positions, from the energies with `theirs`, M positions.

    For queries, left = grad and right = value; for keys, left = value and right = grad. `along` is rowsum(grad * out)
    of each query.
    """
    image = tl.program_id(1).to(tl.int64)
    rows, wide = tl.program_id(0) * SIZE + tl.arange(0, SIZE), tl.arange(0, WIDTH)
    a = load(ours + image * N * D, rows, wide, N, D)
    sums = tl.zeros((SIZE, WIDTH), tl.float32)
    for start in range(0, M, SIZE):
        columns = start + tl.arange(0, SIZE)
        b = load(theirs + image * M * D, columns, wide, M, D)
        energy = tl.dot(a, tl.trans(b), input_precision="ieee") * LOG2_E
        slope = tl.zeros((SIZE, SIZE), tl.float32)
        for first in range(0, C, CHANNELS):
            channels = first + tl.arange(0, CHANNELS)
            x = load(left + image * N * C, rows, channels, N, C)
            y = load(right + image * M * C, columns, channels, M, C)
            slope += tl.dot(x, tl.trans(y), input_precision="ieee")
        if QUERIES:
            norm = tl.load(level + image * N + rows, mask=rows < N, other=float("inf"))[:, None]
            offset = tl.load(along + image * N + rows, mask=rows < N, other=0.0)[:, None]
        else:
            norm = tl.load(level + image * M + columns, mask=columns < M, other=float("inf"))[None, :]
            offset = tl.load(along + image * M + columns, mask=columns < M, other=0.0)[None, :]
        energy_grad = tl.exp2(energy - norm) * (slope - offset)
        energy_grad = tl.where(columns[None, :] < M, energy_grad, 0.0)
        sums += tl.dot(energy_grad.to(b.dtype), b, input_precision="ieee")
    store(grad_ours + image * N * D, sums, rows, wide, N, D)


def triton_tiled(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """Return softmax(Q K^T) V for half precision or float32, with sums in float32; D up to 128.

    Inputs whose rows are not contiguous are copied.
    """
    assert query.shape[2] <= 128
    dtype = value.dtype
    return _Triton.apply(query.to(dtype).contiguous(), key.to(dtype).contiguous(), value.contiguous())


def blocks(width: int, channels: int, itemsize: int) -> dict[str, int]:
    """Return the constants of a compiled kernel; block sizes are at least 16, as the matrix units require."""
    width, limit = max(16, triton.next_power_of_2(width)), 256 if itemsize < 4 else 64
    return {"SIZE": BLOCK, "WIDTH": width, "CHANNELS": min(limit, max(16, triton.next_power_of_2(channels)))}


class _Triton(torch.autograd.Function):
    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        batch, n, d = query.shape
        m, c = value.shape[1:]
        constants = blocks(d, c, value.itemsize)
        out = value.new_empty(batch, n, c)
        level = torch.empty(batch, n, device=value.device)
        grid = (triton.cdiv(n, BLOCK), batch, triton.cdiv(c, constants["CHANNELS"]))
        forward_kernel[grid](query, key, value, out, level, n, m, d, c, **constants, num_warps=8)
        ctx.save_for_backward(query, key, value, out, level)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value, out, level = ctx.saved_tensors
        (batch, n, d), (m, c) = query.shape, value.shape[1:]
        constants, grad = blocks(d, c, value.itemsize), grad.contiguous()
        along = (grad.float() * out.float()).sum(2)  # B,N
        grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
        grid = (triton.cdiv(m, BLOCK), batch, triton.cdiv(c, constants["CHANNELS"]))
        value_kernel[grid](query, key, grad, level, grad_value, n, m, d, c, **constants, num_warps=8)
        narrow = constants | {"CHANNELS": min(64, constants["CHANNELS"])}
        slope_kernel[(triton.cdiv(n, BLOCK), batch)](
            query, key, grad, value, level, along, grad_query, n, m, d, c, **narrow, QUERIES=True
        )
        slope_kernel[(triton.cdiv(m, BLOCK), batch)](
            key, query, value, grad, level, along, grad_key, m, n, d, c, **narrow, QUERIES=False
        )
        return grad_query, grad_key, grad_value
