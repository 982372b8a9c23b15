"""DANet (Fu et al., CVPR 2019, Figure 2): a dilated backbone, two attention branches, sum fusion, three classifiers.

    backbone -+- 3x3 conv BN ReLU - PositionAttention - 3x3 conv BN ReLU -+- classifier -> position
              |                                                           + (sum) classifier -> fused
              +- 3x3 conv BN ReLU - ChannelAttention --- 3x3 conv BN ReLU -+- classifier -> channel

A classifier is Dropout2d and a 1x1 convolution. The ablations of Table 1 have one attention module, and so one branch
and one output, or none: the dilated FCN baseline.
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
    """Logits B,K,H,W at the input's size.

    Attributes:
        fused: the prediction.
        position: of the position branch, for the multi-loss; None unless both attention modules are used.
        channel: of the channel branch, likewise.
    """

    fused: Float[Tensor, "B K H W"]
    position: Float[Tensor, "B K H W"] | None = None
    channel: Float[Tensor, "B K H W"] | None = None


class AuxiliaryOutputs(NamedTuple):
    """`Outputs` with the logits of the auxiliary head, returned in training mode by networks that have one.

    Attributes:
        fused: see `Outputs`.
        position: see `Outputs`.
        channel: see `Outputs`.
        auxiliary: of the auxiliary head.
    """

    fused: Float[Tensor, "B K H W"]
    position: Float[Tensor, "B K H W"] | None
    channel: Float[Tensor, "B K H W"] | None
    auxiliary: Float[Tensor, "B K H W"]


class DANet(nn.Module):
    """The network: normalized images B,N,H,W of any size -> `Outputs` at the same size.

    Args:
        num_classes: K.
        backbone: a timm model name; see `backbone.py`.
        output_stride: 8 as in the paper, or 16.
        layer4_dilations: multi-grid, absolute: (4, 8, 16) in the paper; None means 2, 4, 4.
        position: use position attention.
        channel: use channel attention. Without both, the network is the dilated FCN.
        channel_form: "released" or "paper"; see `ChannelAttention`.
        width: channels of the branches; None means a quarter of the backbone's (512 for ResNet-50 and 101).
        dropout: probability of Dropout2d before each classifier.
        align_corners: for the bilinear upsampling of the logits; True in the released code, False in mmseg's 512 x 1024
            models.
        auxiliary: add an FCN head on the second-to-last stage of the backbone (layer3 of a ResNet), used only in
            training, as in mmsegmentation. The paper and the released code have none.
        in_channels: N, from 1 to 64; see `build_backbone`.
        pretrained: download the backbone's ImageNet weights from timm's hub.

    Raises:
        InputError: an invalid argument.
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
            raise InputError("num_classes", f"must be at least 1, got {num_classes}", "use the number of classes")
        if not 1 <= in_channels <= 64:
            raise InputError("in_channels", f"must be from 1 to 64, got {in_channels}", "use the number of bands")
        if width is not None and width < 1:
            raise InputError("width", f"must be at least 1, got {width}", "use None for a quarter of the backbone's")
        if not 0 <= dropout < 1:
            raise InputError("dropout", f"must be from 0 to below 1, got {dropout}", "use 0.1 as in the released code")
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
        """Return the logits at the size of the images; with the auxiliary head's in training mode."""
        up = partial(F.interpolate, size=images.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        *earlier, features = self.backbone(images)
        small = self._classify(features)
        outputs = Outputs(up(small.fused), *(None if logits is None else up(logits) for logits in small[1:]))
        if self.auxiliary_head is None or not self.training:
            return outputs
        return AuxiliaryOutputs(*outputs, up(self.auxiliary_head(earlier[0])))

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """Return the logits before upsampling, B,K,ceil(H/stride),ceil(W/stride), without the auxiliary head's."""
        return self._classify(self.backbone(images)[-1])

    def _classify(self, features: Float[Tensor, "B C h w"]) -> Outputs:
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
    """An attention branch: 3x3 convolution, attention, 3x3 convolution (conv5a-sa-conv51 in the released code).

    Args:
        channels: of the features, B,channels,h,w.
        width: of the result, B,width,h,w.
        attention: a module on `width` channels.
    """

    def __init__(self, channels: int, width: int, attention: PositionAttention | ChannelAttention):
        super().__init__()
        self.reduce = conv_bn_relu(channels, width)
        self.attention = attention
        self.refine = conv_bn_relu(width, width)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B c h w"]:
        """Return the refined features."""
        return self.refine(self.attention(self.reduce(features)))


def conv_bn_relu(channels: int, width: int) -> nn.Sequential:
    """Return a 3x3 convolution without bias, batch normalization and ReLU."""
    return nn.Sequential(nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def _fcn_head(channels: int, num_classes: int) -> nn.Sequential:
    width = max(1, channels // 4)
    return nn.Sequential(conv_bn_relu(channels, width), _classifier(width, num_classes, 0.1))


def _classifier(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
