"""EncNet (Zhang et al., CVPR 2018, section 3): an encoding of the context weights the channels.

As in the released code without lateral connections. The SE-loss is `presence` of `danet.model.loss`.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions, HeadOutputs
from danet.model.danet import build_classifier, conv_bn_relu

CODEWORDS = 32


class EncNet(nn.Module):
    """The head: the last map -> logits of its size, and whether each class is present."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        width = options.width
        self.reduce = conv_bn_relu(options.channels[-1], width)
        self.project = conv_bn_relu(width, width, 1)
        self.encoding = Encoding(width)
        self.norm = nn.BatchNorm1d(CODEWORDS)
        self.gate = nn.Linear(width, width)
        self.presence = nn.Linear(width, options.num_classes)
        self.classifier = build_classifier(width, options.num_classes, options.dropout)

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Return the logits and the logits of presence."""
        x = self.reduce(features[-1])
        encoded = self.norm(self.encoding(self.project(x).flatten(2).transpose(1, 2))).relu().mean(1)  # B,c
        weighted = torch.relu(x * (1 + self.gate(encoded).sigmoid()[..., None, None]))
        return HeadOutputs(self.classifier(weighted), presence=self.presence(encoded))


class Encoding(nn.Module):
    """The encoding layer: residuals from learned codewords, by soft assignment (Eq. 1 and 2).

    Args:
        channels: of the features.
    """

    def __init__(self, channels: int):
        super().__init__()
        limit = (CODEWORDS * channels) ** -0.5
        self.codewords = nn.Parameter(torch.empty(CODEWORDS, channels).uniform_(-limit, limit))
        self.scale = nn.Parameter(torch.empty(CODEWORDS).uniform_(-1, 0))

    def forward(self, x: Float[Tensor, "B N c"]) -> Float[Tensor, "B M c"]:
        """Return the encoding."""
        distances = x.square().sum(2, keepdim=True) - 2 * x @ self.codewords.T + self.codewords.square().sum(1)
        weights = (self.scale * distances).softmax(2)  # B,N,M
        return weights.transpose(1, 2) @ x - weights.sum(1)[..., None] * self.codewords
