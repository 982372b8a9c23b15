"""Foreign weights in: checkpoints of the released code (`DANet101.pth.tar`) and of mmsegmentation -> one
self-describing .safetensors.

Command: `danet convert SRC DST`. A checkpoint is opened by torch's restricted unpickler alone, which runs nothing that
the file names. Every key of the source is consumed, or the conversion fails and names those left. What weights cannot
tell is searched for in the text of the config that mmsegmentation keeps beside them.
"""

import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from danet.data.classes import IGNORE, Classes
from danet.data.registry import DATASETS
from danet.errors import InputError, join_messages
from danet.model.backbone import normalization
from danet.model.danet import DANet
from danet.weights import file as weights_file
from danet.weights.formats import FORMATS, Format

GIVEN, READ, NAMED, ASSUMED = "as given", "read in the file", "by the file's name", "assumed"
_CLASSES = {name: dataset.classes for name, dataset in DATASETS.items() if dataset.classes is not None}
_DEPTHS = {6: "50", 23: "101", 36: "152"}  # blocks of layer3 -> ResNet
_WIDEST = 4096


def convert(
    source: Path,
    destination: Path,
    layer4_dilations: tuple[int, ...] | None = None,
    align_corners: bool | None = None,
    classes: str | None = None,
) -> weights_file.Card:
    """Write `destination` from a foreign checkpoint, and return its card; recipe["known"] says where the settings below
    are from.

    Args:
        source: a .pth.tar or .pth file with a `state_dict`, or a .safetensors with the same keys.
        layer4_dilations, align_corners: how the network was trained; None: as the file's config says, else its name
            (769x769: with align_corners), else as its format is.
        classes: the dataset whose names and colors to use. None: those in the file, else those of the dataset with as
            many classes, else numbers.

    Raises:
        InputError: `destination` exists; `source` is no such checkpoint; keys missing or left over.
    """
    if destination.exists():
        raise InputError(destination, "exists already", "give another name or move it away")
    state, meta = read_foreign(source)
    known = recognize(state, str(source))
    (dilations, dilations_by), (align, align_by) = _settings(known, meta, source, layer4_dilations, align_corners)
    network, arguments = from_foreign(state, str(source), dilations, align)
    named, named_by = _classes(classes, meta, arguments["num_classes"])
    mean, std = normalization(arguments["backbone"])
    told = {"layer4_dilations": dilations_by, "align_corners": align_by, "classes": named_by}
    recipe = {"converted_from": source.name, "format": known.name, "known": told}
    card = weights_file.Card(arguments, named, mean, std, recipe=recipe, dataset=classes or "")
    return weights_file.save(destination, network, card)


class _Blank:
    """Stands for an object that nobody needs: takes what a pickle gives it, and keeps nothing."""

    __slots__ = ()

    def __init__(self, *_: object): ...

    __setstate__ = __init__


_BLANKS: list[Any] = [  # the released best_pred, mmengine's histories of losses
    *((_Blank, f"numpy.{c}.multiarray.{name}") for c in ("core", "_core") for name in ("scalar", "_reconstruct")),
    *((_Blank, name) for name in ("numpy.ndarray", "numpy.dtype", "builtins.getattr")),
    (_Blank, "mmengine.logging.history_buffer.HistoryBuffer"),
]


def read_foreign(path: Path) -> tuple[dict[str, Tensor], Mapping[Any, Any]]:
    """The state dict of a foreign file, without its `module.` prefix, and its `meta`, which may hold anything; nothing
    in the file is run.

    Raises:
        InputError: no such file, or not a checkpoint that opens without running its code.
    """
    if not path.is_file():
        raise InputError(path, "no such file", "give its path; a .pth.tar is opened as it is, not unpacked")
    blanks = torch.serialization.safe_globals(_BLANKS)
    with path.open("rb") as file, warnings.catch_warnings(action="ignore"), blanks:
        head = file.peek()[:16]
        try:
            if head[8:9] == b"{":
                loaded: Any = safetensors.torch.load_file(path)
            else:  # the open file: by its name torch might choose another way
                loaded = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a foreign file provokes
            raise InputError(path, *_why_closed(head, error)) from error
    whole = loaded if isinstance(loaded, Mapping) else {}
    state, meta = whole.get("state_dict", whole), whole.get("meta")
    named = state.items() if isinstance(state, Mapping) else ()
    if not named or not all(isinstance(key, str) and isinstance(value, Tensor) for key, value in named):
        raise InputError(path, "holds no state dict (tensors by name)", "give a checkpoint of a whole network")
    for key, value in named:
        if value.layout != torch.strided or value.device.type != "cpu" or value.is_quantized or value.is_complex():
            what = f"{key} is no plain tensor ({value.dtype}, {value.layout}, on {value.device})"
            raise InputError(path, what, "give a checkpoint of dense real numbers")
    return {key.removeprefix("module."): value for key, value in named}, meta if isinstance(meta, Mapping) else {}


def _why_closed(head: bytes, error: Exception) -> tuple[str, str]:
    """What is wrong with a file that begins with `head` and does not open, and what to do about it."""
    said, again, itself = str(error), "download or copy it again", "give the checkpoint itself, as downloaded"
    zipped, tar, names = head.startswith(b"PK\3\4"), "legacy .tar" in said, re.search(r"GLOBAL (\S{1,100})", said)
    if not head:
        return "is empty", again
    if isinstance(error, safetensors.SafetensorError):
        return f"not a whole .safetensors file ({said})", again
    if not tar and "Weights only load failed" not in said:
        if head.startswith(b"\x80\2\x8a\nl") or (zipped and ("failed reading" in said or isinstance(error, OSError))):
            return "is cut short or damaged", again
        if zipped and re.search("subdirectory|hasRecord|TorchScript", said):
            return "is a zip archive, but not one of torch.save", itself
    if not (zipped or tar or names or head[:1] in b"\x80c("):  # with which pickles begin
        return f"is no checkpoint: it begins with {head!r}", itself
    holds = "a tar archive" if tar else f"it holds {names[1]}, no tensor" if names else type(error).__name__
    remedy = "have its owner save the tensors alone: torch.save({'state_dict': model.state_dict()}, 'weights.pth')"
    return f"cannot be opened as a checkpoint without running its code ({holds})", remedy


def recognize(state: Mapping[str, Tensor], source: str) -> Format:
    """Whose names these are.

    Raises:
        InputError: nobody's known here, or two implementations'.
    """
    theirs = {f.name: [key for key in state if key.startswith((*f.prefixes, *f.dropped))] for f in FORMATS}
    if all(theirs.values()):
        both = " and ".join(f"{name} ({', '.join(keys[:3])})" for name, keys in theirs.items())
        raise InputError(source, f"has keys of both {both}", "give the checkpoint of one network")
    alike = [known for known in FORMATS if known.classifier in state]
    if not alike:
        what = f"no DANet checkpoint known here (its first key is {next(iter(state), '')})"
        raise InputError(source, what, f"give one of {' or '.join(theirs)}")
    return next((known for known in alike if not known.stem.keys().isdisjoint(state)), alike[0])


def from_foreign(
    state: Mapping[str, Tensor], source: str, layer4_dilations: tuple[int, ...], align_corners: bool
) -> tuple[DANet, dict[str, Any]]:
    """The network of a foreign state dict, and the arguments that build it.

    Raises:
        InputError: another network's keys; keys missing or left over; shapes that do not fit: the first three named.
    """
    known = recognize(state, source)
    state = {key: tensor for key, tensor in state.items() if not key.startswith(known.dropped)}
    shape = tuple(state[known.classifier].shape)
    if len(shape) != 4 or not (1 <= shape[0] <= IGNORE and 1 <= shape[1] <= _WIDEST):
        what = f"{known.classifier} has shape {shape}, not (classes up to {IGNORE}, channels up to {_WIDEST}, 1, 1)"
        raise InputError(source, what, f"give an unchanged {known.name} checkpoint of up to {IGNORE} classes")
    layer3 = _theirs("backbone.layer3.", known)
    blocks = len({key.removeprefix(layer3).split(".")[0] for key in state if key.startswith(layer3)})
    stem = next((suffix for key, suffix in known.stem.items() if key in state), None)
    if blocks not in _DEPTHS or stem is None:
        stems = " or ".join(key for like in FORMATS if like.name == known.name for key in like.stem)
        what = f"{blocks} blocks in {layer3[:-1]}" + (f", and no {stems}" if stem is None else "")
        raise InputError(source, what, f"only ResNet-{', '.join(_DEPTHS.values())} are known, with {[*_DEPTHS]}")
    arguments = {"num_classes": shape[0], "backbone": f"resnet{_DEPTHS[blocks]}{stem}", "width": shape[1]}
    arguments |= {"layer4_dilations": tuple(layer4_dilations), "align_corners": align_corners}
    network = DANet(**arguments)
    _load(network, state, known, source)
    return network.eval(), arguments


def _load(network: DANet, state: Mapping[str, Tensor], known: Format, source: str) -> None:
    renamed = {_ours(key, known): tensor for key, tensor in state.items()}
    wanted = network.state_dict()
    missing = [key for key in wanted if key not in renamed and not key.endswith("num_batches_tracked")]
    wrong = [f"{_theirs(key, known)} is missing" for key in missing]
    wrong += [f"{key} is left over" for key in state if _ours(key, known) not in wanted]
    wrong += [
        f"{key} has shape {tuple(tensor.shape)}, not {tuple(wanted[_ours(key, known)].shape)}"
        for key, tensor in state.items()
        if _ours(key, known) in wanted and tensor.numel() != wanted[_ours(key, known)].numel()
    ]
    if wrong:
        raise InputError(source, join_messages(wrong), f"give an unchanged {known.name} checkpoint")
    # scalars have shape (1,) in the released format
    filled = {key: renamed[key].reshape(wanted[key].shape) if key in renamed else wanted[key] for key in wanted}
    network.load_state_dict(filled)


def _ours(key: str, known: Format) -> str:
    return next((o + key.removeprefix(t) for t, o in known.prefixes.items() if key.startswith(t)), key)


def _theirs(key: str, known: Format) -> str:
    return next(t + key.removeprefix(o) for t, o in known.prefixes.items() if key.startswith(o))


def _settings(
    known: Format, meta: Mapping[Any, Any], source: Path, dilations: tuple[int, ...] | None, align: bool | None
) -> list[tuple[Any, str]]:
    """layer4_dilations and align_corners, each with how it is known."""
    config = next((meta[key] for key in ("config", "cfg") if isinstance(meta.get(key), str)), "")  # mmcv's, mmengine's
    written, named = _only(config, "align_corners", r"(True|False)\b"), "769x769" in source.name
    of_dilations = (dilations or None, GIVEN), (None if dilations else _dilations(config, source), READ)
    of_align = (align, GIVEN), (written and written == "True", READ), (named or None, NAMED)
    choices = (*of_dilations, (known.layer4_dilations, ASSUMED)), (*of_align, (known.align_corners, ASSUMED))
    return [next((value, by) for value, by in each if value is not None) for each in choices]


def _dilations(config: str, source: Path) -> tuple[int, ...] | None:
    """Layer4's by a config, whose other layers must be as ours; None where it has none."""
    numbers = r"[(\[]\s*(\d{1,2}(?:\s*,\s*\d{1,2})*),?\s*[)\]]"
    found = [_only(config, name, numbers) for name in ("dilations", "multi_grid")]
    stages, grid = (tuple(int(n) for n in text.split(",")) if text else None for text in found)
    contracted = _only(config, "contract_dilation", r"(True|False)\b") == "True"
    if stages and not (len(stages) == 4 and stages[:3] == (1, 1, 2) and contracted):
        what = f"its config has dilations {stages}, contract_dilation {contracted}, not (1, 1, 2, 4), True"
        raise InputError(source, what, "give --layer4-dilations to convert it as if it had")
    return grid or (stages and (max(1, stages[3] // 2), stages[3], stages[3]))


def _only(config: str, name: str, value: str) -> str | None:
    """What the group of `value` matches in a config's text after `name=`; None: nothing, or not everywhere the same."""
    found = set(re.findall(rf"\b{name}['\"]?\s*[=:]\s*{value}", re.sub("#.*", "", config)))
    return found.pop() if len(found) == 1 else None


def _classes(given: str | None, meta: Mapping[Any, Any], count: int) -> tuple[Classes, str]:
    """Names and colors, and how they are known."""
    if given is None:
        if own := _own_classes(meta, count):
            return own, READ
        for name, classes in _CLASSES.items():
            if len(classes) == count and not DATASETS[name].synthetic:
                return classes, f"those of {name}, by their number"
        return Classes.named(tuple(f"class {i}" for i in range(count))), "numbered"
    if given not in _CLASSES:
        raise InputError("--classes", f"{given!r} is no dataset known here", f"use one of {', '.join(_CLASSES)}")
    if len(_CLASSES[given]) != count:
        what = f"{given} has {len(_CLASSES[given])} classes, the weights {count}"
        raise InputError("--classes", what, "leave it out or name another")
    return _CLASSES[given], GIVEN


def _own_classes(meta: Mapping[Any, Any], count: int) -> Classes | None:
    """The file's own names, if they are that many different printable ones, with its colors if they are RGB."""
    own = meta.get("dataset_meta", meta)  # mmengine's, mmcv's
    own = {key.lower(): value for key, value in own.items() if isinstance(key, str)} if isinstance(own, Mapping) else {}
    names, palette = (v if isinstance(v := own.get(k), list | tuple) else () for k in ("classes", "palette"))
    good = tuple(n.strip() for n in names if isinstance(n, str) and n.isprintable() and len(n) <= 100)
    if not len(names) == len(good) == len(set(good) - {""}) == count:
        return None
    colors = tuple(tuple(c) for c in palette if isinstance(c, list | tuple) and len(c) == 3)
    if len(palette) == len(colors) == count and all(type(v) is int and 0 <= v <= 255 for c in colors for v in c):
        return Classes(good, colors)
    return next((known for known in _CLASSES.values() if known.names == good), Classes.named(good))
