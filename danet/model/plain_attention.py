"""Eq. 1-2 as they are written, the reference of the other ways."""

import torch
from jaxtyping import Float
from torch import Tensor


def attention_weights(query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"]) -> Float[Tensor, "B N M"]:
    """Eq. 1: each row is one position's attention over all M positions, >= 0, summing to 1; in float32 at least, the
    energies too, also under autocast: an energy of 60 rounded to 8 bits is off by as much as a softmax shows.
    """
    full = torch.promote_types(query.dtype, torch.float32)
    if full == query.dtype and not torch.is_autocast_enabled(query.device.type):
        return torch.softmax(query @ key.transpose(1, 2), dim=-1)  # also what is exported: nothing but these two
    with torch.autocast(query.device.type, enabled=False):
        return torch.softmax(query.to(full) @ key.to(full).transpose(1, 2), dim=-1)


def plain(
    query: Float[Tensor, "B N D"], key: Float[Tensor, "B M D"], value: Float[Tensor, "B M C"]
) -> Float[Tensor, "B N C"]:
    """The reference: one matrix of weights, one product."""
    return attention_weights(query, key).to(value.dtype) @ value
