"""EMANet (Li et al., ICCV 2019, section 3.3): attention to 64 bases found by expectation-maximization.

The last iteration has gradients. The released code has none in any iteration, so its first 1x1 convolution, an `EMAU`'s
`before`, stays as it was initialized.
"""

from collections.abc import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions
from danet.model.danet import build_classifier, conv_bn_relu

BASES, ITERATIONS, MOMENTUM = 64, 3, 0.9


class EMANet(nn.Module):
    """The head: the last map -> logits of its size."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        width, half = options.width, max(1, options.width // 2)
        self.layers = nn.Sequential(
            conv_bn_relu(options.channels[-1], width),
            EMAU(width),
            conv_bn_relu(width, half),
            build_classifier(half, options.num_classes, options.dropout),
        )

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, "B K h w"]:
        """Return the logits."""
        return self.layers(features[-1])


class EMAU(nn.Module):
    """The expectation-maximization attention unit: B,C,H,W -> B,C,H,W.

    Args:
        channels: C.
    """

    bases: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.before = nn.Conv2d(channels, channels, 1)
        self.after = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))
        self.register_buffer("bases", F.normalize(torch.randn(1, BASES, channels), dim=2))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return the features with their reconstruction from the bases added."""
        points = self.before(x).flatten(2).transpose(1, 2)  # B,N,C
        bases = self.bases.expand(len(x), -1, -1)
        with torch.no_grad():
            for _ in range(ITERATIONS - 1):
                bases, _ = _iterate(points, bases)
        bases, weights = _iterate(points, bases)
        if self.training:
            self._update(bases.detach().float().mean(0, keepdim=True))
        rebuilt = (weights @ bases).transpose(1, 2).unflatten(2, x.shape[2:])
        return torch.relu(x + self.after(torch.relu(rebuilt)))

    def _update(self, mean: Tensor) -> None:
        """Move the initial bases of later images towards those of this batch, over all processes."""
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
        self.bases.lerp_(F.normalize(mean, dim=2), 1 - MOMENTUM)


def _iterate(points: Tensor, bases: Tensor) -> tuple[Tensor, Tensor]:
    """Return the new bases B,M,C (Eq. 12) and each point's responsibilities B,N,M (Eq. 11)."""
    weights = (points @ bases.transpose(1, 2)).softmax(2)
    sums = (weights / (1e-6 + weights.sum(1, keepdim=True))).transpose(1, 2) @ points
    return F.normalize(sums, dim=2, eps=1e-6), weights
