"""The weights file: one self-describing .safetensors file that holds a network and everything needed to use it.

The tensors are stored under the network's state-dict keys. The header's metadata has one entry, `danet`: the card as
JSON, with the SHA-256 of the tensors. Nothing is unpickled. Only this module reads and writes the format.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from danet.data.classes import Classes
from danet.errors import InputError, join_messages, printable
from danet.files import write_atomically
from danet.hub_methods import HubMethods
from danet.model.baselines import AnyNetwork, build_network
from danet.weights.card import BEST_OF_RUN, DEFAULT, MAX_HEADER, MAX_SIZE, Card, check_values, missing_weights, resolve

__all__ = ["DEFAULT", "MAX_SIZE", "Card", "load", "load_into", "read", "resolve", "save"]


def save(path: Path, network: nn.Module, card: Card, dtype: torch.dtype | None = None, overwrite: bool = True) -> Card:
    """Write a weights file atomically and return the card with the hash filled in.

    Args:
        path: the .safetensors file.
        network: the network; its state dict is stored.
        card: its description.
        dtype: of the stored convolutions; torch.float16 halves the size. Batch normalization keeps its own type. None
            keeps all types.
        overwrite: replace a file that exists.

    Raises:
        InputError: the card is invalid, or describes another network; a value is not finite, or too large for `dtype`;
            the file cannot be written.
    """
    network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    if dtype is not None:
        tensors = {key: tensor.to(dtype) if tensor.ndim > 1 else tensor for key, tensor in tensors.items()}
    card = replace(card, sha256=_hash(tensors))
    try:
        check_values(card)
        metadata = {"danet": card.json()}
        with torch.device("meta"):
            described = build_network(**card.network)
    except (TypeError, ValueError, KeyError) as error:
        raise InputError(path, f"invalid metadata: {error}", "fix that field of the card") from error
    if wrong := _differences(described, tensors):
        what = f"the network is not the one that its card describes: {join_messages(wrong)}"
        raise InputError(path, what, "give the card the arguments of this network")
    _check_finite(tensors, path)
    write_atomically(path, safetensors.torch.save(tensors, metadata), overwrite)
    return card


def load(path: Path | str | None = None) -> tuple[AnyNetwork, Card]:
    """Return the network of a weights file, in float32 and evaluation mode, and its card.

    Args:
        path: the file; None or "default" means the bundled weights.

    Raises:
        InputError: the file does not exist, is no weights file, or its tensors were changed.
    """
    path = resolve(path)
    tensors, card = read(path)
    try:
        network = build_network(**card.network)
    except InputError as error:
        raise InputError(path, f"{error.where}: {error.what}", error.remedy) from error
    except Exception as error:  # timm and torch raise many types for invalid arguments
        what = f"unknown architecture ({' '.join(str(error).split())[:200]})"
        raise InputError(path, what, "use the danet version that wrote it") from error
    _load_state(network, tensors, path)
    if isinstance(network, HubMethods):
        network.card = card
    return network.eval(), card


def load_into(network: nn.Module, arguments: Mapping[str, Any], classes: Classes, path: Path) -> None:
    """Load the weights of a file into a network of the same architecture, for fine-tuning.

    In the layers that have an output per class, the outputs of classes of the same name are loaded, and those of new
    classes keep their values. So do the finest part of a decoder that is finer than that of the file, and the
    classifier after it.

    Args:
        network: the network.
        arguments: those of `build_network` that built it.
        classes: of the network.
        path: the file, or "default".

    Raises:
        InputError: tensor names or shapes do not match the network.
    """
    path = resolve(path)
    tensors, card = read(path)
    if card.classes.names != classes.names:
        common = [name for name in classes.names if name in card.classes.names]
        old, new = ([names.index(name) for name in common] for names in (card.classes.names, classes.names))
        state = network.state_dict()
        for key in class_layers(arguments) & tensors.keys() & state.keys():
            mixed = state[key].clone()
            if mixed.shape[1:] == tensors[key].shape[1:]:
                mixed[new] = tensors[key][old].to(mixed.dtype)
                tensors[key] = mixed
    if arguments.get("decoder_stride", 4) < card.network.get("decoder_stride", 4):
        tensors |= {key: tensor for key, tensor in network.state_dict().items() if _is_new(key, tensor, tensors)}
    _load_state(network, tensors, path)


def _is_new(key: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> bool:
    """Return whether a finer decoder brings this tensor, or changes its shape."""
    if key.startswith("classifier."):
        return key in tensors and tensors[key].shape != tensor.shape
    return key.startswith("decoder.") and key not in tensors


def class_layers(arguments: Mapping[str, Any]) -> set[str]:
    """Return the keys of the tensors whose first dimension is the number of classes.

    Args:
        arguments: those of `build_network`.
    """
    shapes = []
    for more in (0, 1):
        with torch.device("meta"):
            network = build_network(**{**arguments, "num_classes": arguments["num_classes"] + more})
        shapes.append({key: tensor.shape for key, tensor in network.state_dict().items()})
    return {key for key, shape in shapes[0].items() if shape != shapes[1][key]}


def read(path: Path) -> tuple[dict[str, Tensor], Card]:
    """Return the stored tensors and the card, after checking the hash.

    Raises:
        InputError: the file does not exist, is no weights file, or its tensors were changed.
    """
    if not path.is_file():
        raise missing_weights(path)
    _check_header(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise not_safetensors(path) from error
    if "danet" not in metadata:
        raise InputError(path, "has tensors but no danet metadata", "convert it with danet convert")
    try:
        card = Card.from_json(metadata["danet"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(path, f"invalid metadata ({error!r})", "use the danet version that wrote it") from error
    if _hash(tensors) != card.sha256:
        raise InputError(path, "its tensors differ from those that were saved (SHA-256 mismatch)", "copy it again")
    _check_finite(tensors, path)
    return tensors, card


def _check_finite(tensors: Mapping[str, Tensor], path: Path) -> None:
    for key, tensor in tensors.items():
        if tensor.is_floating_point() and not tensor.sum(dtype=torch.float64).isfinite():
            what = f"the values of {printable(key)} are not all finite numbers"
            raise InputError(path, what, "use the weights of a run that did not diverge")


def _check_header(path: Path) -> None:
    """Check the size of the header, which the safetensors package reads as a whole."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
    if MAX_HEADER < size < path.stat().st_size:
        what = f"its header has {size:,} bytes, the limit is {MAX_HEADER:,}"
        raise InputError(path, what, "use a file that danet wrote")


def not_safetensors(path: Path) -> InputError:
    """Return the error for a file that the safetensors package cannot read."""
    if path.suffix.lower() in (".pth", ".pt", ".tar"):
        return InputError(path, "not a .safetensors file", "convert it with danet convert")
    if path.suffix.lower() == ".ckpt":
        return InputError(path, "a checkpoint to resume a run from", f"use {path.with_name(BEST_OF_RUN)}")
    return InputError(path, "not a valid .safetensors file, or truncated", "copy it again")


def _differences(network: nn.Module, tensors: Mapping[str, Tensor]) -> list[str]:
    """Return how tensors differ from those that a network has, by name and shape."""
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    wrong = [f"{key} is missing" for key in shapes if key not in tensors]
    wrong += [f"{key} is unexpected" for key in tensors if key not in shapes]
    return wrong + [
        f"{key} has shape {tuple(tensors[key].shape)}, expected {tuple(shape)}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]


def _load_state(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    if wrong := _differences(network, tensors):
        what = f"does not match the network: {join_messages(wrong)}"
        raise InputError(path, what, "use weights of the same architecture and classes")
    network.load_state_dict(tensors)


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
