"""DeepLab-v2 (Chen et al., TPAMI 2018, section 3.2): atrous spatial pyramid pooling, ASPP-L, without normalization.

As in the authors' ResNet-101 version, each rate has a single convolution to the classes. There is no CRF.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions

RATES = (6, 12, 18, 24)
"""At stride 8."""


class DeepLabV2(nn.Module):
    """The head: the last map -> the sum of four dilated 3x3 convolutions to the classes."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        rates = [rate * 8 // options.stride for rate in RATES]
        self.branches = nn.ModuleList(
            nn.Conv2d(options.channels[-1], options.num_classes, 3, padding=rate, dilation=rate) for rate in rates
        )
        for branch in self.branches:
            assert isinstance(branch, nn.Conv2d)
            assert branch.bias is not None
            nn.init.normal_(branch.weight, std=0.01)
            nn.init.zeros_(branch.bias)

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, "B K h w"]:
        """Return the logits."""
        return torch.stack([branch(features[-1]) for branch in self.branches]).sum(0)
