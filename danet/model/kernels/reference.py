"""Eq. 1-2 as they are written, the reference of the other ways."""

import torch
from jaxtyping import Float
from torch import Tensor


def attention_weights(query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"]) -> Float[Tensor, "B N M"]:
    """Eq. 1: each row is one position's attention over all M positions, >= 0, summing to 1; in float32 at least."""
    energy = query @ key.transpose(1, 2)
    return torch.softmax(energy, dim=-1, dtype=torch.promote_types(energy.dtype, torch.float32))


def plain(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """The reference: one matrix of weights, one product."""
    return attention_weights(query, key).to(value.dtype) @ value
