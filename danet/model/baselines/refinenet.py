"""RefineNet (Lin et al., CVPR 2017, Figure 2): four blocks refine the features from stride 32 to stride 4.

The backbone is not dilated. Pooling is 5x5 with stride 1, twice, as in section 3.2.
"""

from collections.abc import Sequence
from functools import partial

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions

_conv = partial(nn.Conv2d, kernel_size=3, padding=1)


class RefineNet(nn.Module):
    """The head: maps of strides 4, 8, 16 and 32 -> logits at stride 4."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        width, sizes = options.width, options.channels[-4:]
        self.adapt = nn.ModuleList(_conv(channels, width, bias=False) for channels in sizes)
        self.blocks = nn.ModuleList(_Block(width, 1 + (i < 3), options.align_corners) for i in range(4))
        self.classifier = nn.Sequential(
            _Residual(width), _Residual(width), nn.Dropout2d(options.dropout), _conv(width, options.num_classes)
        )

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, "B K h w"]:
        """Return the logits."""
        *finer, x = (adapt(stage) for adapt, stage in zip(self.adapt, features[-4:], strict=True))
        x = self.blocks[3]([x])
        for i in (2, 1, 0):
            x = self.blocks[i]([finer[i], x])
        return self.classifier(x)


class _Residual(nn.Module):
    """The residual convolution unit, Figure 2(b)."""

    def __init__(self, width: int):
        super().__init__()
        self.layers = nn.Sequential(nn.ReLU(), _conv(width, width), nn.ReLU(), _conv(width, width))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class _Block(nn.Module):
    """Residual units, fusion of the paths at the finest size, chained pooling, and a residual unit: Figure 2(a)."""

    def __init__(self, width: int, paths: int, align_corners: bool):
        super().__init__()
        self.units = nn.ModuleList(nn.Sequential(_Residual(width), _Residual(width)) for _ in range(paths))
        self.fuse = nn.ModuleList(_conv(width, width) for _ in range(paths if paths > 1 else 0))
        self.pool = nn.ModuleList(_conv(width, width, bias=False) for _ in range(2))
        self.out, self.align_corners = _Residual(width), align_corners

    def forward(self, paths: Sequence[Tensor]) -> Tensor:
        maps = [units(x) for units, x in zip(self.units, paths, strict=True)]
        if self.fuse:
            maps = [convolution(x) for convolution, x in zip(self.fuse, maps, strict=True)]
        size = maps[0].shape[2:]
        x = F.relu(
            maps[0] + sum(F.interpolate(m, size, mode="bilinear", align_corners=self.align_corners) for m in maps[1:])
        )
        pooled = x
        for convolution in self.pool:
            pooled = convolution(F.max_pool2d(pooled, 5, 1, 2))
            x = x + pooled
        return self.out(x)
