"""The card of a weights file: the description of a network. Reading one needs no torch, so commands can check first."""

import json
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from danet.data.classes import IGNORE, Classes
from danet.data.datasets import camvid
from danet.data.images.channels import MAX_CHANNELS, Bands
from danet.errors import InputError, missing_file
from danet.files import open_regular
from danet.weights.hub_files import fetch, is_address

FORMAT = 1
DEFAULT = Path(__file__).parents[1] / "default.safetensors"
"""The bundled weights."""

DEFAULT_EXPORT = DEFAULT.with_suffix(".onnx")
"""The bundled weights for where torch is not installed. A clone has them after `danet export default --to onnx --out
danet/default.onnx`."""

BEST_OF_RUN = "best.safetensors"
"""The name of the best weights in the folder of a run."""

MAX_SIZE = 4096
"""The largest size in a card."""

SCALE_RULES = ("native", "size")
"""See `Card`."""

MAX_HEADER = 4 << 20
"""The largest header of a weights file, in bytes; that of 255 classes and 1,000 tensors has 0.1 MB."""

_FORMER_KEYS = {"licence": "license"}  # vocabulary: old name
"""Keys of cards written by danet 0.1.0, with their present names."""


@dataclass(frozen=True)
class Card:
    """The description of a network: everything but its weights.

    Args:
        network: the arguments of `build_network` that rebuild it.
        classes: names and colors, by train id.
        mean: per channel, for images in [0, 1].
        std: per channel, for images in [0, 1].
        size: the long side in pixels of the images it was trained on. Other images are resized to it before they are
            segmented. None: any size.
        recipe: the settings of the training run.
        dataset: the name of the training dataset.
        metrics: validation results, by name.
        license: of the weights.
        sha256: of the tensors; filled in by `save`.
        white: the value in image files that means 1. None: the largest value of the file's type.
        scale_rule: how images that are too large to load are scaled. "size": as all others, to `size`. "native": not at
            all, in windows; this is so for weights that were written before the rule.
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
    scale_rule: str = "native"

    @property
    def bands(self) -> Bands:
        """How to read images for this network: RGB if it takes three channels."""
        count = self.network.get("in_channels", 3)
        return Bands(None if count == 3 else count, self.white)

    @classmethod
    def from_json(cls, text: str) -> "Card":
        """Return the card that `json` wrote; CamVid's own colors are replaced by those of `camvid.CLASSES`.

        Raises:
            KeyError, TypeError, ValueError, AttributeError: the text is not a valid card.
        """
        if len(text) > _MAX_CARD:
            raise ValueError(f"has {len(text):,} characters, the limit is {_MAX_CARD:,}")
        try:
            stored: dict[str, Any] = json.loads(text, parse_constant=lambda _: None)  # NaN is not JSON
        except RecursionError as error:
            raise ValueError("nested too deeply") from error
        if re.search("[\ud800-\udfff]", json.dumps(stored, ensure_ascii=False)):
            raise ValueError("contains halves of characters (surrogates), which cannot be written")
        if stored.pop("format") != FORMAT:
            raise ValueError("unsupported format version")
        entries: dict[str, Any] = {_FORMER_KEYS.get(key, key): value for key, value in stored.items()}
        classes = entries.pop("classes")
        names, palette = tuple(classes["names"]), tuple(tuple(color) for color in classes["palette"])
        if (names, palette) == (camvid.CLASSES.names, camvid.PUBLISHED_PALETTE):
            palette = camvid.CLASSES.palette
        network = {key: tuple(v) if isinstance(v, list) else v for key, v in entries.pop("network").items()}
        mean, std = tuple(entries.pop("mean")), tuple(entries.pop("std"))
        card = cls(network, Classes(names, palette), mean, std, **entries)
        check_values(card)
        return card

    def json(self) -> str:
        """Return the card as JSON text."""
        return json.dumps({"format": FORMAT, **asdict(self)})


_MAXIMA = {"num_classes": IGNORE, "in_channels": MAX_CHANNELS, "width": 4096, "size": MAX_SIZE, "white": 65535}
_SMALLEST_STD = 1e-6
_MAX_CARD = 1 << 20


def check_values(card: Card) -> None:
    """Check that a card, which may come from an untrusted file, asks for no huge network and for no download.

    Raises:
        ValueError: a value is invalid.
    """
    values = {**card.network, "size": card.size, "white": card.white}
    for name, maximum in _MAXIMA.items():
        value = values.get(name)
        if value is not None and (type(value) is not int or not 1 <= value <= maximum):
            raise ValueError(f"{name}: must be an integer from 1 to {maximum}, got {value!r}")
    if card.scale_rule not in SCALE_RULES:
        raise ValueError(f"scale_rule: must be one of {', '.join(SCALE_RULES)}, got {card.scale_rule!r}")
    if "pretrained" in card.network:
        raise ValueError("pretrained: not allowed, the file has the weights")
    for name, numbers in (("mean", card.mean), ("std", card.std)):
        if len(numbers) != card.bands.count or not all(isinstance(n, int | float) and abs(n) < 1e6 for n in numbers):
            raise ValueError(f"{name}: must be one number per channel, got {numbers!r}")
    if min(card.std) < _SMALLEST_STD:
        raise ValueError(f"std: must be at least {_SMALLEST_STD:g}, got {card.std!r}")
    if not all(len(c) == 3 and all(type(v) is int and 0 <= v <= 255 for v in c) for c in card.classes.palette):
        raise ValueError("classes: colors must be three integers from 0 to 255")
    if len(card.classes) != (outputs := card.network.get("num_classes")):
        raise ValueError(f"classes: {len(card.classes)} names for a network of {outputs} classes")


def resolve(path: Path | str | None) -> Path:
    """Return the file of weights that are named "default", or nothing, for the bundled ones.

    An address of the Hugging Face Hub, hf://user/repo[@revision][/file], is downloaded; see `danet.weights.hub_files`.

    Raises:
        InputError: the download failed.
    """
    if path is not None and is_address(path):
        return fetch(str(path))
    return DEFAULT if path is None or str(path) == "default" else Path(path)


def missing_weights(path: Path) -> InputError:
    """Return the error for weights that are no file, such as the folder of a run."""
    best = path / BEST_OF_RUN
    return missing_file(path, f"use {best}" if best.is_file() else "specify a .safetensors file or an exported model")


def peek(path: Path | str | None) -> Card | None:
    """Return the card in the header of a weights file, without its tensors, which are not checked.

    Args:
        path: the file; None or "default" means the bundled weights.

    Returns:
        The card; None if the file has none, which `danet.weights.file.load` explains.

    Raises:
        InputError: see `resolve`.
    """
    path = resolve(path)
    try:
        with open_regular(path) as file:
            size = int.from_bytes(file.read(8), "little")
            return Card.from_json(json.loads(file.read(min(size, MAX_HEADER)))["__metadata__"]["danet"])
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
