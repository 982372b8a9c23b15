"""softmax(Q K^T) V, the sum of Eq. 1-2, with and without the N x N map. Used by `attention.PositionAttention`.

N = H*W positions. Rows are positions: query B,N,D, key B,M,D, value B,M,C. There is no 1/sqrt(D), as in the paper and
in the released code. `attend` chooses between `plain`, the reference, and `tiled`, which gives the same numbers in
memory linear in N.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE_ELEMENTS = 1 << 22
"""Attention weights held at once by `tiled`: 16 MiB in float32. A map that fits is computed by `plain`."""


def attention_weights(query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"]) -> Float[Tensor, "B N M"]:
    """Eq. 1: each row is one position's attention over all M positions, >= 0, summing to 1; in float32 at least."""
    energy = query @ key.transpose(1, 2)
    return torch.softmax(energy, dim=-1, dtype=torch.promote_types(energy.dtype, torch.float32))


def plain(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """The reference: one matrix of weights, one product."""
    return attention_weights(query, key).to(value.dtype) @ value


def tiled(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """The same numbers a few rows of weights at a time, forward and backward; nothing of size N x M is allocated or
    saved.
    """
    return _Tiled.apply(query, key, value)


def attend(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """softmax(Q K^T) V by whichever way suits the size; all ways agree to rounding."""
    elements = query.shape[0] * query.shape[1] * key.shape[1]
    return plain(query, key, value) if elements <= TILE_ELEMENTS else tiled(query, key, value)


def _row_tiles(query: Tensor, key: Tensor) -> list[slice]:
    batch, rows, columns = query.shape[0], query.shape[1], key.shape[1]
    step = max(1, TILE_ELEMENTS // (batch * columns))
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]


class _Tiled(torch.autograd.Function):
    """Weights are computed again in the backward pass instead of being kept."""

    @staticmethod
    def forward(ctx, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        ctx.save_for_backward(query, key, value)
        out = value.new_empty(*query.shape[:2], value.shape[2])
        with torch.autocast(query.device.type, enabled=False):
            for rows in _row_tiles(query, key):
                out[:, rows] = plain(query[:, rows], key, value)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = ctx.saved_tensors
        grad_query = torch.empty_like(query)
        grad_key, grad_value = torch.zeros_like(key), torch.zeros_like(value)
        for rows in _row_tiles(query, key):
            weights = attention_weights(query[:, rows], key)  # B,n,M
            grad_value += weights.to(grad.dtype).transpose(1, 2) @ grad[:, rows]
            grad_weights = (grad[:, rows] @ value.transpose(1, 2)).to(weights.dtype)
            along = (grad_weights * weights).sum(-1, keepdim=True)
            grad_energy = weights.mul_(grad_weights.sub_(along)).to(query.dtype)  # softmax backward, B,n,M
            grad_query[:, rows] = grad_energy @ key
            grad_key += grad_energy.transpose(1, 2) @ query[:, rows]
        return grad_query, grad_key, grad_value
