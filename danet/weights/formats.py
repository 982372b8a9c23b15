"""How other implementations name a DANet's weights: the released code, and mmsegmentation. Used by convert.py."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Format:
    """How another implementation names a DANet's weights, and how it trains where nothing tells.

    Args:
        classifier: the weight, K,width,1,1, by which the format is recognized.
        prefixes: of its keys -> of ours.
        dropped: prefixes of what is no part of DANet.
        stem: a key that tells the stem -> what follows the depth in timm's name of the backbone.
        layer4_dilations, align_corners: its usual settings.
    """

    name: str
    classifier: str
    prefixes: dict[str, str]
    dropped: tuple[str, ...]
    stem: dict[str, str]
    layer4_dilations: tuple[int, ...]
    align_corners: bool


_PREFIXES = (  # ours, the released, mmsegmentation's
    ("position.reduce.0.", "head.conv5a.0.", "decode_head.pam_in_conv.conv."),
    ("position.reduce.1.", "head.conv5a.1.", "decode_head.pam_in_conv.bn."),
    ("position.attention.query.", "head.sa.query_conv.", "decode_head.pam.query_project."),
    ("position.attention.key.", "head.sa.key_conv.", "decode_head.pam.key_project."),
    ("position.attention.value.", "head.sa.value_conv.", "decode_head.pam.value_project."),
    ("position.attention.scale", "head.sa.gamma", "decode_head.pam.gamma.scale"),
    ("position.refine.0.", "head.conv51.0.", "decode_head.pam_out_conv.conv."),
    ("position.refine.1.", "head.conv51.1.", "decode_head.pam_out_conv.bn."),
    ("channel.reduce.0.", "head.conv5c.0.", "decode_head.cam_in_conv.conv."),
    ("channel.reduce.1.", "head.conv5c.1.", "decode_head.cam_in_conv.bn."),
    ("channel.attention.scale", "head.sc.gamma", "decode_head.cam.gamma.scale"),
    ("channel.refine.0.", "head.conv52.0.", "decode_head.cam_out_conv.conv."),
    ("channel.refine.1.", "head.conv52.1.", "decode_head.cam_out_conv.bn."),
    ("position_classifier.1.", "head.conv6.1.", "decode_head.pam_conv_seg."),
    ("channel_classifier.1.", "head.conv7.1.", "decode_head.cam_conv_seg."),
    ("classifier.1.", "head.conv8.1.", "decode_head.conv_seg."),
)
RELEASED = Format(
    name="released",
    classifier="head.conv8.1.weight",
    prefixes={"pretrained.": "backbone."} | {released: ours for ours, released, _ in _PREFIXES},
    dropped=("pretrained.fc.",),  # ImageNet's classifier, kept by the code of 2018
    stem={"pretrained.conv1.weight": "", "pretrained.conv1.0.weight": "s"},
    layer4_dilations=(4, 8, 16),
    align_corners=True,
)
MMSEG_7X7 = Format(  # its ResNet, with the paper's stem
    name="mmsegmentation",
    classifier="decode_head.conv_seg.weight",
    prefixes={"backbone.": "backbone."} | {mmseg: ours for ours, _, mmseg in _PREFIXES},
    dropped=("auxiliary_head.",),  # a loss on layer3 for training, no part of the prediction
    stem={"backbone.conv1.weight": ""},
    layer4_dilations=(2, 4, 4),
    align_corners=False,
)
MMSEG = replace(  # its ResNetV1c, of all published DANets
    MMSEG_7X7,
    prefixes={"backbone.stem.7.": "backbone.bn1.", "backbone.stem.": "backbone.conv1."} | MMSEG_7X7.prefixes,
    stem={"backbone.stem.0.weight": "c"},
)
FORMATS = (RELEASED, MMSEG, MMSEG_7X7)
