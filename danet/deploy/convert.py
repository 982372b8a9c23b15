"""Foreign weights in: checkpoints of the released code (`DANet101.pth.tar`) and of mmsegmentation -> one
self-describing .safetensors.

Command: `danet convert SRC DST`. A checkpoint is opened by torch's restricted unpickler alone, which runs nothing that
the file names. Every key of the source is consumed, or the conversion fails and names those left.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from danet import weights
from danet.data import CLASSES, DRAWN
from danet.data.labels import Classes
from danet.errors import InputError, first_of
from danet.model.backbone import normalisation
from danet.model.danet import DANet


@dataclass(frozen=True)
class Format:
    """How another implementation names a DANet's weights, and how it trains where the weights cannot tell.

    Args:
        classifier: the weight, K,width,1,1, by which the format is recognised.
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


RELEASED = Format(
    name="released",
    classifier="head.conv8.1.weight",
    prefixes={
        "pretrained.": "backbone.",
        "head.conv5a.": "position.reduce.",
        "head.sa.query_conv.": "position.attention.query.",
        "head.sa.key_conv.": "position.attention.key.",
        "head.sa.value_conv.": "position.attention.value.",
        "head.sa.gamma": "position.attention.scale",
        "head.conv51.": "position.refine.",
        "head.conv5c.": "channel.reduce.",
        "head.sc.gamma": "channel.attention.scale",
        "head.conv52.": "channel.refine.",
        "head.conv6.": "position_classifier.",
        "head.conv7.": "channel_classifier.",
        "head.conv8.": "classifier.",
    },
    dropped=("pretrained.fc.",),  # ImageNet's classifier, kept by the code of 2018
    stem={"pretrained.conv1.weight": "", "pretrained.conv1.0.weight": "s"},
    layer4_dilations=(4, 8, 16),
    align_corners=True,
)
MMSEG = Format(
    name="mmsegmentation",
    classifier="decode_head.conv_seg.weight",
    prefixes={
        "backbone.stem.7.": "backbone.bn1.",
        "backbone.stem.": "backbone.conv1.",
        "backbone.": "backbone.",
        "decode_head.pam_in_conv.conv.": "position.reduce.0.",
        "decode_head.pam_in_conv.bn.": "position.reduce.1.",
        "decode_head.pam.query_project.": "position.attention.query.",
        "decode_head.pam.key_project.": "position.attention.key.",
        "decode_head.pam.value_project.": "position.attention.value.",
        "decode_head.pam.gamma.scale": "position.attention.scale",
        "decode_head.pam_out_conv.conv.": "position.refine.0.",
        "decode_head.pam_out_conv.bn.": "position.refine.1.",
        "decode_head.cam_in_conv.conv.": "channel.reduce.0.",
        "decode_head.cam_in_conv.bn.": "channel.reduce.1.",
        "decode_head.cam.gamma.scale": "channel.attention.scale",
        "decode_head.cam_out_conv.conv.": "channel.refine.0.",
        "decode_head.cam_out_conv.bn.": "channel.refine.1.",
        "decode_head.conv_seg.": "classifier.1.",
        "decode_head.pam_conv_seg.": "position_classifier.1.",
        "decode_head.cam_conv_seg.": "channel_classifier.1.",
    },
    dropped=("auxiliary_head.",),  # a loss on layer3 for training, no part of the prediction
    stem={"backbone.stem.0.weight": "c"},
    layer4_dilations=(2, 4, 4),
    align_corners=False,  # True in its networks of crop 769
)
FORMATS = (RELEASED, MMSEG)

_DEPTHS = {6: "50", 23: "101", 36: "152"}  # blocks of layer3 -> ResNet


def convert(
    source: Path,
    destination: Path,
    layer4_dilations: tuple[int, ...] | None = None,
    align_corners: bool | None = None,
    classes: str | None = None,
) -> weights.Card:
    """Write `destination` from a foreign checkpoint, and return its card.

    Args:
        source: a .pth.tar or .pth file with a `state_dict`, or a .safetensors with the same keys.
        layer4_dilations, align_corners: how the network was trained, which weights cannot tell; None: as its format is.
        classes: whose names and colours: a data set of `danet.data.CLASSES`; None: the one of as many classes, else
            numbers.

    Raises:
        InputError: `destination` exists; `source` is no such checkpoint; keys missing or left over.
    """
    if destination.exists():
        raise InputError(destination, "exists already", "give another name or move it away")
    state = read_foreign(source)
    network, arguments = from_foreign(state, str(source), layer4_dilations, align_corners)
    mean, std = normalisation(arguments["backbone"])
    card = weights.Card(
        network=arguments,
        classes=_named_classes(classes, arguments["num_classes"]),
        mean=mean,
        std=std,
        dataset=classes or "",
        recipe={"converted_from": source.name, "format": recognise(state, str(source)).name},
    )
    return weights.save(destination, network, card)


def read_foreign(path: Path) -> dict[str, Tensor]:
    """The state dict of a foreign file, without its `module.` prefix; nothing in the file is run.

    Raises:
        InputError: no such file, or not a checkpoint that opens without running its code.
    """
    if not path.is_file():
        raise InputError(
            path, "no such file", "give the checkpoint's path; a .pth.tar is opened as it is, not unpacked"
        )
    try:
        if path.suffix == ".safetensors":
            loaded: Any = safetensors.torch.load_file(path)
        else:
            # released files hold best_pred, a NumPy scalar, under NumPy's old or new module name
            scalar = np._core.multiarray.scalar  # pyright: ignore[reportAttributeAccessIssue]
            harmless = [scalar, (scalar, "numpy.core.multiarray.scalar"), np.dtype, np.dtypes.Float64DType]
            with torch.serialization.safe_globals(harmless):
                loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a foreign file provokes
        what = f"cannot be opened as a checkpoint without running its code ({type(error).__name__})"
        raise InputError(path, what, "use another copy") from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(path, "holds no state dict (tensors by name)", "give a checkpoint of a whole network")
    for key, value in state.items():
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            what = f"{key} is no plain tensor ({value.dtype}, {value.layout}, on {value.device})"
            raise InputError(path, what, "give a checkpoint of dense real numbers")
    return {key.removeprefix("module."): value for key, value in state.items()}


def recognise(state: Mapping[str, Tensor], source: str) -> Format:
    """Whose names these are.

    Raises:
        InputError: nobody's known here.
    """
    for known in FORMATS:
        if known.classifier in state:
            return known
    what = f"no DANet checkpoint known here (its first key is {next(iter(state), '')})"
    raise InputError(source, what, f"give one of {' or '.join(known.name for known in FORMATS)}")


def from_foreign(
    state: Mapping[str, Tensor],
    source: str,
    layer4_dilations: tuple[int, ...] | None = None,
    align_corners: bool | None = None,
) -> tuple[DANet, dict[str, Any]]:
    """The network of a foreign state dict, and the arguments that build it.

    Raises:
        InputError: another network's keys; keys missing or left over; shapes that do not fit: the first three named.
    """
    known = recognise(state, source)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(known.dropped)}
    layer3 = next(theirs for theirs, ours in known.prefixes.items() if ours == "backbone.") + "layer3."
    blocks = len({key.removeprefix(layer3).split(".")[0] for key in state if key.startswith(layer3)})
    stem = next((suffix for key, suffix in known.stem.items() if key in state), None)
    if blocks not in _DEPTHS or stem is None:
        what = f"a backbone with {blocks} blocks in layer3" + (" and an unknown stem" if stem is None else "")
        raise InputError(source, what, f"only ResNet-{', '.join(_DEPTHS.values())} are known")
    arguments = {
        "num_classes": state[known.classifier].shape[0],
        "backbone": f"resnet{_DEPTHS[blocks]}{stem}",
        "layer4_dilations": tuple(layer4_dilations or known.layer4_dilations),
        "width": state[known.classifier].shape[1],
        "align_corners": known.align_corners if align_corners is None else align_corners,
    }
    network = DANet(**arguments)
    _load(network, state, known, source)
    return network.eval(), arguments


def _load(network: DANet, state: Mapping[str, Tensor], known: Format, source: str) -> None:
    renamed = {_rename(key, known): tensor for key, tensor in state.items()}
    wanted = network.state_dict()
    wrong = [f"{key} is missing" for key in wanted if key not in renamed and not key.endswith("num_batches_tracked")]
    wrong += [f"{key} is left over" for key in state if _rename(key, known) not in wanted]
    wrong += [
        f"{key} has shape {tuple(tensor.shape)}, not {tuple(wanted[_rename(key, known)].shape)}"
        for key, tensor in state.items()
        if _rename(key, known) in wanted and tensor.numel() != wanted[_rename(key, known)].numel()
    ]
    if wrong:
        raise InputError(source, first_of(wrong), f"give an unchanged {known.name} checkpoint")
    # scalars have shape (1,) in the released format
    filled = {key: renamed[key].reshape(wanted[key].shape) if key in renamed else wanted[key] for key in wanted}
    network.load_state_dict(filled)


def _rename(key: str, known: Format) -> str:
    for theirs, ours in known.prefixes.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _named_classes(name: str | None, count: int) -> Classes:
    if name is None:
        of_this_count = [classes for known, classes in CLASSES.items() if len(classes) == count and known not in DRAWN]
        return of_this_count[0] if of_this_count else Classes.named(tuple(f"class {i}" for i in range(count)))
    if name not in CLASSES:
        raise InputError("--classes", f"{name!r} is no data set known here", f"use one of {', '.join(CLASSES)}")
    if len(CLASSES[name]) != count:
        raise InputError(
            "--classes", f"{name} has {len(CLASSES[name])} classes, the weights {count}", "leave it out or name another"
        )
    return CLASSES[name]
