"""BiSeNet (Yu et al., ECCV 2018, Figure 2): a shallow path for details and a deep path for context.

The backbone is the context path and is not dilated. Of the two auxiliary losses, the one at stride 16 is used.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions, HeadOutputs
from danet.model.danet import build_classifier, conv_bn_relu

WIDTH = 128
"""Of the context path."""


class BiSeNet(nn.Module):
    """The head: the images and the maps of strides 16 and 32 -> logits at stride 8, and those at stride 16."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        at16, at32 = options.channels[-2:]
        self.spatial = nn.Sequential(
            _strided(options.channels[0], 64, 7), _strided(64, 64), _strided(64, 64), conv_bn_relu(64, WIDTH, 1)
        )
        self.refine16, self.refine32 = _Refinement(at16), _Refinement(at32)
        self.overall = conv_bn_relu(at32, WIDTH, 1)
        self.up16, self.up32 = (conv_bn_relu(WIDTH, WIDTH) for _ in range(2))
        self.mix = conv_bn_relu(2 * WIDTH, 2 * WIDTH, 1)
        self.gate = conv_bn_relu(2 * WIDTH, 2 * WIDTH, 1)
        self.classifier = nn.Sequential(
            conv_bn_relu(2 * WIDTH, 2 * WIDTH), build_classifier(2 * WIDTH, options.num_classes, options.dropout)
        )
        self.auxiliary = nn.Sequential(
            conv_bn_relu(WIDTH, WIDTH // 2), build_classifier(WIDTH // 2, options.num_classes, options.dropout)
        )

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Return the logits and the auxiliary ones."""
        spatial = self.spatial(features[0])
        at16, at32 = features[-2:]
        deep = self.refine32(at32) + self.overall(at32.mean((2, 3), keepdim=True))
        deep = self.up32(F.interpolate(deep, at16.shape[2:]))
        context = self.up16(F.interpolate(self.refine16(at16) + deep, spatial.shape[2:]))
        mixed = self.mix(torch.cat([spatial, context], 1))
        mixed = mixed + mixed * self.gate(mixed.mean((2, 3), keepdim=True)).sigmoid()
        return HeadOutputs(self.classifier(mixed), self.auxiliary(deep))


class _Refinement(nn.Module):
    """The attention refinement module, Figure 2(b)."""

    def __init__(self, channels: int):
        super().__init__()
        self.reduce = conv_bn_relu(channels, WIDTH)
        self.gate = nn.Sequential(nn.Conv2d(WIDTH, WIDTH, 1, bias=False), nn.BatchNorm2d(WIDTH), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return x * self.gate(x.mean((2, 3), keepdim=True))


def _strided(channels: int, width: int, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(channels, width, kernel, stride=2, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())
