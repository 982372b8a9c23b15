"""A gated decoder from the attention's grid up to stride 4 (ours; the gating follows DRANet's CLGD, Fu et al., 2020).

    finer map -- 1x1 conv BN ReLU --+------- x gate --+
                                    +- gate -+        + (concat) depthwise 3x3, 1x1 -> next fusion
    coarser features -- upsample ---+-----------------+

A gate is one sigmoid per position, computed from both inputs by a 1x1 convolution. The convolutions are
depthwise-separable, because the maps at stride 4 are large.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

DECODER_WIDTH = 64
"""Channels of the decoder's result."""

_SKIP_WIDTH = 32


class GatedDecoder(nn.Module):
    """Refine coarse features with the backbone's finer maps, one map after another, each twice as fine.

    Args:
        channels: of the coarse features.
        finer: channels of the finer maps, from coarse to fine.
        align_corners: for the upsampling.
    """

    def __init__(self, channels: int, finer: Sequence[int], align_corners: bool):
        super().__init__()
        widths = [channels, *(DECODER_WIDTH for _ in finer)]
        self.fusions = nn.ModuleList(
            GatedFusion(skip, coarse, DECODER_WIDTH, align_corners) for skip, coarse in zip(finer, widths, strict=False)
        )

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
        width: channels of the result.
        align_corners: for the upsampling.
    """

    def __init__(self, fine: int, coarse: int, width: int, align_corners: bool):
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv2d(fine, _SKIP_WIDTH, 1, bias=False), nn.BatchNorm2d(_SKIP_WIDTH), nn.ReLU()
        )
        both = _SKIP_WIDTH + coarse
        self.gate = nn.Conv2d(both, 1, 1)
        self.mix = nn.Sequential(
            nn.Conv2d(both, both, 3, padding=1, groups=both, bias=False),
            nn.BatchNorm2d(both),
            nn.ReLU(),
            nn.Conv2d(both, width, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
        )
        self.align_corners = align_corners

    def forward(self, fine: Float[Tensor, "B F H W"], coarse: Float[Tensor, "B C h w"]) -> Float[Tensor, "B c H W"]:
        """Return the fused features at the size of the fine map."""
        return self.mix(concat_gated(self.project(fine), coarse, self._opening, self.align_corners))

    def _opening(self, both: Tensor) -> Tensor:
        return torch.sigmoid(self.gate(both))


def concat_gated(
    fine: Float[Tensor, "B F H W"],
    coarse: Float[Tensor, "B C h w"],
    gate: Callable[[Tensor], Tensor],
    align_corners: bool,
) -> Float[Tensor, "B c H W"]:
    """Return the gated fine features and the upsampled coarse ones, concatenated.

    Args:
        fine: fine features.
        coarse: coarser features.
        gate: computes the factor of the fine features, B,1,H,W, from both, concatenated.
        align_corners: for the upsampling.
    """
    coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=align_corners)
    return torch.cat([fine * gate(torch.cat([fine, coarse], 1)), coarse], 1)
