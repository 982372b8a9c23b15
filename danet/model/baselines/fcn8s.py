"""FCN-8s (Long, Shelhamer, Darrell, CVPR 2015, Figure 3): class scores at strides 32, 16 and 8, summed.

The backbone is not dilated. The paper's is VGG-16, whose fully connected layers become convolutions; ours has none, and
its last map is scored directly.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.baselines.baseline import HeadOptions


class FCN8s(nn.Module):
    """The head: maps of strides 8, 16 and 32 -> logits at stride 8. The image's sides must be multiples of 32."""

    def __init__(self, options: HeadOptions):
        super().__init__()
        classes = options.num_classes
        self.dropout = nn.Dropout2d(options.dropout)
        self.scores = nn.ModuleList(nn.Conv2d(channels, classes, 1) for channels in options.channels[-3:])
        self.up16, self.up8 = _upsampling(classes), _upsampling(classes)

    def forward(self, features: Sequence[Tensor]) -> Float[Tensor, "B K h w"]:
        """Return the logits."""
        at8, at16, at32 = (score(self.dropout(x)) for score, x in zip(self.scores, features[-3:], strict=True))
        return at8 + self.up8(at16 + self.up16(at32))


def _upsampling(classes: int) -> nn.ConvTranspose2d:
    """Return a learned upsampling by 2 that begins as bilinear interpolation (section 4.3)."""
    layer = nn.ConvTranspose2d(classes, classes, 4, stride=2, padding=1, bias=False)
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    with torch.no_grad():
        layer.weight.copy_(torch.eye(classes)[..., None, None] * taps[:, None] * taps)
    return layer
