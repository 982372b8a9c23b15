"""Convert checkpoints of the released code (`DANet101.pth.tar`, `dran101.pth.tar`) and of mmsegmentation.

Command: `danet convert SRC DST`. Checkpoints are opened only by torch's restricted unpickler, which runs no code from
the file. Every key of the source must be used, or the conversion fails and names the rest. Settings that the weights do
not determine are read from the config that mmsegmentation stores with them.
"""

import re
import warnings
import zipfile  # noqa: TID251 (only to read the sizes in archives)
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from danet.data.classes import IGNORE, Classes
from danet.data.registry import DATASETS
from danet.errors import InputError, join_messages
from danet.files import check_new, open_regular
from danet.model.backbone import normalization
from danet.model.baselines import build_network
from danet.model.dranet import AttentionNetwork
from danet.weights import file as weights_file
from danet.weights.key_maps import KEY_MAPS, KeyMap

GIVEN, FROM_FILE, FROM_NAME, ASSUMED = "given", "read from the file", "from the file name", "assumed"
"""Where a setting comes from."""

_CLASSES = {name: dataset.classes for name, dataset in DATASETS.items() if dataset.classes is not None}
_DEPTHS = {6: "50", 23: "101", 36: "152"}  # blocks of layer3 -> ResNet
_MAX_RATIO = 10  # of the unpacked to the packed size
_MAX_WIDTH = 4096


def convert(
    source: Path,
    destination: Path,
    layer4_dilations: tuple[int, ...] | None = None,
    align_corners: bool | None = None,
    classes: str | None = None,
) -> weights_file.Card:
    """Convert a foreign checkpoint to a weights file and return its card.

    recipe["known"] in the card says where each of the settings below comes from.

    Args:
        source: a .pth.tar or .pth file with a `state_dict`, or a .safetensors file with the same keys.
        destination: the .safetensors file to write.
        layer4_dilations: those the network was trained with. None: as in the file's config, else the usual ones of the
            format.
        align_corners: whether the network was trained with it. None: as in the file's config, else True if the file
            name has 769x769, else the usual setting of the format.
        classes: the dataset whose names and colors to use. None: those in the file, else those of the dataset with as
            many classes, else numbers.

    Raises:
        InputError: `destination` exists, `source` is not such a checkpoint, or keys are missing or left over.
    """
    check_new(destination, remedy="choose another name, or move it away")
    state, meta = read_foreign(source)
    key_map = recognize(state, str(source))
    (dilations, dilations_by), (align, align_by) = _settings(key_map, meta, source, layer4_dilations, align_corners)
    network, arguments = from_foreign(state, str(source), dilations, align)
    if arguments["num_classes"] == 1:
        what = "has one output per pixel (a binary head), and danet's networks have one per class"
        raise InputError(source, what, "train it with two outputs")
    names, names_by = _classes(classes, meta, arguments["num_classes"])
    (mean, std), normalization_by = _normalization(_config(meta), source, arguments["backbone"])
    known = {
        "layer4_dilations": dilations_by,
        "align_corners": align_by,
        "classes": names_by,
        "normalization": normalization_by,
    }
    recipe = {"converted_from": source.name, "format": key_map.name, "known": known}
    card = weights_file.Card(arguments, names, mean, std, recipe=recipe, dataset=classes or "")
    return weights_file.save(destination, network, card, overwrite=False)


class _Discarded:
    """Replaces an object in a pickle that is not needed: accepts any state and keeps none."""

    __slots__ = ()

    def __init__(self, *_: object): ...

    __setstate__ = __init__


_DISCARDED: list[Any] = [  # the released code's best_pred, mmengine's loss histories
    *((_Discarded, f"numpy.{c}.multiarray.{name}") for c in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *((_Discarded, name) for name in ("numpy.ndarray", "numpy.dtype", "builtins.getattr")),
    (_Discarded, "mmengine.logging.history_buffer.HistoryBuffer"),
]


def read_foreign(path: Path) -> tuple[dict[str, Tensor], Mapping[Any, Any]]:
    """Read a foreign checkpoint without running any code in it.

    Returns:
        The state dict without its `module.` prefix, and the file's `meta`, which may contain anything.

    Raises:
        InputError: no such file, or not a checkpoint that opens without running code.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "specify the path of the checkpoint; do not unpack a .pth.tar")
    _check_archive(path)
    discarded = torch.serialization.safe_globals(_DISCARDED)
    with open_regular(path) as file, warnings.catch_warnings(action="ignore"), discarded:
        head = file.peek()[:16]
        try:
            if head[8:9] == b"{":
                loaded: Any = safetensors.torch.load_file(path)
            else:  # pass the open file: torch may choose another loader by the file name
                loaded = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # a foreign file may provoke any type
            raise InputError(path, *_explain_failure(head, error)) from error
    top = loaded if isinstance(loaded, Mapping) else {}
    state, meta = top.get("state_dict", top), top.get("meta")
    items = state.items() if isinstance(state, Mapping) else ()
    if not items or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in items):
        raise InputError(path, "has no state dict (tensors by name)", "use a checkpoint of a complete network")
    for key, value in items:
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            what = f"{key} is not a dense real tensor ({value.dtype}, {value.layout}, on {value.device})"
            raise InputError(path, what, "use a checkpoint of dense real tensors")
    return {key.removeprefix("module."): value for key, value in items}, meta if isinstance(meta, Mapping) else {}


def _check_archive(path: Path) -> None:
    """Check that a zip archive, the format of torch, does not unpack to far more than its size.

    torch does not compress what it stores.
    """
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):  # another format, or damaged
        return
    if unpacked > _MAX_RATIO * size:
        what = f"its {size:,} bytes unpack to {unpacked:,}"
        raise InputError(path, what, "use the checkpoint itself, as downloaded")


def _explain_failure(head: bytes, error: Exception) -> tuple[str, str]:
    """Say what is wrong with a file that begins with `head` and could not be loaded, and how to fix it."""
    message, again, original = str(error), "download or copy it again", "use the checkpoint itself, as downloaded"
    is_zip, is_tar = head.startswith(b"PK\3\4"), "legacy .tar" in message
    names = re.search(r"GLOBAL (\S{1,100})", message)
    if not head:
        return "the file is empty", again
    if isinstance(error, safetensors.SafetensorError):
        return "not a valid .safetensors file, or truncated", again
    if not is_tar and "Weights only load failed" not in message:
        if head.startswith(b"\x80\2\x8a\nl") or (
            is_zip and ("failed reading" in message or isinstance(error, OSError))
        ):
            return "truncated or damaged", again
        if is_zip and re.search("subdirectory|hasRecord|TorchScript", message):
            return "a zip archive, but not one written by torch.save", original
    if not (is_zip or is_tar or names or head[:1] in b"\x80c("):  # the first bytes of pickles
        return f"not a checkpoint: it begins with {head!r}", original
    content = "a tar archive" if is_tar else f"it contains {names[1]}" if names else type(error).__name__
    remedy = "ask its owner to save only the tensors: torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
    return f"cannot be opened as a checkpoint without running its code ({content})", remedy


def recognize(state: Mapping[str, Tensor], source: str) -> KeyMap:
    """Return the key map that matches a state dict.

    Args:
        state: the weights.
        source: where they are from, for messages.

    Raises:
        InputError: no key map matches, or those of two implementations.
    """
    names = dict.fromkeys(key_map.name for key_map in KEY_MAPS)
    prefixes = {name: [p for k in KEY_MAPS if k.name == name for p in (*k.prefixes, *k.dropped)] for name in names}
    matches = {name: [key for key in state if key.startswith(tuple(prefixes[name]))] for name in names}
    if all(matches.values()):
        both = " and ".join(f"{name} ({', '.join(keys[:3])})" for name, keys in matches.items())
        raise InputError(source, f"has keys of both {both}", "use the checkpoint of one network")
    candidates = [key_map for key_map in KEY_MAPS if key_map.classifier in state]
    if not candidates:
        what = f"not a supported DANet checkpoint (its first key is {next(iter(state), '')})"
        raise InputError(source, what, f"use one of {' or '.join(matches)}")
    return next((key_map for key_map in candidates if not key_map.stem.keys().isdisjoint(state)), candidates[0])


def from_foreign(
    state: Mapping[str, Tensor], source: str, layer4_dilations: tuple[int, ...], align_corners: bool
) -> tuple[AttentionNetwork, dict[str, Any]]:
    """Build the network of a foreign state dict.

    Args:
        state: the weights.
        source: where they are from, for messages.
        layer4_dilations: see `DANet`.
        align_corners: see `DANet`.

    Returns:
        The network in evaluation mode, and the arguments that rebuild it.

    Raises:
        InputError: keys of another network, missing or left over, or wrong shapes; the message names the first three.
    """
    key_map = recognize(state, source)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(key_map.dropped)}
    shape = tuple(state[key_map.classifier].shape)
    if len(shape) != 4 or not (1 <= shape[0] <= IGNORE and 1 <= shape[1] <= _MAX_WIDTH):
        what = (
            f"{key_map.classifier} has shape {shape}, expected (classes up to {IGNORE}, channels up to {_MAX_WIDTH}, "
            "1, 1)"
        )
        raise InputError(source, what, f"use an unchanged {key_map.name} checkpoint of up to {IGNORE} classes")
    layer3 = _foreign_key("backbone.layer3.", key_map)
    blocks = len({key.removeprefix(layer3).split(".")[0] for key in state if key.startswith(layer3)})
    stem = next((suffix for key, suffix in key_map.stem.items() if key in state), None)
    if blocks not in _DEPTHS or stem is None:
        same = [k for k in KEY_MAPS if (k.name, k.architecture) == (key_map.name, key_map.architecture)]
        stems = " or ".join(key for other in same for key in other.stem)
        what = f"has {blocks} blocks in {layer3[:-1]}" + (f", and no {stems}" if stem is None else "")
        remedy = f"only ResNet-{', '.join(_DEPTHS.values())} are supported, with {[*_DEPTHS]} blocks"
        raise InputError(source, what, remedy)
    width = key_map.widths * shape[1]
    arguments = {"num_classes": shape[0], "backbone": f"resnet{_DEPTHS[blocks]}{stem}", "width": width}
    arguments |= {"layer4_dilations": tuple(layer4_dilations), "align_corners": align_corners}
    if key_map.architecture == "dranet":
        auxiliary = any(key.startswith("cls_aux.") for key in state)
        arguments |= {"architecture": "dranet", "auxiliary": auxiliary}
    network = build_network(**arguments)
    assert isinstance(network, AttentionNetwork)
    _load(network, state, key_map, source)
    return network.eval(), arguments


def _load(network: AttentionNetwork, state: Mapping[str, Tensor], key_map: KeyMap, source: str) -> None:
    renamed = {_our_key(key, key_map): tensor for key, tensor in state.items()}
    expected = network.state_dict()
    missing = [key for key in expected if key not in renamed and not key.endswith("num_batches_tracked")]
    wrong = [f"{_foreign_key(key, key_map)} is missing" for key in missing]
    wrong += [f"{key} is unexpected" for key in state if _our_key(key, key_map) not in expected]
    wrong += [
        f"{key} has shape {tuple(tensor.shape)}, expected {tuple(expected[ours].shape)}"
        for key, tensor in state.items()
        if (ours := _our_key(key, key_map)) in expected and not _same_shape(tensor, expected[ours])
    ]
    if wrong:
        raise InputError(source, join_messages(wrong), f"use an unchanged {key_map.name} checkpoint")
    complete = {
        key: renamed[key].reshape(tensor.shape) if key in renamed else tensor for key, tensor in expected.items()
    }
    network.load_state_dict(complete)


def _same_shape(theirs: Tensor, ours: Tensor) -> bool:
    """Return whether the shapes are equal; scalars have shape (1,) in the released format."""
    return theirs.shape == ours.shape or (theirs.numel() == 1 and ours.ndim == 0)


def _our_key(key: str, key_map: KeyMap) -> str:
    pairs = key_map.prefixes.items()
    return next((ours + key.removeprefix(theirs) for theirs, ours in pairs if key.startswith(theirs)), key)


def _foreign_key(key: str, key_map: KeyMap) -> str:
    pairs = key_map.prefixes.items()
    return next(theirs + key.removeprefix(ours) for theirs, ours in pairs if key.startswith(ours))


def _settings(
    key_map: KeyMap, meta: Mapping[Any, Any], source: Path, dilations: tuple[int, ...] | None, align: bool | None
) -> list[tuple[Any, str]]:
    """Return layer4_dilations and align_corners, each with where it comes from."""
    config = _config(meta)
    align_in_config = _unique_value(config, "align_corners", r"(True|False)\b")
    dilations_choices = (
        (dilations or None, GIVEN),
        (None if dilations else _dilations(config, source), FROM_FILE),
        (key_map.layer4_dilations, ASSUMED),
    )
    align_choices = (
        (align, GIVEN),
        (align_in_config and align_in_config == "True", FROM_FILE),
        ("769x769" in source.name or None, FROM_NAME),
        (key_map.align_corners, ASSUMED),
    )
    return [
        next((value, by) for value, by in choices if value is not None)
        for choices in (dilations_choices, align_choices)
    ]


def _config(meta: Mapping[Any, Any]) -> str:
    """Return the config in a checkpoint of mmcv or mmengine, or nothing."""
    return next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), "")


def _normalization(config: str, source: Path, backbone: str) -> tuple[tuple[tuple[float, ...], tuple[float, ...]], str]:
    """Return mean and standard deviation, from 0 to 1, and where they come from.

    Raises:
        InputError: the config says that the network takes BGR.
    """
    if "False" in (_unique_value(config, name, r"(True|False)\b") for name in ("to_rgb", "bgr_to_rgb")):
        raise InputError(source, "takes images as BGR, by its config", "train it with RGB images")
    numbers = r"[(\[]\s*(\d+\.?\d*(?:\s*,\s*\d+\.?\d*){2}),?\s*[)\]]"
    texts = [_unique_value(config, name, numbers) for name in ("mean", "std")]
    if None in texts:
        return normalization(backbone), ASSUMED
    mean, std = (tuple(round(float(number) / 255, 6) for number in str(text).split(",")) for text in texts)
    return (mean, std), FROM_FILE


def _dilations(config: str, source: Path) -> tuple[int, ...] | None:
    """Return the dilations of layer4 in a config, None if it has none; the other layers must be like ours."""
    numbers = r"[(\[]\s*(\d{1,2}(?:\s*,\s*\d{1,2})*),?\s*[)\]]"
    texts = [_unique_value(config, name, numbers) for name in ("dilations", "multi_grid")]
    stages, grid = (tuple(int(n) for n in text.split(",")) if text else None for text in texts)
    contracted = _unique_value(config, "contract_dilation", r"(True|False)\b") == "True"
    if stages and not (len(stages) == 4 and stages[:3] == (1, 1, 2) and contracted):
        what = f"its config has dilations {stages} and contract_dilation {contracted}, not (1, 1, 2, 4) and True"
        raise InputError(source, what, "set `layer4_dilations` to convert it anyway")
    return grid or (stages and (max(1, stages[3] // 2), stages[3], stages[3]))


def _unique_value(config: str, name: str, pattern: str) -> str | None:
    """Return what the group of `pattern` matches after `name=` in a config; None if missing or ambiguous."""
    found = re.findall(rf"\b{name}['\"]?\s*[=:]\s*{pattern}", re.sub("#.*", "", config))
    values = {re.sub(r"\s", "", value) for value in found}  # mmengine prints settings twice, indented differently
    return values.pop() if len(values) == 1 else None


def _classes(given: str | None, meta: Mapping[Any, Any], count: int) -> tuple[Classes, str]:
    """Return names and colors, and where they come from."""
    if given is None:
        if own := _own_classes(meta, count):
            return own, FROM_FILE
        for name, classes in _CLASSES.items():
            if len(classes) == count and not DATASETS[name].synthetic:
                return classes, f"those of {name}, which also has {count}"
        return Classes.named(tuple(f"class {i}" for i in range(count))), "numbered"
    if given not in _CLASSES:
        raise InputError("classes", f"unknown dataset {given!r}", f"use one of {', '.join(_CLASSES)}")
    if len(_CLASSES[given]) != count:
        what = f"{given} has {len(_CLASSES[given])} classes, but the weights have {count}"
        raise InputError("classes", what, "leave `classes` out, or use another dataset")
    return _CLASSES[given], GIVEN


def _own_classes(meta: Mapping[Any, Any], count: int) -> Classes | None:
    """Return the classes in the file if there are `count` distinct printable names; with its colors if they are RGB."""
    own = meta.get("dataset_meta", meta)  # mmengine, mmcv
    own = {key.lower(): value for key, value in own.items() if isinstance(key, str)} if isinstance(own, Mapping) else {}
    names, palette = (v if isinstance(v := own.get(k), list | tuple) else () for k in ("classes", "palette"))
    valid = tuple(n.strip() for n in names if isinstance(n, str) and n.isprintable() and len(n) <= 100)
    if not len(names) == len(valid) == len(set(valid) - {""}) == count:
        return None
    colors = tuple(tuple(c) for c in palette if isinstance(c, list | tuple) and len(c) == 3)
    if len(palette) == len(colors) == count and all(type(v) is int and 0 <= v <= 255 for c in colors for v in c):
        return Classes(valid, colors)
    return next((classes for classes in _CLASSES.values() if classes.names == valid), Classes.named(valid))
