"""One self-describing .safetensors file: the weights and everything needed to use them. Read and written here only.

The tensors stand under the network's own state-dict keys; the header's metadata holds one entry, `danet`: the card as
JSON, with the SHA-256 of the tensors. Nothing is unpickled. Used by `danet.load`, `train`, `evaluate`, `predict`,
`convert`.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from danet.data.classes import IGNORE, Classes
from danet.data.images.channels import MAX_CHANNELS, Bands
from danet.errors import InputError, join_messages
from danet.files import write_atomically
from danet.model.baselines import Baseline, build_network
from danet.model.danet import DANet

FORMAT = 1
DEFAULT = Path(__file__).parents[1] / "default.safetensors"
"""The network that comes with the package."""


@dataclass(frozen=True)
class Card:
    """Everything about a network but its numbers.

    Args:
        network: the arguments of `build_network` that rebuild it.
        classes: names and palette, by train id.
        mean, std: per channel, of images in [0, 1].
        size: the long side, in pixels, of the images it was trained on: other images are brought to it before they
            are segmented. None: any size.
        recipe: the settings of the training run.
        dataset: what it was trained on.
        metrics: what was measured, by name.
        license: of the weights.
        white: the value in the images' files that means 1; None: the largest of their type.
    """

    network: dict[str, Any]
    classes: Classes
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    dataset: str = ""
    metrics: dict[str, Any] = field(default_factory=dict)
    license: str = ""
    sha256: str = ""
    white: int | None = None

    @property
    def bands(self) -> Bands:
        """How the images are read that the network takes; RGB if it takes three channels."""
        count = self.network.get("in_channels", 3)
        return Bands(None if count == 3 else count, self.white)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """The inverse of `json`; raises KeyError, TypeError, ValueError or AttributeError when it is not a card."""
        try:
            entries = json.loads(text)
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if entries.pop("format") != FORMAT:
            raise ValueError("of another format version")
        classes = entries.pop("classes")
        names, palette = tuple(classes["names"]), tuple(tuple(color) for color in classes["palette"])
        network = {key: tuple(v) if isinstance(v, list) else v for key, v in entries.pop("network").items()}
        mean, std = tuple(entries.pop("mean")), tuple(entries.pop("std"))
        card = cls(network, Classes(names, palette), mean, std, **entries)
        _check_values(card)
        return card

    def json(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)})


_MOST = {"num_classes": IGNORE, "in_channels": MAX_CHANNELS, "width": 4096, "size": 8192, "white": 65535}


def _check_values(card: Card) -> None:
    """Raises ValueError for a card that asks for more than any network has, or for weights from elsewhere: a file may
    come from anybody, and its card is believed.
    """
    given = {**card.network, "size": card.size, "white": card.white}
    for name, most in _MOST.items():
        value = given.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            raise ValueError(f"{name}: {value!r} is no number from 1 to {most}")
    if "pretrained" in card.network:
        raise ValueError("pretrained: the weights are here")
    for name, values in (("mean", card.mean), ("std", card.std)):
        if len(values) != card.bands.count or not all(isinstance(v, int | float) and abs(v) < 1e6 for v in values):
            raise ValueError(f"{name}: {values!r} is not one number a channel")
    if min(card.std) <= 0:
        raise ValueError("std: not above 0")
    if not all(isinstance(name, str) for name in card.classes.names):
        raise ValueError("classes: a name is no text")
    if not all(len(c) == 3 and all(type(v) is int and 0 <= v <= 255 for v in c) for c in card.classes.palette):
        raise ValueError("classes: a color is not three numbers from 0 to 255")


def save(path: Path, network: nn.Module, card: Card, dtype: torch.dtype | None = None) -> Card:
    """Write the file whole or not at all, and return the card with the hash filled in.

    Args:
        dtype: of the stored convolutions, torch.float16 for half the size; batch normalization and None keep the
            network's own.

    Raises:
        InputError: a card that `read` would refuse; the file cannot be written.
    """
    try:
        _check_values(card)
    except ValueError as error:
        raise InputError(path, f"its card cannot be ({error})", "mend that entry") from error
    tensors = {key: tensor.detach().cpu().contiguous() for key, tensor in network.state_dict().items()}
    if dtype is not None:
        tensors = {key: tensor.to(dtype) if tensor.ndim > 1 else tensor for key, tensor in tensors.items()}
    card = replace(card, sha256=_hash(tensors))
    write_atomically(path, safetensors.torch.save(tensors, {"danet": card.json()}))
    return card


def load(path: Path | str | None = None) -> tuple[DANet | Baseline, Card]:
    """The network, in float32 and evaluation mode, and its card; the file that comes with the package if none is named,
    or "default".

    Raises:
        InputError: no such file, not such a file, or a file whose tensors are not those that were saved.
    """
    path = DEFAULT if path is None or str(path) == "default" else Path(path)
    tensors, card = read(path)
    try:
        network = build_network(**card.network)
    except InputError as error:
        raise InputError(path, f"{error.where}: {error.what}", error.remedy) from error
    except Exception as error:  # of timm and torch, for values that no network has
        what = f"its architecture is not known here ({' '.join(str(error).split())[:200]})"
        raise InputError(path, what, "use the danet version that wrote it") from error
    _load_state(network, tensors, path)
    return network.eval(), card


def load_into(network: nn.Module, path: Path) -> None:
    """Give a network of the same architecture the weights of a file, to be trained further.

    Raises:
        InputError: tensors that the network has not, or of other shapes.
    """
    _load_state(network, read(path)[0], path)


def _load_state(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items()}
    wrong = [f"{key} is missing" for key in shapes if key not in tensors]
    wrong += [f"{key} is left over" for key in tensors if key not in shapes]
    wrong += [
        f"{key} has shape {tuple(tensors[key].shape)}, not {tuple(shape)}"
        for key, shape in shapes.items()
        if key in tensors and tensors[key].shape != shape
    ]
    if wrong:
        what = f"does not fit the network: {join_messages(wrong)}"
        raise InputError(path, what, "use weights of the same architecture and classes")
    network.load_state_dict(tensors)


def read(path: Path) -> tuple[dict[str, Tensor], Card]:
    """The tensors as stored and the card, the hash checked."""
    if not path.is_file():
        raise InputError(path, "no such file" if not path.exists() else "is not a file", "give a .safetensors file")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  (not a dict)
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(
            path, f"not a whole .safetensors file ({error})", "copy it again, or danet convert it"
        ) from error
    if "danet" not in metadata:
        raise InputError(
            path, "holds tensors, but does not say of which network", "use danet convert to make such a file"
        )
    try:
        card = Card.from_json(metadata["danet"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            path, f"its description cannot be read ({error!r})", "use the danet version that wrote it"
        ) from error
    if _hash(tensors) != card.sha256:
        raise InputError(path, "its tensors are not those that were saved (SHA-256 differs)", "copy the file again")
    return tensors, card


def _hash(tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(tensors):
        tensor = tensors[key].contiguous()
        digest.update(f"{key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
