"""The frame of CCNet, DNL and GCNet: 3x3 convolution, a context block, 3x3 convolution, and both beside the features.

It is the one of CCNet's released code, which mmsegmentation uses for all three.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions
from danet.model.danet import build_classifier, conv_bn_relu


class ContextHead(nn.Module):
    """The head: the last map -> logits of its size.

    Args:
        build_block: channels -> a module B,c,h,w -> B,c,h,w.
        options: of the head.
    """

    def __init__(self, build_block: Callable[[int], nn.Module], options: HeadOptions):
        super().__init__()
        channels, width = options.channels[-1], options.width
        self.reduce = conv_bn_relu(channels, width)
        self.block = build_block(width)
        self.refine = conv_bn_relu(width, width)
        self.mix = conv_bn_relu(channels + width, width)
        self.classifier = build_classifier(width, options.num_classes, options.dropout)

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, "B K h w"]:
        """Return the logits."""
        context = self.refine(self.block(self.reduce(features[-1])))
        return self.classifier(self.mix(torch.cat([features[-1], context], 1)))
