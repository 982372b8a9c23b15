"""CCNet (Huang et al., ICCV 2019, section 3.2): attention to the own row and column, applied twice."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

REDUCTION, RECURRENCE = 8, 2


class CrissCrossAttention(nn.Module):
    """Recurrent criss-cross attention: B,C,H,W -> B,C,H,W. Both passes have the same weights.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.query, self.key = (nn.Conv2d(channels, inner, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the features with the context of all positions."""
        for _ in range(RECURRENCE):
            x = self.scale * self._attend(x) + x
        return x

    def _attend(self, x: Tensor) -> Tensor:
        query, key, value = self.query(x), self.key(x), self.value(x)
        rows = torch.arange(x.shape[2], device=x.device)
        own = (rows[:, None] == rows)[:, None]  # H,1,H: the row's product has the own position already
        column = torch.einsum("bchw,bcgw->bhwg", query, key).masked_fill(own, -torch.inf)
        weights = torch.cat([column, torch.einsum("bchw,bchv->bhwv", query, key)], 3).softmax(3)
        column, row = weights[..., : x.shape[2]], weights[..., x.shape[2] :]
        return torch.einsum("bhwg,bcgw->bchw", column, value) + torch.einsum("bhwv,bchv->bchw", row, value)
