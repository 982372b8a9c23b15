"""PSPNet, DeepLabV3, DeepLabV3+, UPerNet and others: the decoders of segmentation-models-pytorch (extra `compare`)."""

from typing import Any

from torch import nn

from danet.errors import InputError, missing_package
from danet.model.backbone import build_backbone
from danet.model.baselines.baseline import Baseline
from danet.model.danet import fcn_head

UNDILATED = ("UPerNet", "FPN", "Unet", "Linknet", "MAnet", "Segformer")
"""Decoders of backbones with stride 32, which ignore the output stride."""

NAMES = ("PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", *UNDILATED)
"""Those whose decoders work on any backbone of `build_backbone`; DPT's needs a vision transformer."""

_AT_FULL_SIZE = ("Unet", "Linknet", "MAnet")
_PAN_POOLS = 8
"""PAN pools the last map three times."""


def build_smp(
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
    8), and DeepLab's dilation rates depend on the stride. `auxiliary` adds PSPNet's auxiliary head to any of them.

    Raises:
        InputError: a missing package, or an argument that the decoder does not support.
    """
    try:
        import segmentation_models_pytorch as smp
    except ImportError as error:
        what = f"smp:{name} needs the package segmentation-models-pytorch"
        raise missing_package("architecture", what, "compare") from error
    stride = 32 if name in UNDILATED else output_stride
    features, channels = build_backbone(
        backbone, stride, layer4_dilations, pretrained, stages=5, in_channels=in_channels
    )
    given = {"encoder_name": f"tu-{backbone}", "encoder_weights": None, "in_channels": in_channels}
    try:
        network = getattr(smp, name)(classes=num_classes, **given, **_options(name, stride))
    except ValueError as error:
        what = f"cannot build smp:{name} ({error})"
        raise InputError("architecture", what, f"use `output_stride` {'16' if name == 'PAN' else '8 or 16'}") from error
    head = nn.Sequential(network.decoder, network.segmentation_head)
    multiple = stride * (_PAN_POOLS if name == "PAN" else 1)
    auxiliary_head = fcn_head(channels[-2], num_classes) if auxiliary else None
    return Baseline(features, head, multiple, align_corners, in_channels, auxiliary_head)


def _options(name: str, stride: int) -> dict[str, Any]:
    """Return the arguments of a decoder that are not smp's defaults."""
    rates = (12, 24, 36) if stride == 8 else (6, 12, 18)
    deeplab = {"encoder_output_stride": stride, "decoder_atrous_rates": rates}
    options: dict[str, dict[str, Any]] = {
        "PSPNet": {"encoder_depth": 5, "output_stride": stride},
        "DeepLabV3": deeplab,
        "DeepLabV3Plus": deeplab,
        "PAN": {"encoder_output_stride": stride},
    }
    return options.get(name, {}) | ({} if name in _AT_FULL_SIZE else {"upsampling": 1})
