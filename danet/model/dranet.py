"""DRANet (Fu et al., TNNLS 2020), the successor of DANet: attention to a few centers, and a gated decoder.

    last stage -+- 3x3 conv BN ReLU - CompactPositionAttention - 3x3 conv BN ReLU -+
                |                                                                  + (concat) 3x3 conv BN ReLU -+
                +- 3x3 conv BN ReLU - CompactChannelAttention -- 3x3 conv BN ReLU -+                            |
    first stage (stride 4) ------------------------------------------------------- CrossLevelGating -- classifier

The backbone is dilated as DANet's. Positions attend to 50 pooled regions instead of all N positions, and channels to
C / 16 mixtures of channels, so attention costs O(N). In training, an FCN head on the second-to-last stage has its own
loss. Built as in the released code of 2020; its outputs are tested (`tests/model/test_golden.py`).
"""

from collections.abc import Sequence
from functools import partial
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError
from danet.hub_methods import HubMethods
from danet.model.attention_kernels import attention_weights
from danet.model.backbone import build_backbone
from danet.model.danet import (
    Branch,
    DANet,
    Outputs,
    TrainingOutputs,
    build_classifier,
    check_arguments,
    conv_bn_relu,
    fcn_head,
    upsample,
)
from danet.model.decoder import concat_gated

POOLS = (1, 2, 3, 6)
"""The centers of the position attention are the means of the cells of four grids, with so many cells along each side.

Cells are those of adaptive average pooling: they cover the image, and overlap if the sides are not divisible.
"""

CENTERS = sum(side**2 for side in POOLS)
"""The number of centers, 50."""


class DRANet(nn.Module, HubMethods):
    """The network: normalized images B,N,H,W of any size -> `Outputs` at the same size, with `fused` only.

    With the default backbone, `layer4_dilations=(4, 8, 16)` and 19 classes, it is the released network of 73.7 million
    parameters.

    Args:
        num_classes: K.
        backbone: a timm model name; see `backbone.py`. ResNets of the released code have a deep stem: resnet50s,
            resnet101s.
        output_stride: stride of the attention's grid: 8 as released, 16 or 32.
        layer4_dilations: multi-grid, absolute: (4, 8, 16) as released; None means 2, 4, 4.
        width: C, the channels of the branches; None means a quarter of the backbone's (512 for ResNet-50 and 101). The
            decoder has C / 2 channels, and reads C / 16 of the first stage.
        dropout: probability of Dropout2d before the classifier.
        align_corners: for the bilinear upsampling of features and logits.
        auxiliary: add an FCN head on the second-to-last stage of the backbone, used only in training.
        in_channels: N, from 1 to 64; see `build_backbone`.
        pretrained: download the backbone's ImageNet weights from the Hugging Face Hub.
        initial_scale: of both attention modules at the start of the training; 0 as released.

    Raises:
        InputError: an invalid argument.
    """

    def __init__(
        self,
        num_classes: int,
        backbone: str = "resnet101s",
        output_stride: int = 8,
        layer4_dilations: tuple[int, ...] | None = None,
        width: int | None = None,
        dropout: float = 0.1,
        align_corners: bool = True,
        auxiliary: bool = True,
        in_channels: int = 3,
        pretrained: bool = False,
        initial_scale: float = 0.0,
    ):
        super().__init__()
        check_arguments(num_classes, in_channels, width, dropout)
        self.backbone, sizes = build_backbone(backbone, output_stride, layer4_dilations, pretrained, 4, in_channels)
        self.stride, channels = output_stride, sizes[-1]
        width = channels // 4 if width is None else width
        fused = max(1, width // 2)
        self.position = Branch(channels, width, CompactPositionAttention(width))
        self.channel = Branch(channels, width, CompactChannelAttention(width))
        for branch in (self.position, self.channel):
            nn.init.constant_(branch.attention.scale, initial_scale)
        self.merge = conv_bn_relu(2 * width, fused)
        self.decoder = CrossLevelGating(sizes[0], fused, max(1, width // 16), align_corners)
        self.classifier = build_classifier(fused, num_classes, dropout)
        self.auxiliary_head = fcn_head(sizes[-2], num_classes) if auxiliary else None
        self.align_corners, self.in_channels = align_corners, in_channels

    def forward(self, images: Float[Tensor, "B N H W"]) -> Outputs | TrainingOutputs:
        """Return the logits at the size of the images; in training mode also those of the auxiliary head.

        Raises:
            InputError: a single image in training mode.
        """
        up = partial(upsample, size=images.shape[-2:], align_corners=self.align_corners)
        stages = self.backbone(images)
        fused = up(self._classify(stages))
        if self.auxiliary_head is None or not self.training:
            return Outputs(fused)
        return TrainingOutputs(fused, None, None, up(self.auxiliary_head(stages[-2])))

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """Return the logits before upsampling, at stride 4, without the auxiliary head's."""
        return Outputs(self._classify(self.backbone(images)))

    def split(self, stages: Sequence[Tensor]) -> tuple[Float[Tensor, "B C h w"], list[Tensor]]:
        """Return the features that the branches read, and the finer map that the decoder reads.

        Args:
            stages: the backbone's feature maps.
        """
        return stages[-1], [stages[0]]

    def fuse(self, branches: Sequence[Float[Tensor, "B c h w"]], finer: Sequence[Tensor]) -> Float[Tensor, "B K H W"]:
        """Return the logits from the results of the position and channel branch, and the finer map of `split`."""
        (fine,) = finer
        return self.classifier(self.decoder(fine, self.merge(torch.cat(list(branches), 1))))

    def _classify(self, stages: Sequence[Tensor]) -> Tensor:
        features, finer = self.split(stages)
        return self.fuse([self.position(features), self.channel(features)], finer)


class CompactPositionAttention(nn.Module):
    """Compact position attention (CPAM): add to each position a weighted sum over `CENTERS` pooled regions.

    Like Eq. 1-2 of DANet, with the regions' features, each grid's mixed by its own 1x1 convolution, in place of the
    positions'. query is a 1x1 convolution, key and value are linear layers on the centers, all with bias.

    Args:
        channels: C of the input.
        reduction: the ratio of C to the channels of query and key, of which there is at least one.
    """

    def __init__(self, channels: int, reduction: int = 4):
        super().__init__()
        narrow = max(1, channels // reduction)
        self.mix = nn.ModuleList(conv_bn_relu(channels, channels, 1) for _ in POOLS)
        self.query = nn.Conv2d(channels, narrow, 1)
        self.key = nn.Linear(channels, narrow)
        self.value = nn.Linear(channels, channels)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return scale * attended + x.

        Raises:
            InputError: a single image in training mode.
        """
        centers = self.centers(x)
        weights = attention_weights(self._queries(x), self.key(centers))  # B,N,M
        attended = weights.to(x.dtype) @ self.value(centers).to(x.dtype)  # B,N,C
        return torch.addcmul(x, attended.transpose(1, 2).unflatten(2, x.shape[-2:]), self.scale)

    def query_key(self, x: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B N D"], Float[Tensor, "B M D"]]:
        """Return the queries of the positions and the keys of the centers."""
        return self._queries(x), self.key(self.centers(x))

    def centers(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B M C"]:
        """Return the features of the centers, in the order of `center_regions`.

        Raises:
            InputError: a single image in training mode.
        """
        whole = self.mix[0]
        assert isinstance(whole, nn.Sequential)
        # the batch last: torch.export must not compare its size
        if isinstance(norm := whole[1], nn.BatchNorm2d) and norm.training and x.shape[0] == 1:
            what = "a single image cannot be trained on: the mean over the image is normalized over the batch"
            raise InputError("images", what, "use at least two images, or evaluation mode")
        pooled = zip(self.mix, _pools(x), strict=True)
        return torch.cat([mix(cells).flatten(2) for mix, cells in pooled], 2).transpose(1, 2)

    def _queries(self, x: Tensor) -> Tensor:
        return self.query(x).flatten(2).transpose(1, 2)


class CompactChannelAttention(nn.Module):
    """Compact channel attention (CCAM): add to each channel map a weighted sum over C / 16 channel centers.

    A center is a mixture of the channels, by a 1x1 convolution. As in DANet's released channel attention, a channel
    attends to the centers that are *least* similar to it: the weights are softmax(rowmax - energies).

    Args:
        channels: C of the input.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.mix = conv_bn_relu(channels, max(1, channels // 16), 1)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        """Return scale * attended + x."""
        centers = self.mix(x)
        attended = self._weights(x, centers).to(x.dtype) @ centers.to(x.dtype).flatten(2)  # B,C,N
        return torch.addcmul(x, attended.unflatten(2, x.shape[-2:]), self.scale)

    def weights(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C M"]:
        """Return each channel's attention to the centers, in float32 or better; each row sums to 1."""
        return self._weights(x, self.mix(x))

    def _weights(self, x: Tensor, centers: Tensor) -> Tensor:
        full = torch.promote_types(x.dtype, torch.float32)  # sums of N products, as in ChannelAttention
        with torch.autocast(x.device.type, enabled=False):
            energy = x.flatten(2).to(full) @ centers.flatten(2).to(full).transpose(1, 2)
            return torch.softmax(-energy, dim=-1)


class CrossLevelGating(nn.Module):
    """Cross-level gating decoder (CLGD): add gated details of a fine map to upsampled features.

    Args:
        fine: channels of the fine map.
        coarse: channels of the features, and of the result.
        width: channels that the fine map is reduced to.
        align_corners: for the upsampling.
    """

    def __init__(self, fine: int, coarse: int, width: int, align_corners: bool):
        super().__init__()
        self.project = conv_bn_relu(fine, width)
        self.gate = nn.Conv2d(width + coarse, 1, 1)
        self.scale = nn.Parameter(torch.ones(()))
        self.mix = nn.Sequential(conv_bn_relu(width + coarse, coarse), conv_bn_relu(coarse, coarse))
        self.align_corners = align_corners

    def forward(self, fine: Float[Tensor, "B F H W"], coarse: Float[Tensor, "B C h w"]) -> Float[Tensor, "B C H W"]:
        """Return features at the size of the fine map."""
        return self.mix(concat_gated(self.project(fine), coarse, self.gate, self.align_corners, self.scale))


AttentionNetwork = DANet | DRANet
"""The networks whose attention can be inspected: they have the same methods."""


def center_regions(height: int, width: int, like: Tensor) -> Float[Tensor, "M N"]:
    """Return the region of each center: the weights of its positions, which sum to 1.

    Args:
        height: of the feature grid.
        width: of the feature grid.
        like: a tensor of the type and device of the result.
    """
    rows, columns = (_cells(like.new_ones(side)).split(POOLS) for side in (height, width))
    return torch.cat([torch.kron(r, c) for r, c in zip(rows, columns, strict=True)])


def _pools(x: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B C _ _"]]:
    """Return the adaptive average pools of x, by matrix products, which can be exported for any size."""
    with torch.autocast(x.device.type, enabled=False):
        full = x.to(torch.promote_types(x.dtype, torch.float32))
        rows, columns = _cells(full[0, 0, :, 0]), _cells(full[0, 0, 0])
        ends = [sum(POOLS[:i]) for i in range(len(POOLS) + 1)]
        across = full @ columns.T  # B,C,H,12
        return [(rows[a:b] @ across[..., a:b]).to(x.dtype) for a, b in pairwise(ends)]


def _cells(line: Float[Tensor, " side"]) -> Float[Tensor, "n side"]:
    """Return the weights of the positions along a side in each cell of the pools, the pools below each other.

    Args:
        line: anything of the side's length; torch.export could not tell that torch.arange has the same length.
    """
    cells, count = (
        torch.tensor(values, device=line.device)
        for values in zip(*((i, pool) for pool in POOLS for i in range(pool)), strict=True)
    )
    side, position = line.shape[0], torch.ones_like(line).cumsum(0) - 1
    first, end = cells * side // count, ((cells + 1) * side + count - 1) // count
    inside = ((position >= first[:, None]) & (position < end[:, None])).to(line.dtype)
    return inside / inside.sum(1, keepdim=True)
