"""Key maps of foreign checkpoints: how the released code and mmsegmentation name the weights of DANet and DRANet."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class KeyMap:
    """The keys of another implementation's checkpoints of a network, and its usual settings.

    Args:
        name: of the implementation.
        classifier: the key of the weight K,width,1,1, by which the format is recognized.
        prefixes: prefixes of its keys -> prefixes of ours.
        dropped: prefixes of keys that are not part of the network.
        stem: a key that exists only with this stem -> the suffix of timm's name of the backbone.
        layer4_dilations: used unless the checkpoint says otherwise.
        align_corners: used unless the checkpoint says otherwise.
        architecture: of the network, a key of `ARCHITECTURES`.
        widths: how many times the classifier's channels the network's `width` is.
    """

    name: str
    classifier: str
    prefixes: dict[str, str]
    dropped: tuple[str, ...]
    stem: dict[str, str]
    layer4_dilations: tuple[int, ...]
    align_corners: bool
    architecture: str = "danet"
    widths: int = 1


_PREFIXES = (  # ours, released, mmsegmentation
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
RELEASED = KeyMap(
    name="released",
    classifier="head.conv8.1.weight",
    prefixes={"pretrained.": "backbone."} | {released: ours for ours, released, _ in _PREFIXES},
    dropped=("pretrained.fc.",),  # the ImageNet classifier, which the 2018 code kept
    stem={"pretrained.conv1.weight": "", "pretrained.conv1.0.weight": "s"},
    layer4_dilations=(4, 8, 16),
    align_corners=True,
)
_DRANET_PREFIXES = (  # ours, released
    *((f"position.{ours}.", f"head.conv_cpam_{theirs}.") for ours, theirs in (("reduce", "b"), ("refine", "e"))),
    *((f"channel.{ours}.", f"head.conv_ccam_{theirs}.") for ours, theirs in (("reduce", "b"), ("refine", "e"))),
    *((f"position.attention.mix.{i}.", f"head.cpam_enc.conv{i + 1}.") for i in range(4)),
    *((f"position.attention.{name}.", f"head.cpam_dec.conv_{name}.") for name in ("query", "key", "value")),
    ("position.attention.scale", "head.cpam_dec.scale"),
    ("channel.attention.mix.", "head.ccam_enc."),
    ("channel.attention.scale", "head.ccam_dec.scale"),
    ("merge.", "head.conv_cat."),
    ("decoder.scale", "head.clgd.gamma"),
    ("decoder.project.", "head.clgd.conv_low."),
    ("decoder.gate.", "head.clgd.conv_att.0."),
    ("decoder.mix.0.", "head.clgd.conv_cat."),
    ("decoder.mix.1.", "head.clgd.conv_out."),
    ("classifier.1.", "cls_seg.1."),
    ("auxiliary_head.0.0.", "cls_aux.0."),
    ("auxiliary_head.0.1.", "cls_aux.1."),
    ("auxiliary_head.1.1.", "cls_aux.4."),
)
RELEASED_DRANET = replace(
    RELEASED,
    classifier="cls_seg.1.weight",
    prefixes={"pretrained.": "backbone."} | {released: ours for ours, released in _DRANET_PREFIXES},
    architecture="dranet",
    widths=2,
)
MMSEG_7X7 = KeyMap(  # with its ResNet, which has the paper's stem
    name="mmsegmentation",
    classifier="decode_head.conv_seg.weight",
    prefixes={"backbone.": "backbone."} | {mmseg: ours for ours, _, mmseg in _PREFIXES},
    dropped=("auxiliary_head.",),  # for a training loss on layer3; not used in prediction
    stem={"backbone.conv1.weight": ""},
    layer4_dilations=(2, 4, 4),
    align_corners=False,
)
MMSEG = replace(  # with its ResNetV1c, as in all published DANets
    MMSEG_7X7,
    prefixes={"backbone.stem.7.": "backbone.bn1.", "backbone.stem.": "backbone.conv1."} | MMSEG_7X7.prefixes,
    stem={"backbone.stem.0.weight": "c"},
)
KEY_MAPS = (RELEASED, RELEASED_DRANET, MMSEG, MMSEG_7X7)
