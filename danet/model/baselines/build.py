"""Build any network that can be trained, by the name of its architecture."""

import difflib
from collections.abc import Callable
from functools import partial
from inspect import signature
from typing import Any

from danet.errors import InputError
from danet.model.baselines.baseline import Baseline
from danet.model.baselines.smp import build_smp
from danet.model.danet import DANet
from danet.model.dranet import DRANet

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


ARCHITECTURES: dict[str, Callable[..., AnyNetwork]] = {
    "danet": DANet,
    "dranet": _dranet,
    "smp:PSPNet": partial(build_smp, "PSPNet"),
    "smp:DeepLabV3": partial(build_smp, "DeepLabV3"),
    "smp:DeepLabV3Plus": partial(build_smp, "DeepLabV3Plus"),
    "smp:UPerNet": partial(build_smp, "UPerNet"),
}
"""Architecture name -> function that builds it."""
