"""Networks of others in DANet's place, to be trained, measured and used as it is: PSPNet, DeepLabV3, DeepLabV3+ and
UPerNet from segmentation-models-pytorch (extra `compare`), on the same timm backbone.
Command: `danet train camvid --network.architecture smp:PSPNet`.
"""

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError
from danet.model.backbone import build_backbone
from danet.model.danet import DANet, Outputs


class Baseline(nn.Module):
    """Normalized images B,N,H,W (any size) -> `Outputs` at the same size, with `fused` alone.

    Args:
        backbone: B,N,H,W -> a list of feature maps. It learns at the base rate, the head at its own.
        head: a list of the images and these maps -> logits B,K,h,w.
        multiple: what the head wants height and width to be multiples of; others are padded with zeros, the mean pixel,
            at the right and the bottom, and the answer is cut.
        align_corners: of the bilinear upsampling of the logits, as in `DANet`.
        in_channels: N.
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, multiple: int, align_corners: bool, in_channels: int):
        super().__init__()
        self.backbone, self.head = backbone, head
        self.multiple, self.align_corners, self.in_channels = multiple, align_corners, in_channels

    def forward(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        height, width = images.shape[-2:]
        images = F.pad(images, (0, -width % self.multiple, 0, -height % self.multiple))
        logits = self.head([images, *self.backbone(images)])  # B,K,h,w
        whole = F.interpolate(logits, images.shape[-2:], mode="bilinear", align_corners=self.align_corners)
        return Outputs(whole[..., :height, :width])

    def logits(self, images: Float[Tensor, "B N H W"]) -> Outputs:
        """The same: what was padded can be cut at the images' size only."""
        return self(images)


def build_network(architecture: str = "danet", **arguments: Any) -> DANet | Baseline:
    """The network of a name in ARCHITECTURES.

    Args:
        arguments: of `DANet`. A baseline takes those that are not of DANet's own head: `num_classes`, `backbone`,
            `output_stride`, `layer4_dilations`, `align_corners`, `in_channels` and `pretrained`.

    Raises:
        InputError: no such architecture, the nearest is proposed; a missing package; an argument that cannot be.
    """
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(ARCHITECTURES)}"
        raise InputError(f"architecture {architecture!r}", "is unknown", remedy)
    return ARCHITECTURES[architecture](**arguments)


def _smp(
    name: str,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: int = 8,
    layer4_dilations: tuple[int, ...] | None = None,
    align_corners: bool = True,
    auxiliary: bool = False,
    in_channels: int = 3,
    pretrained: bool = False,
    **_of_danets_head: object,
) -> Baseline:
    """Smp's decoder and head with its own defaults over `build_backbone`'s five stages, except that PSPNet's backbone
    is dilated and whole, as in its paper (smp cuts it at stride 8), and DeepLab's rates are those of its paper for the
    stride. UPerNet takes no output stride: its backbone goes down to 32.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        what = "needs the package segmentation-models-pytorch"
        raise InputError(f"architecture smp:{name}", what, "pip install 'danet[compare]'") from error
    if auxiliary:
        raise InputError("--network.auxiliary", f"is for DANet, not for smp:{name}", "give --network.no-auxiliary")
    stride = 32 if name == "UPerNet" else output_stride
    features, _ = build_backbone(backbone, stride, layer4_dilations, pretrained, stages=5, in_channels=in_channels)
    rates = (12, 24, 36) if stride == 8 else (6, 12, 18)
    deeplab = {"encoder_output_stride": stride, "decoder_atrous_rates": rates}
    options: dict[str, dict[str, Any]] = {
        "PSPNet": {"encoder_depth": 5, "output_stride": stride},
        "DeepLabV3": deeplab,
        "DeepLabV3Plus": deeplab,
        "UPerNet": {},
    }
    given = {"encoder_name": f"tu-{backbone}", "encoder_weights": None, "in_channels": in_channels, "upsampling": 1}
    try:
        network = getattr(smp, name)(classes=num_classes, **given, **options[name])
    except ValueError as error:
        raise InputError(
            f"architecture smp:{name}", f"cannot be built ({error})", "use output stride 8 or 16"
        ) from error
    head = nn.Sequential(network.decoder, network.segmentation_head)
    return Baseline(features, head, stride, align_corners, in_channels)


ARCHITECTURES: dict[str, Callable[..., DANet | Baseline]] = {
    "danet": DANet,
    "smp:PSPNet": partial(_smp, "PSPNet"),
    "smp:DeepLabV3": partial(_smp, "DeepLabV3"),
    "smp:DeepLabV3Plus": partial(_smp, "DeepLabV3Plus"),
    "smp:UPerNet": partial(_smp, "UPerNet"),
}
"""name -> its builder."""
