"""A baseline: a backbone and another head than DANet's."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.danet import Outputs


class Baseline(nn.Module):
    """A baseline: normalized images B,N,H,W of any size -> `Outputs` at the same size, with `fused` only.

    Args:
        backbone: B,N,H,W -> a list of feature maps. It is trained at the base learning rate, the head at its own.
        head: a list of the images and these maps -> logits B,K,h,w.
        multiple: height and width must be multiples of this for the head. Other images are padded with zeros, the mean
            color, on the right and at the bottom, and the logits are cropped.
        align_corners: for the bilinear upsampling of the logits, as in `DANet`.
        in_channels: N.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, multiple: int, align_corners: bool, in_channels: int):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.multiple, self.align_corners, self.in_channels = multiple, align_corners, in_channels

    def forward(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """Return the logits at the size of the images."""
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        logits = self.head([images, *self.backbone(images)])  # B,K,h,w
        padded = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return Outputs(padded[..., :height, :width])

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """Return the same as `forward`: the padding can only be cropped at the size of the images."""
        return self(images)
