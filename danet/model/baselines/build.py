"""Build any network that can be trained, by the name of its architecture."""

import difflib
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from danet.errors import InputError
from danet.model.backbone import build_backbone
from danet.model.baselines.baseline import Baseline, Head, HeadOptions
from danet.model.baselines.bisenet import BiSeNet
from danet.model.baselines.ccnet import CrissCrossAttention
from danet.model.baselines.context import ContextHead
from danet.model.baselines.deeplabv2 import DeepLabV2
from danet.model.baselines.denseaspp import DenseASPP
from danet.model.baselines.dnl import DisentangledNonLocal
from danet.model.baselines.emanet import EMANet
from danet.model.baselines.encnet import EncNet
from danet.model.baselines.fcn8s import FCN8s
from danet.model.baselines.gcnet import GlobalContext
from danet.model.baselines.ocrnet import OCRNet
from danet.model.baselines.refinenet import RefineNet
from danet.model.baselines.smp import NAMES, build_smp
from danet.model.danet import DANet, check_arguments, fcn_head
from danet.model.dranet import DRANet

AnyNetwork = DANet | DRANet | Baseline
"""The networks that can be trained."""


def build_network(architecture: str = "danet", **arguments: Any) -> AnyNetwork:
    """Build a network.

    Args:
        architecture: a key of `ARCHITECTURES`.
        **arguments: those of `DANet`. A DRANet takes only the ones of `DRANet`, and others at their defaults. Baselines
            use `num_classes`, `backbone`, `output_stride`, `layer4_dilations`, `align_corners`, `auxiliary`,
            `in_channels` and `pretrained`; those that are not smp's also `width` and `dropout`. They ignore others.

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

    `decoder`, `decoder_width` and `decoder_stride` have no effect, because a DRANet always has one of its own.
    """
    arguments = {name: value for name, value in arguments.items() if not name.startswith("decoder")}
    for name in signature(DANet).parameters.keys() & arguments.keys() - signature(DRANet).parameters.keys():
        value = arguments.pop(name)
        if value != signature(DANet).parameters[name].default:
            what = f"{value!r} is not supported by dranet, only by danet"
            raise InputError(name, what, f"leave `{name}` out, or use `architecture` danet")
    return DRANet(**arguments)


def _from_paper(
    head: Head,
    undilated: bool,
    num_classes: int,
    backbone: str = "resnet50",
    output_stride: int = 8,
    layer4_dilations: tuple[int, ...] | None = None,
    width: int | None = None,
    dropout: float = 0.1,
    align_corners: bool = True,
    auxiliary: bool = False,
    in_channels: int = 3,
    pretrained: bool = False,
    **_danet_head: object,
) -> Baseline:
    """Build a head of this package on `build_backbone`; on one of stride 32 if it is `undilated`."""
    check_arguments(num_classes, in_channels, width, dropout)
    stride, stages = (32, 5) if undilated else (output_stride, 2)
    features, channels = build_backbone(backbone, stride, layer4_dilations, pretrained, stages, in_channels)
    width = channels[-1] // 4 if width is None else width
    options = HeadOptions((in_channels, *channels), num_classes, width, dropout, stride, align_corners)
    has_own = head in (OCRNet, BiSeNet)
    auxiliary_head = fcn_head(channels[-2], num_classes) if auxiliary and not has_own else None
    multiple = 32 if head is FCN8s else 1
    return Baseline(features, head(options), multiple, align_corners, in_channels, auxiliary_head)


_HEADS: dict[str, Head] = {
    "deeplabv2": DeepLabV2,
    "denseaspp": DenseASPP,
    "encnet": EncNet,
    "ccnet": partial(ContextHead, CrissCrossAttention),
    "dnl": partial(ContextHead, DisentangledNonLocal),
    "gcnet": partial(ContextHead, GlobalContext),
    "ocrnet": OCRNet,
    "emanet": EMANet,
}
_UNDILATED: dict[str, Head] = {"fcn8s": FCN8s, "refinenet": RefineNet, "bisenet": BiSeNet}

ARCHITECTURES: dict[str, Callable[..., AnyNetwork]] = {
    "danet": DANet,
    "dranet": _dranet,
    **{name: partial(_from_paper, head, True) for name, head in _UNDILATED.items()},
    **{name: partial(_from_paper, head, False) for name, head in _HEADS.items()},
    **{f"smp:{name}": partial(build_smp, name) for name in NAMES},
}
"""Architecture name -> function that builds it."""
