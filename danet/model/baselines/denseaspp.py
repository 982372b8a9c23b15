"""The head of DenseASPP (Yang et al., CVPR 2018, section 3): five dilated layers, each reading all earlier ones.

Channels are those of the released DenseASPP161, in proportion to the backbone's: it halves the features first, and each
layer has a quarter of the head's width.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions
from danet.model.danet import build_classifier

RATES = (3, 6, 12, 18, 24)
"""At stride 8."""


class DenseASPP(nn.Module):
    """The head: the last map -> logits of its size."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        backbone, growth = options.channels[-1], max(1, options.width // 4)
        channels = backbone // 2
        self.transition = nn.Sequential(
            nn.BatchNorm2d(backbone),
            nn.ReLU(),
            nn.Conv2d(backbone, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.layers = nn.ModuleList()
        for i, rate in enumerate(RATES):
            dilation = max(1, rate * 8 // options.stride)
            norm = [nn.BatchNorm2d(channels)] if i else []  # the transition ends with one
            self.layers.append(
                nn.Sequential(
                    *norm,
                    nn.ReLU(),
                    nn.Conv2d(channels, options.width, 1),
                    nn.BatchNorm2d(options.width),
                    nn.ReLU(),
                    nn.Conv2d(options.width, growth, 3, padding=dilation, dilation=dilation),
                    nn.Dropout2d(options.dropout),
                )
            )
            channels += growth
        self.classifier = build_classifier(channels, options.num_classes, options.dropout)

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, "B K h w"]:
        """Return the logits."""
        x = self.transition(features[-1])
        for layer in self.layers:
            x = torch.cat([layer(x), x], 1)
        return self.classifier(x)
