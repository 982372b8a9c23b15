"""PSPNet, DeepLabV3, DeepLabV3+ and UPerNet: the decoders of segmentation-models-pytorch (extra `compare`)."""

from typing import Any

from torch import nn

from danet.errors import InputError, missing_package
from danet.model.backbone import build_backbone
from danet.model.baselines.baseline import Baseline


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
