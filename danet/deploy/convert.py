"""Foreign weights in: the released checkpoints (`DANet101.pth.tar`) -> one self-describing .safetensors.

Command: `danet convert SRC DST`. A checkpoint is opened by torch's restricted unpickler alone, which runs nothing that
the file names. Every key of the source is consumed, or the conversion fails and names those left.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from danet import weights
from danet.data import CLASSES
from danet.data.labels import Classes
from danet.errors import InputError
from danet.model.backbone import normalisation
from danet.model.danet import DANet

RELEASED = {
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
}
"""Prefixes of the released state dict -> ours."""

_DEPTHS = {6: "50", 23: "101", 36: "152"}  # blocks of layer3 -> ResNet


def convert(
    source: Path,
    destination: Path,
    layer4_dilations: tuple[int, ...] = (4, 8, 16),
    align_corners: bool = True,
    classes: str | None = None,
) -> weights.Card:
    """Write `destination` from a released checkpoint, and return its card.

    Args:
        source: a .pth.tar or .pth file with a `state_dict`, or a .safetensors with the same keys.
        layer4_dilations, align_corners: how the network was trained; weights cannot tell.
        classes: whose names and colours: a data set of `danet.data.CLASSES`; None: the one of as many classes, else
            numbers.

    Raises:
        InputError: `destination` exists; `source` is no such checkpoint; keys missing or left over.
    """
    if destination.exists():
        raise InputError(destination, "exists already", "give another name or move it away")
    network, arguments = from_released(read_foreign(source), str(source), layer4_dilations, align_corners)
    mean, std = normalisation(arguments["backbone"])
    card = weights.Card(
        network=arguments,
        classes=_named_classes(classes, arguments["num_classes"]),
        mean=mean,
        std=std,
        dataset=classes or "",
        recipe={"converted_from": source.name},
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
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            path, f"cannot be opened as a checkpoint without running its code ({reason})", "use another copy"
        ) from error
    state = loaded.get("state_dict", loaded) if isinstance(loaded, Mapping) else None
    if not state or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in state.items()):
        raise InputError(path, "holds no state dict (tensors by name)", "give a checkpoint of a whole network")
    return {key.removeprefix("module."): value for key, value in state.items()}


def from_released(
    state: Mapping[str, Tensor], source: str, layer4_dilations: tuple[int, ...] = (4, 8, 16), align_corners: bool = True
) -> tuple[DANet, dict[str, Any]]:
    """The network of a released state dict, and the arguments that build it. A v1 checkpoint's ImageNet classifier
    (`pretrained.fc`) is dropped.

    Raises:
        InputError: another network's keys; keys missing or left over; shapes that do not fit: the first three named.
    """
    state = {key: tensor for key, tensor in state.items() if not key.startswith("pretrained.fc.")}
    deep_stem = "pretrained.conv1.0.weight" in state
    if "head.conv8.1.weight" not in state or not (deep_stem or "pretrained.conv1.weight" in state):
        raise InputError(source, f"no released DANet checkpoint (its first key is {next(iter(state), '')})", "give one")
    blocks = len({key.split(".")[2] for key in state if key.startswith("pretrained.layer3.")})
    if blocks not in _DEPTHS:
        raise InputError(
            source, f"layer3 has {blocks} blocks", f"only ResNets with {', '.join(map(str, _DEPTHS))} are known"
        )
    arguments = {
        "num_classes": state["head.conv8.1.weight"].shape[0],
        "backbone": f"resnet{_DEPTHS[blocks]}{'s' if deep_stem else ''}",
        "layer4_dilations": tuple(layer4_dilations),
        "width": state["head.conv8.1.weight"].shape[1],
        "align_corners": align_corners,
    }
    network = DANet(**arguments)
    renamed = {_rename(key): tensor for key, tensor in state.items()}
    wanted = network.state_dict()
    wrong = [f"{key} is missing" for key in wanted if key not in renamed and not key.endswith("num_batches_tracked")]
    wrong += [f"{key} is left over" for key in state if _rename(key) not in wanted]
    wrong += [
        f"{key} has shape {tuple(tensor.shape)}, not {tuple(wanted[_rename(key)].shape)}"
        for key, tensor in state.items()
        if _rename(key) in wanted and tensor.numel() != wanted[_rename(key)].numel()
    ]
    if wrong:
        shown = "; ".join(wrong[:3]) + (f"; and {len(wrong) - 3} more" if len(wrong) > 3 else "")
        raise InputError(source, shown, "give an unchanged released checkpoint")
    # scalars are stored with shape (1,) there
    network.load_state_dict(
        {key: renamed[key].reshape(wanted[key].shape) if key in renamed else wanted[key] for key in wanted}
    )
    return network.eval(), arguments


def _rename(key: str) -> str:
    for theirs, ours in RELEASED.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key


def _named_classes(name: str | None, count: int) -> Classes:
    if name is None:
        of_this_count = [classes for classes in CLASSES.values() if len(classes) == count]
        return of_this_count[0] if of_this_count else Classes.named(tuple(f"class {i}" for i in range(count)))
    if name not in CLASSES:
        raise InputError("--classes", f"{name!r} is no data set known here", f"use one of {', '.join(CLASSES)}")
    if len(CLASSES[name]) != count:
        raise InputError(
            "--classes", f"{name} has {len(CLASSES[name])} classes, the weights {count}", "leave it out or name another"
        )
    return CLASSES[name]
