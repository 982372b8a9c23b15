"""DANet (Fu et al., CVPR 2019, Figure 2): a dilated backbone, two attention branches, sum fusion, three classifiers.

    backbone -+- 3x3 conv BN ReLU - PositionAttention - 3x3 conv BN ReLU -+- classifier -> position
              |                                                           + (sum) classifier -> fused
              +- 3x3 conv BN ReLU - ChannelAttention --- 3x3 conv BN ReLU -+- classifier -> channel

A classifier is Dropout2d and a 1x1 convolution. The ablations of Table 1 have one attention module, and so one branch
and one output, or none: the dilated FCN baseline.

With `decoder=True` (ours) the backbone is not dilated. Its stages from the attention's stride on are upsampled to that
stride and concatenated for the branches, and a gated decoder refines the sum with the finer stages up to stride 4 or 2.
"""

from collections.abc import Sequence
from functools import partial
from typing import Generic, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError
from danet.hub_methods import HubMethods
from danet.model.attention import ChannelAttention, PositionAttention
from danet.model.backbone import build_backbone, build_pyramid
from danet.model.decoder import GatedDecoder

Attention = TypeVar("Attention", bound=nn.Module)


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


class AttentionRows(NamedTuple):
    """What defines the position weights S of Eq. 1: softmax(query key^T), one row per position.

    Attributes:
        query: C of the paper.
        key: B of the paper.
        grid: height and width of the feature grid; N is their product.
    """

    query: Float[Tensor, "B N D"]
    key: Float[Tensor, "B N D"]
    grid: tuple[int, int]


class TrainingOutputs(NamedTuple):
    """`Outputs` with what further losses need.

    Attributes:
        fused: see `Outputs`.
        position: see `Outputs`.
        channel: see `Outputs`.
        auxiliary: logits of the auxiliary head, in training mode of networks that have one.
        attention: of the position module, if asked for.
        presence: for each class, the logit of its presence in the image; only of EncNet, in training mode.
    """

    fused: Float[Tensor, "B K H W"]
    position: Float[Tensor, "B K H W"] | None
    channel: Float[Tensor, "B K H W"] | None
    auxiliary: Float[Tensor, "B K H W"] | None = None
    attention: AttentionRows | None = None
    presence: Float[Tensor, "B K"] | None = None


class DANet(nn.Module, HubMethods):
    """The network: normalized images B,N,H,W of any size -> `Outputs` at the same size.

    Args:
        num_classes: K.
        backbone: a timm model name; see `backbone.py`.
        output_stride: stride of the attention's grid: 8 as in the paper, 16 or 32.
        layer4_dilations: multi-grid, absolute: (4, 8, 16) in the paper; None means 2, 4, 4.
        position: use position attention.
        channel: use channel attention. Without both, the network is the dilated FCN.
        channel_form: "released", "paper" or "cosine"; see `ChannelAttention`.
        width: channels of the branches; None means a quarter of the backbone's (512 for ResNet-50 and 101).
        dropout: probability of Dropout2d before each classifier.
        align_corners: for the bilinear upsampling of the logits; True in the released code, False in mmseg's 512 x 1024
            models.
        auxiliary: add an FCN head on the second-to-last stage of the backbone (layer3 of a ResNet), used only in
            training, as in mmsegmentation. The paper and the released code have none.
        in_channels: N, from 1 to 64; see `build_backbone`.
        pretrained: download the backbone's ImageNet weights from the Hugging Face Hub.
        decoder: keep the backbone undilated and refine the result with its finer maps, for thin objects; see
            `decoder.py`. The paper has no decoder.
        initial_scale: alpha and beta at the start of the training; 0 in the paper.
        position_form: "paper", "centered" or "cosine"; see `PositionAttention`.
        reduction: the ratio of width to the channels of query and key: 8 in the released code, 1 in the paper's text.
        decoder_stride: stride of the decoder's result, 4 or 2; has no effect without a decoder.
        decoder_width: channels of the decoder's result at stride 4; at stride 2, it has half of them; from 8 to
            1024.

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
        decoder: bool = False,
        initial_scale: float = 0.0,
        position_form: str = "paper",
        reduction: int = 8,
        decoder_stride: int = 4,
        decoder_width: int = 64,
    ):
        super().__init__()
        check_arguments(num_classes, in_channels, width, dropout)
        if decoder:
            if layer4_dilations is not None:
                what = "multi-grid needs a dilated backbone, but with a decoder it is not dilated"
                raise InputError("layer4_dilations", what, "leave out `layer4_dilations` or `decoder`")
            self.backbone, sizes, strides = build_pyramid(
                backbone, output_stride, pretrained, in_channels, decoder_stride
            )
        else:
            stages = 2 if auxiliary else 1
            self.backbone, sizes = build_backbone(
                backbone, output_stride, layer4_dilations, pretrained, stages, in_channels
            )
            strides = [output_stride] * stages
        self.stride, self.finer_maps = output_stride, sum(stride < output_stride for stride in strides)
        channels = sum(sizes[self.finer_maps :]) if decoder else sizes[-1]
        width = channels // 4 if width is None else width
        self.reduce = None if position or channel else conv_bn_relu(channels, width)
        self.position = (
            Branch(channels, width, PositionAttention(width, reduction, position_form)) if position else None
        )
        self.channel = Branch(channels, width, ChannelAttention(channel_form)) if channel else None
        for branch in (self.position, self.channel):
            if branch is not None:
                nn.init.constant_(branch.attention.scale, initial_scale)
        finer = list(zip(strides, sizes, strict=True))[: self.finer_maps]
        self.decoder = GatedDecoder(width, dict(finer[::-1]), align_corners, decoder_width) if decoder else None
        self.classifier = build_classifier(width if self.decoder is None else self.decoder.width, num_classes, dropout)
        both = position and channel
        self.position_classifier = build_classifier(width, num_classes, dropout) if both else None
        self.channel_classifier = build_classifier(width, num_classes, dropout) if both else None
        self.auxiliary_head = fcn_head(sizes[-2], num_classes) if auxiliary else None
        self.align_corners, self.in_channels = align_corners, in_channels

    def forward(
        self, images: Float[Tensor, "B N H W"], attention: bool = False, detach: bool = False
    ) -> Outputs | TrainingOutputs:
        """Return the logits at the size of the images; in training mode also those of the auxiliary head.

        Args:
            images: normalized images.
            attention: also return query and key of the position module, as `TrainingOutputs`.
            detach: pass no gradient from these query and key to the features that they are computed from.

        Raises:
            InputError: `attention` of a network without position attention.
        """
        up = partial(upsample, size=images.shape[-2:], align_corners=self.align_corners)
        stages = self.backbone(images)
        features, finer = self.split(stages)
        small, rows = self._classify(features, finer, attention, detach)
        outputs = Outputs(up(small.fused), *(None if logits is None else up(logits) for logits in small[1:]))
        has_auxiliary = self.auxiliary_head is not None and self.training
        if rows is None and not has_auxiliary:
            return outputs
        auxiliary = up(self.auxiliary_head(stages[-2])) if self.auxiliary_head is not None and has_auxiliary else None
        return TrainingOutputs(*outputs, auxiliary, rows)

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """Return the logits before upsampling, without the auxiliary head's.

        They have the size of the attention's grid, ceil(H/stride),ceil(W/stride); with a decoder, `fused` is
        finer.
        """
        return self._classify(*self.split(self.backbone(images)))[0]

    def split(self, stages: Sequence[Tensor]) -> tuple[Float[Tensor, "B C h w"], list[Tensor]]:
        """Return the features that the branches read, and the finer maps that the decoder reads, from coarse to fine.

        Args:
            stages: the backbone's feature maps.
        """
        if self.decoder is None:
            return stages[-1], []
        first, *deeper = stages[self.finer_maps :]
        up = partial(F.interpolate, size=first.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return torch.cat([first, *map(up, deeper)], 1), list(stages[: self.finer_maps][::-1])

    def fuse(self, branches: Sequence[Float[Tensor, "B c h w"]], finer: Sequence[Tensor]) -> Float[Tensor, "B K H W"]:
        """Return the logits of the fused output from the branches' results and the finer maps of `split`."""
        first, *others = branches
        features = sum(others, first)
        return self.classifier(features if self.decoder is None else self.decoder(features, finer))

    def _classify(
        self, features: Tensor, finer: Sequence[Tensor], attention: bool = False, detach: bool = False
    ) -> tuple[Outputs, AttentionRows | None]:
        if self.position is None:
            if attention:
                raise InputError("attention", "the network has no position attention", "leave out `attention`")
            branch = self.channel or self.reduce
            assert branch is not None
            return Outputs(self.fuse([branch(features)], finer)), None
        reduced = self.position.reduce(features)
        module = self.position.attention
        grid = reduced.shape[2], reduced.shape[3]
        source = reduced.detach() if detach else reduced
        rows = AttentionRows(*module.query_key(source), grid) if attention else None
        position = self.position.refine(module(reduced))
        if self.channel is None:
            return Outputs(self.fuse([position], finer)), rows
        channel = self.channel(features)
        assert self.position_classifier is not None
        assert self.channel_classifier is not None
        fused = self.fuse([position, channel], finer)
        return Outputs(fused, self.position_classifier(position), self.channel_classifier(channel)), rows


class Branch(nn.Module, Generic[Attention]):
    """An attention branch: 3x3 convolution, attention, 3x3 convolution (conv5a-sa-conv51 in the released code).

    Args:
        channels: of the features, B,channels,h,w.
        width: of the result, B,width,h,w.
        attention: a module on `width` channels.
    """

    def __init__(self, channels: int, width: int, attention: Attention):
        super().__init__()
        self.reduce = conv_bn_relu(channels, width)
        self.attention: Attention = attention
        self.refine = conv_bn_relu(width, width)

    def forward(self, features: Float[Tensor, "B C h w"]) -> Float[Tensor, "B c h w"]:
        """Return the refined features."""
        return self.refine(self.attention(self.reduce(features)))


def check_arguments(num_classes: int, in_channels: int, width: int | None, dropout: float) -> None:
    """Check the arguments that `DANet` and `DRANet` have in common.

    Raises:
        InputError: an invalid argument.
    """
    if num_classes < 1:
        raise InputError("num_classes", f"must be at least 1, got {num_classes}", "use the number of classes")
    if not 1 <= in_channels <= 64:
        raise InputError("in_channels", f"must be from 1 to 64, got {in_channels}", "use the number of bands")
    if width is not None and width < 1:
        raise InputError("width", f"must be at least 1, got {width}", "use None for a quarter of the backbone's")
    if not 0 <= dropout < 1:
        raise InputError("dropout", f"must be from 0 to below 1, got {dropout}", "use 0.1 as in the released code")


def upsample(logits: Float[Tensor, "B K h w"], size: Sequence[int], align_corners: bool) -> Float[Tensor, "B K H W"]:
    """Return logits, bilinearly upsampled and contiguous: both passes are faster, and the losses need them so."""
    return F.interpolate(logits.contiguous(), tuple(size), mode="bilinear", align_corners=align_corners)


def conv_bn_relu(channels: int, width: int, kernel: int = 3) -> nn.Sequential:
    """Return a convolution without bias, 3x3 by default, batch normalization and ReLU."""
    convolution = nn.Conv2d(channels, width, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(width), nn.ReLU())


def fcn_head(channels: int, num_classes: int) -> nn.Sequential:
    """Return a 3x3 convolution to a quarter of the channels, and a classifier."""
    width = max(1, channels // 4)
    return nn.Sequential(conv_bn_relu(channels, width), build_classifier(width, num_classes, 0.1))


def build_classifier(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Return Dropout2d and a 1x1 convolution."""
    return nn.Sequential(nn.Dropout2d(dropout), nn.Conv2d(width, num_classes, 1))
