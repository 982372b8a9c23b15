"""Baselines to compare with DANet: PSPNet, DeepLabV3, DeepLabV3+ and UPerNet on the same timm backbones.

The decoders are those of segmentation-models-pytorch (extra `compare`). Baselines are trained, evaluated and used like
a DANet: `danet train camvid --network.architecture smp:PSPNet`.
"""

import difflib
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from danet.errors import InputError, missing_package
from danet.model.backbone import build_backbone
from danet.model.danet import DANet, Outputs
from danet.model.dranet import DRANet


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


AnyNetwork = DANet | DRANet | Baseline
"""The networks that can be trained."""


def build_network(architecture: str = "danet", **arguments: Any) -> AnyNetwork:
    """Build a network.

    Args:
        architecture: a key of `ARCHITECTURES`.
        **arguments: those of `DANet`. A DRANet takes only the ones of `DRANet`, and others at their defaults. Baselines
            ignore the ones of DANet's head and use `num_classes`, `backbone`, `output_stride`, `layer4_dilations`,
            `align_corners`, `in_channels` and `pretrained`.

    Raises:
        InputError: an unknown architecture, a missing package, or an invalid argument.
    """
    if architecture not in ARCHITECTURES:
        near = difflib.get_close_matches(architecture, ARCHITECTURES, n=1)
        remedy = f"did you mean {near[0]}?" if near else f"use {', '.join(ARCHITECTURES)}"
        raise InputError("architecture", f"{architecture!r} is unknown", remedy)
    return ARCHITECTURES[architecture](**arguments)


def _dranet(**arguments: Any) -> DRANet:
    """Build a DRANet from the arguments of `DANet`; those that DRANet lacks must have their defaults.

    `decoder` has no effect, because a DRANet always has one.
    """
    arguments.pop("decoder", None)
    for name in signature(DANet).parameters.keys() & arguments.keys() - signature(DRANet).parameters.keys():
        value = arguments.pop(name)
        if value != signature(DANet).parameters[name].default:
            what = f"{value!r} is not supported by dranet, only by danet"
            raise InputError(name, what, f"leave `{name}` out, or use `architecture` danet")
    return DRANet(**arguments)


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
    **_danet_head: object,
) -> Baseline:
    """Build smp's decoder and head, with smp's defaults, on the five stages of `build_backbone`.

    Two defaults are changed to those of the papers: PSPNet's backbone is complete and dilated (smp cuts it at stride
    8), and DeepLab's dilation rates depend on the stride. UPerNet ignores the output stride; its backbone has stride
    32.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        what = f"smp:{name} needs the package segmentation-models-pytorch"
        raise missing_package("architecture", what, "compare") from error
    if auxiliary:
        raise InputError("auxiliary", f"not supported by smp:{name}, only by danet", "leave `auxiliary` out")
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
        what = f"cannot build smp:{name} ({error})"
        raise InputError("architecture", what, "use `output_stride` 8 or 16") from error
    head = nn.Sequential(network.decoder, network.segmentation_head)
    return Baseline(features, head, stride, align_corners, in_channels)


ARCHITECTURES: dict[str, Callable[..., AnyNetwork]] = {
    "danet": DANet,
    "dranet": _dranet,
    "smp:PSPNet": partial(_smp, "PSPNet"),
    "smp:DeepLabV3": partial(_smp, "DeepLabV3"),
    "smp:DeepLabV3Plus": partial(_smp, "DeepLabV3Plus"),
    "smp:UPerNet": partial(_smp, "UPerNet"),
}
"""Architecture name -> function that builds it."""
