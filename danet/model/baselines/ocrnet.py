"""OCRNet (Yuan, Chen, Wang, ECCV 2020, section 3.2): each pixel attends to the mean features of the object regions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions, HeadOutputs
from danet.model.danet import build_classifier, conv_bn_relu, fcn_head


class OCRNet(nn.Module):
    """The head: the last two maps -> logits of their size, and those of the soft object regions as `auxiliary`."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        width, inner = options.width, max(1, options.width // 2)
        self.regions = fcn_head(options.channels[-2], options.num_classes)
        self.reduce = conv_bn_relu(options.channels[-1], width)
        self.query, self.key = (
            nn.Sequential(conv_bn_relu(width, inner, 1), conv_bn_relu(inner, inner, 1)) for _ in range(2)
        )
        self.value = conv_bn_relu(width, inner, 1)
        self.out = conv_bn_relu(inner, width, 1)
        self.mix = conv_bn_relu(2 * width, width, 1)
        self.classifier = build_classifier(width, options.num_classes, options.dropout)

    def forward(self, features: Sequence[Tensor]) -> HeadOutputs:
        """Return the logits and those of the regions."""
        coarse, pixels = self.regions(features[-2]), self.reduce(features[-1])
        shares = coarse.flatten(2).softmax(2)  # B,K,N: of each pixel in a region
        regions = (shares @ pixels.flatten(2).transpose(1, 2)).transpose(1, 2)[..., None]  # B,c,K,1: Eq. 8
        query, key, value = self.query(pixels), self.key(regions), self.value(regions)
        products = query.flatten(2).transpose(1, 2) @ key.flatten(2)  # B,N,K
        relation = (query.shape[1] ** -0.5 * products).softmax(2)  # Eq. 10
        context = (relation @ value.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, pixels.shape[2:])
        mixed = self.mix(torch.cat([self.out(context), pixels], 1))
        return HeadOutputs(self.classifier(mixed), coarse)
