"""DANet (Fu et al., CVPR 2019, Figure 2): a dilated backbone, two attention branches, sum fusion, three classifiers;
and the ablations of Table 1.

    backbone -+- 3x3 conv BN ReLU - PositionAttention - 3x3 conv BN ReLU -+- classifier -> position
              |                                                           + (sum) classifier -> fused
              +- 3x3 conv BN ReLU - ChannelAttention --- 3x3 conv BN ReLU -+- classifier -> channel

A classifier is Dropout2d and a 1x1 convolution. With one module there is one branch and one output; with none it is the
dilated FCN baseline.
"""

from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError
from danet.model.attention import ChannelAttention, PositionAttention
from danet.model.backbone import build_backbone


class Outputs(NamedTuple):
    """Logits at the input's size, B,K,H,W. `fused` is the prediction; the other two exist, for the multi-loss, when
    both modules are used.
    """

    fused: Float[Tensor, "B K H W"]
    position: Float[Tensor, "B K H W"] | None = None
    channel: Float[Tensor, "B K H W"] | None = None


class AuxiliaryOutputs(NamedTuple):
    """`Outputs`, and the logits of the auxiliary head: what a network that has one gives while it is trained."""

    fused: Float[Tensor, "B K H W"]
    position: Float[Tensor, "B K H W"] | None
    channel: Float[Tensor, "B K H W"] | None
    auxiliary: Float[Tensor, "B K H W"]


class DANet(nn.Module):
    """Normalized images B,N,H,W (any size) -> `Outputs` at the same size.

    Args:
        num_classes: K.
        backbone: a timm name, see `backbone.py`.
        output_stride: 8 as in the paper, or 16.
        layer4_dilations: multi-grid, absolute: (4, 8, 16) in the paper; None is 2, 4, 4.
        position, channel: which attention modules to use; neither is the dilated FCN.
        channel_form: "released" or "paper", see `ChannelAttention`.
        width: channels of the branches; None is a quarter of the backbone's (512 for ResNet-50 and 101).
        dropout: Dropout2d before each classifier.
        align_corners: of the bilinear upsampling of the logits; True in the released code, False in mmseg's 512 x 1024
            models.
        auxiliary: an FCN head on the backbone's last stage but one (layer3 of a ResNet), used in training only, as
            mmsegmentation has; the paper and the released code have none.
        in_channels: N, from 1 to 64; see `build_backbone`.
        pretrained: fetch the backbone's ImageNet weights from timm's hub.

    Raises:
        InputError: an argument that cannot be.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet50",
        output_stride: int = 8,
        layer4_dilations: tuple[int, ...] | None = None,
        position: bool = True,
        channel: bool = True,
        channel_form: str = "released",
        width: int | None = None,
        dropout: float = 0.1,
        align_corners: bool = True,
        auxiliary: bool = False,
        in_channels: int = 3,
        pretrained: bool = False,
    ):
        super().__init__()
        if num_classes < 1:
            raise InputError("number of classes", f"{num_classes} is less than 1", "give one name a class")
        if not 1 <= in_channels <= 64:
            raise InputError("input channels", f"{in_channels} is not from 1 to 64", "give the number of bands")
        if width is not None and width < 1:
            raise InputError("width", f"{width} is less than 1", "give the branches' channels, or None")
        if not 0 <= dropout < 1:
            raise InputError("dropout", f"{dropout} is not a probability below 1", "use 0.1 as released, or 0 for none")
        stages = 2 if auxiliary else 1
        self.backbone, sizes = build_backbone(
            backbone, output_stride, layer4_dilations, pretrained, stages, in_channels
        )
        channels = sizes[-1]
        width = channels // 4 if width is None else width
        self.reduce = None if position or channel else conv_bn_relu(channels, width)
        self.position = Branch(channels, width, PositionAttention(width)) if position else None
        self.channel = Branch(channels, width, ChannelAttention(channel_form)) if channel else None
        self.classifier = _classifier(width, num_classes, dropout)
        both = position and channel
        self.position_classifier = _classifier(width, num_classes, dropout) if both else None
        self.channel_classifier = _classifier(width, num_classes, dropout) if both else None
        self.auxiliary_head = _fcn_head(sizes[0], num_classes) if auxiliary else None
        self.align_corners, self.in_channels = align_corners, in_channels

    def forward(self, images: Float[Tensor, "B N H W"]) -> Outputs | AuxiliaryOutputs:
        up = partial(F.interpolate, size=images.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        *earlier, features = self.backbone(images)
        small = self._classified(features)
        outputs = Outputs(up(small.fused), *(None if logits is None else up(logits) for logits in small[1:]))
        if self.auxiliary_head is None or not self.training:
            return outputs
        return AuxiliaryOutputs(*outputs, up(self.auxiliary_head(earlier[0])))

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """The same outputs at the feature grid's size, B,K,ceil(H/stride),ceil(W/stride), before upsampling; without
        the auxiliary head's.
        """
        return self._classified(self.backbone(images)[-1])

    def _classified(self, features: Float[Tensor, "B C h w"]) -> Outputs:
        if self.position is not None and self.channel is not None:
            position, channel = self.position(features), self.channel(features)
            assert self.position_classifier is not None
            assert self.channel_classifier is not None
            return Outputs(
                self.classifier(position + channel),
                self.position_classifier(position),
                self.channel_classifier(channel),
            )
        only = self.position or self.channel or self.reduce
        assert only is not None
        return Outputs(self.classifier(only(features)))


class Branch(nn.Module):
    """Features B,C,h,w -> B,width,h,w: reduce by a 3x3 convolution, attend, refine by another (conv5a-sa-conv51 of the
    released code).
    """

    def __init__(self, channels: int, width: int, attention: PositionAttention | ChannelAttention):
        super().__init__()
        self.reduce = conv_bn_relu(channels, width)
        self.attention = attention
        self.refine = conv_bn_relu(width, width)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B c h w"]:
        return self.refine(self.attention(self.reduce(features)))


def conv_bn_relu(channels: int, width: int) -> nn.Sequential:
    """3x3 convolution without bias, batch normalization, ReLU."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def _fcn_head(channels: int, num_classes: int) -> nn.Sequential:
    width = max(1, channels // 4)
    return nn.Sequential(conv_bn_relu(channels, width), _classifier(width, num_classes, 0.1))


def _classifier(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
