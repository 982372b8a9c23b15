"""A gated decoder from the attention's grid up to stride 4 or 2 (ours; gated as in DRANet's CLGD, Fu et al., 2020).

    finer map -- 1x1 conv BN ReLU --+------- x gate --+
                                    +- gate -+        + (concat) depthwise 3x3, 1x1 -> next fusion
    coarser features -- upsample ---+-----------------+

A gate is one sigmoid per position, computed from both inputs by a 1x1 convolution. The convolutions are
depthwise-separable, because the maps at stride 4 are large.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError


class Widths(NamedTuple):
    """Channels of a fusion.

    Attributes:
        skip: that the fine map is reduced to.
        coarse: that the coarse features are reduced to before they are upsampled; None: as they are.
        result: of the result.
    """

    skip: int
    coarse: int | None
    result: int

    @classmethod
    def at(cls, stride: int, width: int) -> "Widths":
        """Return those of the fusion at a stride; at 2, they are narrower, as the maps are four times as large."""
        return cls(width // 2, None, width) if stride >= 4 else cls(width // 8, 3 * width // 8, width // 2)


class GatedDecoder(nn.Module):
    """Refine coarse features with the backbone's finer maps, one map after another, each twice as fine.

    Args:
        channels: of the coarse features.
        finer: channels of the finer maps by their strides, from coarse to fine.
        align_corners: for the upsampling.
        width: channels of the result at stride 4; at stride 2, it has half of them.

    Attributes:
        width: channels of the result.

    Raises:
        InputError: a width that is not from 8 to 1024.
    """

    def __init__(self, channels: int, finer: Mapping[int, int], align_corners: bool, width: int = 64):
        super().__init__()
        if width not in range(8, 1025):
            raise InputError("decoder_width", f"must be from 8 to 1024, got {width}", "choose another number")
        self.fusions = nn.ModuleList()
        self.width = channels
        for stride, fine in finer.items():
            widths = Widths.at(stride, width)
            self.fusions.append(GatedFusion(fine, self.width, widths, align_corners))
            self.width = widths.result

    def forward(self, features: Float[Tensor, "B C h w"], finer: Sequence[Tensor]) -> Float[Tensor, "B c H W"]:
        """Return features at the size of the last of the finer maps.

        Args:
            features: the coarse features.
            finer: the backbone's maps, from coarse to fine.
        """
        for fusion, skip in zip(self.fusions, finer, strict=True):
            features = fusion(skip, features)
        return features


class GatedFusion(nn.Module):
    """Fuse a fine map with coarser features; a gate decides per position how much of the fine map passes.

    Args:
        fine: channels of the fine map.
        coarse: channels of the coarser features.
        widths: channels inside.
        align_corners: for the upsampling.
    """

    def __init__(self, fine: int, coarse: int, widths: Widths, align_corners: bool):
        super().__init__()
        self.project = _conv1x1(fine, widths.skip)
        self.reduce = nn.Identity() if widths.coarse is None else _conv1x1(coarse, widths.coarse)
        both = widths.skip + (coarse if widths.coarse is None else widths.coarse)
        self.gate = nn.Conv2d(both, 1, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False),
            nn.BatchNorm2d(both),
            nn.ReLU(),
            *_conv1x1(both, widths.result),
        )
        self.align_corners = align_corners

    def forward(self, fine: Float[Tensor, "B F H W"], coarse: Float[Tensor, "B C h w"]) -> Float[Tensor, "B c H W"]:
        """Return the fused features at the size of the fine map."""
        return self.mix(concat_gated(self.project(fine), self.reduce(coarse), self.gate, self.align_corners))


def _conv1x1(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


def concat_gated(
    fine: Float[Tensor, "B F H W"],
    coarse: Float[Tensor, "B C h w"],
    gate: nn.Conv2d,
    align_corners: bool,
    scale: Tensor | float = 1.0,
) -> Float[Tensor, "B c H W"]:
    """Return the gated fine features and the upsampled coarse ones, concatenated.

    Args:
        fine: fine features.
        coarse: coarser features.
        gate: a 1x1 convolution of both, concatenated, to one channel; its sigmoid is the factor of the fine features.
        align_corners: for the upsampling.
        scale: a further factor of the fine features.
    """
    up = partial(F.interpolate, size=fine.shape[-2:], mode="bilinear", align_corners=align_corners)
    of_fine, of_coarse = gate.weight.split([fine.shape[1], coarse.shape[1]], 1)
    # upsampling and 1x1 convolution commute: one channel instead of all is upsampled for the gate
    opening = scale * torch.sigmoid(F.conv2d(fine, of_fine, gate.bias) + up(F.conv2d(coarse, of_coarse)))
    return torch.cat([fine * opening, up(coarse)], 1)
