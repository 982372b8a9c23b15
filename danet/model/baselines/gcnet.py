"""GCNet (Cao et al., ICCV Workshops 2019, Eq. 4): a global context block, one context for all positions."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

REDUCTION = 4


class GlobalContext(nn.Module):
    """The block: B,C,H,W -> B,C,H,W.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // REDUCTION)
        self.weight = nn.Conv2d(channels, 1, 1)
        self.transform = nn.Sequential(
            nn.Linear(channels, inner), nn.LayerNorm(inner), nn.ReLU(), nn.Linear(inner, channels)
        )
        nn.init.zeros_(self.transform[-1].weight)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.transform[-1].bias)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the features with the context added."""
        weights = self.weight(x).flatten(2).softmax(2)  # B,1,N
        context = torch.matmul(weights, x.flatten(2).transpose(1, 2)).squeeze(1)  # B,C
        return x + self.transform(context)[..., None, None]
