"""What a training run is: frozen dataclasses, their checks, and their form in YAML and JSON."""

import re
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from danet.errors import InputError


@dataclass(frozen=True)
class Network:
    """The network: its architecture, and the arguments of `danet.DANet`, of which others take those that are not of its
    head.
    """

    backbone: str = "resnet50"
    """a timm model name"""
    output_stride: int = 8
    """8 (the paper) or 16"""
    layer4_dilations: tuple[int, ...] | None = None
    """multi-grid: the dilation of each block of a ResNet's layer4, 4 8 16 in the paper"""
    position: bool = True
    """use position attention (Eq. 1-2)"""
    channel: bool = True
    """use channel attention (Eq. 3-4)"""
    channel_form: Literal["released", "paper"] = "released"
    """channel attention as in the released code, or as in Eq. 3"""
    width: int | None = None
    """channels of the attention branches; a quarter of the backbone's if not given"""
    dropout: float = 0.1
    """probability of dropping a channel before each classifier"""
    align_corners: bool = True
    """of the bilinear upsampling of the logits"""
    auxiliary: bool = False
    """train an FCN head on the backbone's last stage but one beside, as mmsegmentation does"""
    pretrained: bool = True
    """begin with ImageNet weights from timm's hub, unless --backbone-weights is given"""
    architecture: str = "danet"
    """danet, or for comparison smp:PSPNet, smp:DeepLabV3, smp:DeepLabV3Plus or smp:UPerNet (pip install
    'danet[compare]')"""


@dataclass(frozen=True)
class Data:
    """The dataset and its augmentation."""

    dataset: str = "folder"
    """a dataset's name"""
    root: Path | None = None
    """the folder it lies in"""
    train_split: str = "train"
    """what is trained on"""
    val_split: str = "val"
    """what is validated on"""
    batch: int = 8
    """images a step, over all processes and accumulated parts"""
    crop: tuple[int, int] = (512, 512)
    """height and width of the training crops"""
    scale: tuple[float, float] = (0.5, 2.0)
    """range of the random resizing, relative to an image's own size, or to `short_side`"""
    short_side: int | None = None
    """images' short side is brought to this before the random resizing; their own size if not given"""
    flip: float = 0.5
    """probability of a left-right flip"""
    largest_share: float = 1.0
    """a crop in which one class has a larger share of the valid pixels is drawn again, up to ten times"""
    jitter: float = 0.0
    """strength of random brightness, contrast and saturation"""
    photometric: bool = False
    """SSD's photometric distortion: brightness, contrast, saturation and hue, each with probability a half"""
    size: int | None = None
    """long side to which images are brought for validation and prediction; their own size if not given"""


@dataclass(frozen=True)
class Optim:
    """SGD with momentum under a poly schedule."""

    epochs: int = 240
    """an epoch is as many steps as whole batches fit into the training set"""
    steps: int | None = None
    """steps in all, instead of whole epochs"""
    lr: float = 0.01
    """base learning rate, of the backbone"""
    head_lr_factor: float = 1.0
    """the head's learning rate over the backbone's"""
    momentum: float = 0.9
    """of SGD"""
    weight_decay: float = 1e-4
    """on every parameter"""
    power: float = 0.9
    """the learning rate falls with (1 - step / steps) to this power"""
    lr_floor: float = 0.0
    """the learning rate it falls to"""
    warmup: int = 0
    """steps over which the learning rate rises linearly to its value"""
    accumulate: int = 1
    """parts in which a step's batch is computed, to save memory"""
    ema: float = 0.0
    """decay of an exponential moving average of the weights, which is then what is validated and saved; 0 for none"""
    precision: Literal["float32", "bf16"] = "float32"
    """bf16: autocast of the forward pass"""


@dataclass(frozen=True)
class Recipe:
    """A training run: everything that decides its result but the weights it begins with and the machine."""

    about: str = "your own folder of images"
    """one line for danet recipes"""
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    loss: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 0.4)
    """factors of the losses of the fused, position, channel and auxiliary output"""
    class_weights: Literal["none", "auto", "enet", "median-frequency", "effective-number"] = "none"
    """weights of the classes in the loss, from their pixels in the training set: see danet.data.class_weights; auto is
    enet"""
    seed: int = 1
    """of the initial weights, the order of samples, their augmentation and dropout"""
    validate_every: int = 1
    """epochs between two validations"""
    skip_bad: int = 0
    """images that may be left out because they cannot be read; one more ends the run"""
    fine_tunes: str = ""
    """the recipe whose weights this one begins with, given as --initial-weights"""


@dataclass(frozen=True)
class Published:
    """A row of a table.

    Args:
        table: of the paper; "mmseg" for a row that mmsegmentation published.
        miou: the paper's or mmsegmentation's, in %.
        protocol: how it was tested: a name of `danet.predict.protocols.PROTOCOLS`.
        ports: mIoU of other implementations, in %, with their settings.
        recipe: what to train.
    """

    table: str
    miou: float
    protocol: str
    ports: str
    recipe: Recipe


def check(recipe: Recipe, processes: int = 1) -> None:
    """Raises InputError for the first value that cannot be, by the name of its option."""
    data, optim, share = recipe.data, recipe.optim, processes * recipe.optim.accumulate
    rules = [
        ("data.batch", data.batch, data.batch >= 1 and data.batch % share == 0, f"a multiple of {share}"),
        ("data.crop", data.crop, min(data.crop) >= 32, "two numbers of at least 32 pixels"),
        ("data.scale", data.scale, 0 < data.scale[0] <= data.scale[1] <= 16, "two rising factors above 0"),
        ("data.flip", data.flip, 0 <= data.flip <= 1, "a probability"),
        ("data.jitter", data.jitter, 0 <= data.jitter <= 1, "from 0 to 1"),
        ("data.largest-share", data.largest_share, 0 < data.largest_share <= 1, "above 0 and up to 1"),
        ("data.short-side", data.short_side, data.short_side is None or data.short_side >= 32, "at least 32 pixels"),
        ("data.size", data.size, data.size is None or 32 <= data.size <= 8192, "from 32 to 8192 pixels"),
        ("optim.epochs", optim.epochs, optim.epochs >= 1, "at least 1"),
        ("optim.steps", optim.steps, optim.steps is None or optim.steps >= 1, "at least 1"),
        ("optim.lr", optim.lr, 0 < optim.lr < float("inf"), "a number above 0"),
        ("optim.lr-floor", optim.lr_floor, 0 <= optim.lr_floor <= optim.lr, "from 0 to the learning rate"),
        ("optim.head-lr-factor", optim.head_lr_factor, 0 < optim.head_lr_factor < float("inf"), "a number above 0"),
        ("optim.momentum", optim.momentum, 0 <= optim.momentum < 1, "from 0 to below 1"),
        ("optim.weight-decay", optim.weight_decay, 0 <= optim.weight_decay < 1, "from 0 to below 1"),
        ("optim.power", optim.power, 0 <= optim.power < 100, "0 or more"),
        ("optim.warmup", optim.warmup, optim.warmup >= 0, "0 or more"),
        ("optim.accumulate", optim.accumulate, optim.accumulate >= 1, "at least 1"),
        ("optim.ema", optim.ema, 0 <= optim.ema < 1, "from 0 to below 1"),
        ("loss", recipe.loss, min(recipe.loss) >= 0 < sum(recipe.loss), "four factors of 0 or more"),
        ("seed", recipe.seed, 0 <= recipe.seed < 1 << 63, "0 or more"),
        ("skip-bad", recipe.skip_bad, recipe.skip_bad >= 0, "0 or more"),
        ("validate-every", recipe.validate_every, recipe.validate_every >= 1, "at least 1"),
        ("network.width", recipe.network.width, recipe.network.width in (None, *range(8, 4097)), "from 8 to 4096"),
        ("network.dropout", recipe.network.dropout, 0 <= recipe.network.dropout < 1, "from 0 to below 1"),
    ]
    for option, value, good, wanted in rules:
        if not good:
            raise InputError(f"--{option}", f"{value} cannot be", f"give {wanted}")


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Plain values only, for YAML and JSON."""
    return _plain(asdict(recipe))


def from_dict(entries: Mapping[str, Any], source: str) -> Recipe:
    """The inverse of `to_dict`, with a closed schema.

    Raises:
        InputError: a key that does not exist (the nearest is proposed) or a value of another type.
    """
    return _build(Recipe, entries, source, "")


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _build(kind: type, entries: Any, source: str, prefix: str) -> Any:
    if not isinstance(entries, Mapping):
        raise InputError(source, f"{prefix or 'it'} holds no `key: value` lines", "restore the file")
    types_by_name = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in entries:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            raise InputError(
                source,
                f"unknown key {prefix}{key}",
                f"did you mean {prefix}{near[0]}?" if near else f"use {', '.join(known)}",
            )
    return kind(**{key: _value(types_by_name[key], value, source, prefix + key) for key, value in entries.items()})


def _value(kind: Any, value: Any, source: str, name: str) -> Any:
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return _build(kind, value, source, f"{name}.")
    choices = get_args(kind) if isinstance(kind, types.UnionType) else (kind,)
    for choice in choices:
        if (converted := _converted(choice, value)) is not _WRONG:
            return converted
    raise InputError(source, f"{name}: {value!r} cannot be", f"give {' or '.join(map(_in_words, choices))}")


def _in_words(kind: Any) -> str:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, arguments))
    if get_origin(kind) is tuple:
        return f"a list of {'' if Ellipsis in arguments else f'{len(arguments)} '}numbers"
    words = {float: "a number", int: "a whole number", bool: "true or false", type(None): "null"}
    return words.get(kind, "text")


_WRONG = object()
_SHORT_FLOAT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # 1e-3, which YAML 1.1 takes for text


def _converted(kind: Any, value: Any) -> Any:
    arguments = get_args(kind)
    if kind is type(None):
        return None if value is None else _WRONG
    if kind is Path:
        return Path(value) if isinstance(value, str) else _WRONG
    if kind is float:
        if isinstance(value, str) and _SHORT_FLOAT.fullmatch(value):
            return float(value)
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else _WRONG
    if get_origin(kind) is Literal:
        return value if value in arguments else _WRONG
    if get_origin(kind) is tuple:
        if not isinstance(value, list) or (Ellipsis not in arguments and len(value) != len(arguments)):
            return _WRONG
        parts = tuple(_converted(arguments[0], part) for part in value)
        return _WRONG if _WRONG in parts else parts
    return value if type(value) is kind else _WRONG
