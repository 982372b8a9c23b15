"""The recipe of a training run: frozen dataclasses, checks, and conversion from and to YAML and JSON values."""

import re
import types
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from danet.errors import InputError


@dataclass(frozen=True)
class Network:
    """The network: its architecture and the arguments of `danet.DANet`.

    Baselines ignore the options of DANet's head, and smp's also width and dropout.
    """

    backbone: str = "resnet50"
    """a timm model name"""
    output_stride: int = 8
    """stride of the attention's grid: 8 (the paper), 16 or 32"""
    layer4_dilations: tuple[int, ...] | None = None
    """multi-grid: the dilation of each block of a ResNet's layer4; 4 8 16 in the paper"""
    position: bool = True
    """use position attention (Eq. 1-2)"""
    channel: bool = True
    """use channel attention (Eq. 3-4)"""
    channel_form: Literal["released", "paper", "cosine"] = "released"
    """channel attention as in the released code, as in Eq. 3, or by cosine"""
    width: int | None = None
    """channels of the attention branches; default: a quarter of the backbone's"""
    dropout: float = 0.1
    """probability of dropping a channel before each classifier"""
    align_corners: bool = True
    """align_corners for the bilinear upsampling of the logits"""
    auxiliary: bool = False
    """also train an FCN head on the backbone's second-to-last stage, as in mmsegmentation"""
    pretrained: bool = True
    """start from ImageNet weights, downloaded from the Hugging Face Hub unless a file is given"""
    decoder: bool = False
    """keep the backbone undilated and refine the result with its finer maps; the paper has no decoder"""
    decoder_stride: int = 4
    """stride of the decoder's result: 4, or 2 for objects of few pixels and long trainings"""
    decoder_width: int = 64
    """channels of the decoder's result at stride 4, from 8 to 1024; at stride 2, it has half of them"""
    initial_scale: float = 0.0
    """alpha and beta of the attention modules at the start; 0 in the paper"""
    position_form: Literal["paper", "centered", "cosine"] = "paper"
    """position attention by products as in Eq. 1, with the mean query subtracted, or by cosine"""
    reduction: int = 8
    """ratio of the branches' channels to those of query and key: 8 in the released code, 1 in the paper's text"""
    architecture: str = "danet"
    """danet, dranet, or a baseline: fcn8s, refinenet, bisenet, deeplabv2, denseaspp, encnet, ccnet, dnl, gcnet, ocrnet,
    emanet, or smp:PSPNet and others of segmentation-models-pytorch; see docs/training.md"""


@dataclass(frozen=True)
class Data:
    """The dataset and its augmentation."""

    dataset: str = "folder"
    """folder, camvid, cityscapes, voc, context, context59, coco-stuff, ade20k, toy or toy-context"""
    root: Path | None = None
    """the folder of the dataset"""
    train_split: str = "train"
    """split to train on"""
    val_split: str = "val"
    """split to validate on"""
    fold: str | None = None
    """k-fold cross-validation: I/K, such as 1/5, validates on part I of K of the training split and trains on the
    others; the validation split is not used"""
    batch: int = 8
    """images per step, over all processes and accumulated parts"""
    crop: tuple[int, int] = (512, 512)
    """height and width of the training crops"""
    scale: tuple[float, float] = (0.5, 2.0)
    """range of random scaling, relative to what `scale_from` says"""
    scale_from: Literal["image", "size"] = "image"
    """what `scale` multiplies: the image's own size (or `short_side`), or the size at which it is predicted"""
    short_side: int | None = None
    """resize the short side of images to this before random scaling; default: keep their size"""
    flip: float = 0.5
    """probability of a horizontal flip"""
    vertical_flip: float = 0.0
    """probability of a vertical flip, for images without an up and down, such as aerial ones"""
    rotate: float = 0.0
    """probability of a rotation by 90, 180 or 270 degrees"""
    rare: float = 0.0
    """probability that a crop is centered on a pixel of a rare class: each class in the image is chosen with a
    probability inverse to its number of pixels in the training set"""
    copy_paste: float = 0.0
    """probability that the pixels of a class of another training crop, mostly a small one, are pasted over a crop"""
    largest_share: float = 1.0
    """repeat a random crop, up to ten times, if one class has a larger share of its valid pixels"""
    jitter: float = 0.0
    """strength of random brightness, contrast and saturation"""
    photometric: bool = False
    """SSD's photometric distortion: brightness, contrast, saturation and hue, each with probability 0.5"""
    gamma: tuple[float, float] = (1.0, 1.0)
    """range of random gamma correction, for dark and bright light: above 1 darkens shadows; 0.5 2 is a good range"""
    degrade: float = 0.0
    """probability of random noise, blur, haze and compression, for robust networks; 0.5 is a good value"""
    mean: tuple[float, ...] | None = None
    """mean of each band that the network expects, from 0 to 1; default: that of the backbone's ImageNet weights"""
    std: tuple[float, ...] | None = None
    """standard deviation of each band that the network expects; default: that of the backbone's ImageNet weights"""
    size: int | Literal["auto"] | None = None
    """resize the long side of images to this for validation and prediction; auto: choose it from the images and masks;
    default: keep their size"""


@dataclass(frozen=True)
class Optim:
    """The optimizer and its poly learning rate schedule."""

    epochs: int = 240
    """passes over the training set; an epoch has as many steps as whole batches fit into it"""
    steps: int | None = None
    """total number of steps, instead of epochs"""
    lr: float = 0.01
    """base learning rate, used for the backbone"""
    head_lr_factor: float = 1.0
    """ratio of the head's learning rate to the backbone's"""
    momentum: float = 0.9
    """momentum of SGD"""
    weight_decay: float = 1e-4
    """weight decay of every parameter"""
    power: float = 0.9
    """exponent of the schedule: the learning rate is multiplied by (1 - step / steps) ** power"""
    lr_floor: float = 0.0
    """lower limit of the learning rate"""
    warmup: int = 0
    """steps of linear warmup"""
    accumulate: int = 1
    """compute each batch in this many parts, to save memory"""
    ema: float = 0.0
    """decay of an exponential moving average of the weights, which is then validated and saved; 0: none; after n steps
    at most (1 + n) / (10 + n)"""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: use autocast in the forward pass"""
    algorithm: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum as in the paper, or AdamW, which needs a lower learning rate, such as 0.0003"""
    attention_lr_factor: float = 1.0
    """ratio of the learning rate of alpha, beta, query and key to the head's; 0 keeps them as they are"""
    attention_weight_decay: float | None = None
    """weight decay of alpha, beta, query and key; default: `weight_decay`"""
    freeze: Literal["none", "backbone", "features"] = "none"
    """keep the backbone as it is, or everything but the layers that output classes, batch normalization included; for
    few images and --initial-weights"""
    frozen_batch_norm: int = 0
    """epochs at the start in which batch normalization in the backbone keeps its statistics"""
    layer_decay: float = 1.0
    """ratio of the learning rate of each stage of the backbone to that of the next one; below 1, early stages, whose
    ImageNet features are general, change less; a stage ends with one of the backbone's feature maps"""
    patience: int | None = None
    """stop after this many validations without a better mIoU; default: train to the last step"""


@dataclass(frozen=True)
class Loss:
    """Weights of the losses; those of outputs that the network lacks have no effect."""

    fused: float = 1.0
    """weight of the fused output's cross-entropy"""
    position: float = 1.0
    """weight of the position branch's cross-entropy"""
    channel: float = 1.0
    """weight of the channel branch's cross-entropy"""
    auxiliary: float = 0.4
    """weight of the auxiliary head's cross-entropy"""
    attention: float = 0.0
    """weight of the loss that makes pixels attend to their own class, if the network is a danet with position
    attention; 0 in the paper, 0.4 where we use it"""
    detach_attention: bool = False
    """let this loss train the queries and keys only, not the features that they are computed from"""
    presence: float = 0.2
    """weight of EncNet's loss of which classes are in the image"""


@dataclass(frozen=True)
class Criterion:
    """The loss of the outputs of logits. The paper uses cross-entropy alone."""

    pixel: Literal["cross-entropy", "focal", "ohem", "boundary"] = "cross-entropy"
    """cross-entropy; focal: less for easy pixels; ohem: only hard pixels; boundary: more near other classes"""
    label_smoothing: float = 0.0
    """probability that the target spreads evenly over all classes"""
    dice: float = 0.0
    """weight of the Dice loss of the fused output, added to the pixel loss; for small or rare objects"""
    lovasz: float = 0.0
    """weight of Lovasz-Softmax of the fused output, which optimizes the IoU, added to the pixel loss"""


@dataclass(frozen=True)
class Recipe:
    """A training run: everything that determines its result, except the initial weights and the machine."""

    about: str = "your own folder of images"
    """description stored in recipe.yaml"""
    network: Network = field(default_factory=Network)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    loss: Loss = field(default_factory=Loss)
    criterion: Criterion = field(default_factory=Criterion)
    class_weights: Literal["none", "auto", "enet", "median-frequency", "effective-number"] = "none"
    """class weights in the loss, computed from the pixels of each class in the training set; auto means enet"""
    seed: int = 1
    """seed of the initial weights, the order of samples, augmentation and dropout"""
    validate_every: int = 1
    """validate after this many epochs"""
    calibrate: bool = False
    """divide the logits of the best weights by the number that makes their confidences fit the validation images"""
    skip_bad: int = 0
    """number of unreadable training images that may be skipped; one more stops the run"""
    fine_tunes: str = ""
    """name of the recipe that this one fine-tunes (informational; pass the weights with --initial-weights)"""

    @property
    def supervises_attention(self) -> bool:
        """Return whether the attention loss is computed."""
        return self.loss.attention > 0 and self.network.position and self.network.architecture == "danet"

    @property
    def forward_options(self) -> dict[str, bool]:
        """Return the arguments with which the network's `forward` returns what the losses need."""
        return {"attention": True, "detach": self.loss.detach_attention} if self.supervises_attention else {}


@dataclass(frozen=True)
class Published:
    """A published result.

    Args:
        table: the number of the paper's table; "dranet" for results of DRANet, "mmseg" for those of mmsegmentation.
        miou: as published, in %; None if the number is not known.
        protocol: the testing protocol, a key of `danet.predict.protocols.PROTOCOLS`.
        ports: mIoU of other implementations, in %, with their settings.
        recipe: how it is trained.
    """

    table: str
    miou: float | None
    protocol: str
    ports: str
    recipe: Recipe


def parse_fold(text: Any) -> tuple[int, int]:
    """Return number and count of a fold that is written I/K, for example 1/5.

    Raises:
        InputError: another text; fewer than two folds; a number that is not from 1 to the count.
    """
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", str(text), re.ASCII)
    index, count = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 1 <= index <= count or count < 2:
        what = f"must be I/K, with K at least 2 and I from 1 to K, got {text!r}"
        raise InputError("data.fold", what, "for example, use 1/5")
    return index, count


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """Convert a recipe to plain values for YAML and JSON."""
    return _plain(asdict(recipe))


def from_dict(entries: Mapping[str, Any], source: str) -> Recipe:
    """Convert plain values to a recipe. Missing keys have their default values.

    Args:
        entries: as returned by `to_dict`.
        source: the file they are from, for messages.

    Raises:
        InputError: an unknown key (the message suggests the closest one) or a value of the wrong type.
    """
    if isinstance(entries, Mapping) and isinstance(entries.get("loss"), list):  # written by danet 0.1.0
        names = [f.name for f in fields(Loss)]
        entries = {**entries, "loss": dict(zip(names, entries["loss"], strict=False))}
    optim = entries.get("optim") if isinstance(entries, Mapping) else None
    if isinstance(optim, Mapping) and optim.get("precision") == "bf16":  # the former name
        entries = {**entries, "optim": {**optim, "precision": "bfloat16"}}
    return _build(Recipe, entries, source, "")


def with_settings(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Return a recipe with other values.

    Args:
        recipe: the recipe.
        settings: values by the names of the fields, {"optim.epochs": 40, "class_weights": "auto"}; those of a section
            may also be nested, {"optim": {"epochs": 40}}. Fields that are not named keep their values.

    Raises:
        InputError: an unknown name (the message suggests the closest one) or a value of the wrong type.
    """
    entries = to_dict(recipe)
    for name, value in flatten(settings).items():
        *sections, last = name.split(".")
        part = entries
        for section in sections:
            part = part.get(section)
            if not isinstance(part, dict):
                raise InputError("settings", f"{name!r} is unknown", f"use one of {', '.join(entries)}")
        part[last] = _plain(value)
    return _build(Recipe, entries, "settings", "")


def flatten(entries: Any, prefix: str = "") -> dict[str, Any]:
    """Return field -> value, with the names of sections and a dot before those of their fields.

    Raises:
        InputError: no mapping with names as keys.
    """
    if not isinstance(entries, Mapping) or not all(isinstance(name, str) for name in entries):
        what = f"must be a dictionary from names to values, got {entries!r}"
        raise InputError("settings", what, 'for example, use {"optim.epochs": 40}')
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _build(kind: type, entries: Any, source: str, prefix: str) -> Any:
    if not isinstance(entries, Mapping):
        what = f"{prefix.rstrip('.') or 'the file'} must have lines of the form key: value"
        raise InputError(source, what, "restore the file")
    types_by_name = get_type_hints(kind)
    known = [f.name for f in fields(kind)]
    for key in entries:
        if key not in known:
            near = get_close_matches(str(key), known, n=1)
            remedy = f"did you mean {prefix}{near[0]}?" if near else f"use one of {', '.join(known)}"
            raise InputError(source, f"unknown key {prefix}{key}", remedy)
    return kind(**{key: _value(types_by_name[key], value, source, prefix + key) for key, value in entries.items()})


def _value(kind: Any, value: Any, source: str, name: str) -> Any:
    if is_dataclass(kind):
        assert isinstance(kind, type)
        return _build(kind, value, source, f"{name}.")
    choices = get_args(kind) if get_origin(kind) in (types.UnionType, Union) else (kind,)
    for choice in choices:
        if (converted := _convert(choice, value)) is not _WRONG:
            return converted
    expected = " or ".join(map(_describe, choices))
    raise InputError(source, f"{name}: must be {expected}, got {value!r}", "correct that line")


def _describe(kind: Any) -> str:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return " or ".join(map(str, arguments))
    if get_origin(kind) is tuple:
        return f"a list of {'' if Ellipsis in arguments else f'{len(arguments)} '}numbers"
    words = {float: "a number", int: "an integer", bool: "true or false", type(None): "null"}
    return words.get(kind, "text")


_WRONG = object()
_SHORT_FLOAT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")  # 1e-3, which YAML 1.1 reads as text


def _convert(kind: Any, value: Any) -> Any:
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
        parts = tuple(_convert(arguments[0], part) for part in value)
        return _WRONG if _WRONG in parts else parts
    return value if type(value) is kind else _WRONG
