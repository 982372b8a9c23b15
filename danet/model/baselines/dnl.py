"""DNL (Yin et al., ECCV 2020, Eq. 10): a non-local block with a whitened pairwise and a unary term, learned apart."""

from jaxtyping import Float
from torch import Tensor, nn

TEMPERATURE = 0.05
"""Of the pairwise term, as in mmsegmentation."""


class DisentangledNonLocal(nn.Module):
    """The block: B,C,H,W -> B,C,H,W.

    Args:
        channels: C.
    """

    def __init__(self, channels: int):
        super().__init__()
        inner = max(1, channels // 2)
        self.query, self.key, self.value = (nn.Conv2d(channels, inner, 1) for _ in range(3))
        self.unary = nn.Conv2d(channels, 1, 1)
        self.out = nn.Sequential(nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels))
        for convolution in (self.query, self.key, self.value):
            nn.init.normal_(convolution.weight, std=0.01)
            nn.init.zeros_(convolution.bias)  # pyright: ignore[reportArgumentType]
        nn.init.zeros_(self.out[1].weight)  # pyright: ignore[reportArgumentType]

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the features with their context added."""
        query, key, value = (layer(x).flatten(2) for layer in (self.query, self.key, self.value))  # B,D,N
        query, key = (part - part.mean(2, keepdim=True) for part in (query, key))
        scale = query.shape[1] ** -0.5 / TEMPERATURE
        pairwise = (scale * query.transpose(1, 2) @ key).softmax(2)  # B,N,N
        unary = self.unary(x).flatten(2).softmax(2)  # B,1,N
        context = value @ pairwise.transpose(1, 2) + value @ unary.transpose(1, 2)
        return x + self.out(context.unflatten(2, x.shape[2:]))
