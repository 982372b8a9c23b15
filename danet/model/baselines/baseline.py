"""A baseline: a backbone and another head than DANet's."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.model.danet import Outputs, TrainingOutputs, upsample


@dataclass(frozen=True)
class HeadOptions:
    """What a head is built from.

    Args:
        channels: of the images, and of the backbone's maps from fine to coarse.
        num_classes: K.
        width: channels of the head; a quarter of the backbone's unless the recipe says otherwise.
        dropout: probability of dropping a channel before the classifier.
        stride: of the last map.
        align_corners: for bilinear interpolation.
    """

    channels: tuple[int, ...]
    num_classes: int
    width: int
    dropout: float
    stride: int
    align_corners: bool


class HeadOutputs(NamedTuple):
    """The result of a head with further losses.

    Attributes:
        logits: the prediction.
        auxiliary: logits of an earlier layer, for the auxiliary loss.
        presence: for each class, the logit of its presence in the image.
    """

    logits: Float[Tensor, "B K h w"]
    auxiliary: Float[Tensor, "B K g v"] | None = None
    presence: Float[Tensor, "B K"] | None = None


class Baseline(nn.Module):
    """A baseline: normalized images B,N,H,W of any size -> `Outputs` at the same size, with `fused` only.

    Args:
        backbone: B,N,H,W -> a list of feature maps. It is trained at the base learning rate, the head at its own.
        head: a list of the images and these maps -> logits B,K,h,w, or `HeadOutputs`.
        multiple: height and width must be multiples of this for the head. Other images are padded with zeros, the mean
            color, on the right and at the bottom, and the logits are cropped.
        align_corners: for the bilinear upsampling of the logits, as in `DANet`.
        in_channels: N.
        auxiliary_head: second-to-last feature map -> logits, for the auxiliary loss.
    """

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        multiple: int,
        align_corners: bool,
        in_channels: int,
        auxiliary_head: nn.Module | None = None,
    ):
        super().__init__()
        self.backbone, self.head, self.auxiliary_head = backbone, head, auxiliary_head
        self.multiple, self.align_corners, self.in_channels = multiple, align_corners, in_channels

    def forward(self, images: Float[Tensor, "B N H W"]) -> Outputs | TrainingOutputs:
        """Return the logits at the size of the images; in training mode also what further losses need."""
        height, width = images.shape[-2:]
        padded, stages = self._stages(images)
        up = partial(upsample, size=padded.shape[-2:], align_corners=self.align_corners)
        outputs = _as_outputs(self.head([padded, *stages]))
        fused = up(outputs.logits)[..., :height, :width]
        if not self.training:
            return Outputs(fused)
        small = outputs.auxiliary if self.auxiliary_head is None else self.auxiliary_head(stages[-2])
        auxiliary = None if small is None else up(small)[..., :height, :width]
        if auxiliary is None and outputs.presence is None:
            return Outputs(fused)
        return TrainingOutputs(fused, None, None, auxiliary, presence=outputs.presence)

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """Return the logits before upsampling, or those of `forward` if padding must be cropped."""
        if self.multiple > 1:
            return Outputs(self(images).fused)
        padded, stages = self._stages(images)
        return Outputs(_as_outputs(self.head([padded, *stages])).logits)

    def _stages(self, images: Tensor) -> tuple[Tensor, list[Tensor]]:
        height, width = images.shape[-2:]
        if self.multiple > 1:
            images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        return images, self.backbone(images)


Head = Callable[[HeadOptions], nn.Module]


def _as_outputs(result: Tensor | HeadOutputs) -> HeadOutputs:
    return HeadOutputs(result) if isinstance(result, Tensor) else result
