"""Check the values of a recipe."""

from collections.abc import Iterator
from dataclasses import asdict, is_dataclass
from typing import Any, Literal, get_args, get_origin, get_type_hints

from danet.errors import InputError
from danet.recipes.recipe import Optim, Recipe, parse_fold


def check(recipe: Recipe, processes: int = 1) -> None:
    """Check the values of a recipe.

    Args:
        recipe: the recipe.
        processes: the number of training processes, which share each batch.

    Raises:
        InputError: an invalid value; the message names the field.
    """
    data, optim = recipe.data, recipe.optim
    for name, value, valid, expected in [*_data_rules(recipe), *_optim_rules(optim), *_other_rules(recipe)]:
        if not valid:
            raise InputError(name, f"must be {expected}, got {_as_typed(value)}", _example(name))
    if recipe.network.architecture == "dranet" and data.batch == optim.accumulate:
        what = f"dranet needs 2 images or more at once, got {data.batch} with `optim.accumulate` {optim.accumulate}"
        smaller = ", or a smaller `optim.accumulate`" if optim.accumulate > 1 else ""
        raise InputError("data.batch", what, f"use at least {2 * optim.accumulate}{smaller}")
    if data.fold is not None:
        parse_fold(data.fold)
    for name, value, choices in _choices(recipe):
        if value not in choices:
            raise InputError(name, f"{value!r} is unknown", f"use one of {', '.join(map(str, choices))}")
    if data.batch % (share := processes * optim.accumulate):
        parts = [f"`optim.accumulate` {optim.accumulate}"] if optim.accumulate > 1 else []
        parts += [f"{processes} processes"] if processes > 1 else []
        what = f"{data.batch} cannot be divided by {' times '.join(parts)}"
        raise InputError("data.batch", what, f"use a multiple of {share}")


Rule = tuple[str, Any, bool, str]
"""The name of a field, its value, whether it is valid, and what it must be."""


def _data_rules(recipe: Recipe) -> list[Rule]:
    data = recipe.data
    return [
        ("data.batch", data.batch, data.batch >= 1, "at least 1"),
        ("data.crop", data.crop, min(data.crop) >= 32, "two numbers of at least 32 pixels"),
        (
            "data.scale",
            data.scale,
            0 < data.scale[0] <= data.scale[1] <= 16,
            "two increasing factors above 0, up to 16",
        ),
        ("data.flip", data.flip, 0 <= data.flip <= 1, "from 0 to 1"),
        ("data.vertical_flip", data.vertical_flip, 0 <= data.vertical_flip <= 1, "from 0 to 1"),
        ("data.rotate", data.rotate, 0 <= data.rotate <= 1, "from 0 to 1"),
        ("data.rare", data.rare, 0 <= data.rare <= 1, "from 0 to 1"),
        ("data.copy_paste", data.copy_paste, 0 <= data.copy_paste <= 1, "from 0 to 1"),
        ("data.jitter", data.jitter, 0 <= data.jitter <= 1, "from 0 to 1"),
        (
            "data.gamma",
            data.gamma,
            0.1 <= data.gamma[0] <= data.gamma[1] <= 10,
            "two increasing exponents from 0.1 to 10",
        ),
        ("data.degrade", data.degrade, 0 <= data.degrade <= 1, "from 0 to 1"),
        ("data.largest_share", data.largest_share, 0 < data.largest_share <= 1, "above 0 and up to 1"),
        ("data.short_side", data.short_side, data.short_side is None or data.short_side >= 32, "at least 32 pixels"),
        ("data.mean", data.mean, all(0 <= value <= 1 for value in data.mean or ()), "from 0 to 1"),
        ("data.std", data.std, all(0 < value <= 1 for value in data.std or ()), "above 0 and up to 1"),
        (
            "data.size",
            data.size,
            not isinstance(data.size, int) or 32 <= data.size <= 4096,
            "from 32 to 4096 pixels",
        ),
        (
            "data.scale_from",
            data.scale_from,
            data.scale_from == "image" or (data.size is not None and data.short_side is None),
            "image if there is no `data.size`, or a `data.short_side`",
        ),
    ]


def _optim_rules(optim: Optim) -> list[Rule]:
    decay = optim.attention_weight_decay
    return [
        ("optim.epochs", optim.epochs, optim.epochs >= 1, "at least 1"),
        ("optim.steps", optim.steps, optim.steps is None or optim.steps >= 1, "at least 1"),
        ("optim.lr", optim.lr, 0 < optim.lr < float("inf"), "a number above 0"),
        ("optim.lr_floor", optim.lr_floor, 0 <= optim.lr_floor <= optim.lr, "from 0 to the learning rate"),
        ("optim.head_lr_factor", optim.head_lr_factor, 0 < optim.head_lr_factor < float("inf"), "a number above 0"),
        (
            "optim.attention_lr_factor",
            optim.attention_lr_factor,
            0 <= optim.attention_lr_factor < float("inf"),
            "0 or more",
        ),
        ("optim.frozen_batch_norm", optim.frozen_batch_norm, optim.frozen_batch_norm >= 0, "0 or more epochs"),
        ("optim.layer_decay", optim.layer_decay, 0 < optim.layer_decay <= 1, "above 0 and up to 1"),
        ("optim.patience", optim.patience, optim.patience is None or optim.patience >= 1, "at least 1 validation"),
        ("optim.momentum", optim.momentum, 0 <= optim.momentum < 1, "from 0 to below 1"),
        ("optim.weight_decay", optim.weight_decay, 0 <= optim.weight_decay < 1, "from 0 to below 1"),
        ("optim.attention_weight_decay", decay, decay is None or 0 <= decay < 1, "from 0 to below 1"),
        ("optim.power", optim.power, 0 <= optim.power < 100, "from 0 to below 100"),
        ("optim.warmup", optim.warmup, optim.warmup >= 0, "0 or more"),
        ("optim.accumulate", optim.accumulate, optim.accumulate >= 1, "at least 1"),
        ("optim.ema", optim.ema, 0 <= optim.ema < 1, "from 0 to below 1"),
    ]


def _other_rules(recipe: Recipe) -> list[Rule]:
    scale, losses = recipe.network.initial_scale, asdict(recipe.loss)
    del losses["detach_attention"]
    return [
        *((f"loss.{name}", value, 0 <= value < float("inf"), "0 or more") for name, value in losses.items()),
        *(
            (f"criterion.{name}", getattr(recipe.criterion, name), 0 <= getattr(recipe.criterion, name) < high, words)
            for name, high, words in (
                ("label_smoothing", 1, "from 0 to below 1"),
                ("dice", float("inf"), "0 or more"),
                ("lovasz", float("inf"), "0 or more"),
            )
        ),
        (
            "loss.detach_attention",
            recipe.loss.detach_attention,
            recipe.supervises_attention or not recipe.loss.detach_attention,
            "off without an attention loss",
        ),
        ("loss.fused", recipe.loss.fused, _has_loss(recipe), "above 0 if no other output of the network has a weight"),
        ("seed", recipe.seed, 0 <= recipe.seed < 1 << 63, "0 or more"),
        ("skip_bad", recipe.skip_bad, recipe.skip_bad >= 0, "0 or more"),
        ("validate_every", recipe.validate_every, recipe.validate_every >= 1, "at least 1"),
        ("network.width", recipe.network.width, recipe.network.width in (None, *range(8, 4097)), "from 8 to 4096"),
        (
            "network.decoder_stride",
            recipe.network.decoder_stride,
            recipe.network.decoder_stride in (2, 4),
            "4 or 2",
        ),
        (
            "network.decoder_width",
            recipe.network.decoder_width,
            recipe.network.decoder_width in range(8, 1025),
            "from 8 to 1024",
        ),
        ("network.initial_scale", scale, abs(scale) < float("inf"), "a finite number"),
        ("network.reduction", recipe.network.reduction, recipe.network.reduction >= 1, "at least 1"),
        ("network.dropout", recipe.network.dropout, 0 <= recipe.network.dropout < 1, "from 0 to below 1"),
    ]


def _has_loss(recipe: Recipe) -> bool:
    """Return whether one of the outputs that the network has in training has a weight."""
    network, loss = recipe.network, recipe.loss
    branches = network.architecture == "danet" and network.position and network.channel
    own_auxiliary = network.architecture in ("ocrnet", "bisenet")
    weights = (
        loss.fused,
        branches * (loss.position + loss.channel),
        (network.auxiliary or own_auxiliary) * loss.auxiliary,
        recipe.supervises_attention * loss.attention,
        (network.architecture == "encnet") * loss.presence,
    )
    return sum(weights) > 0


def _choices(part: Any, prefix: str = "") -> Iterator[tuple[str, Any, tuple]]:
    """Yield the name, the value and the choices of each field that has choices, of a recipe or a section of it."""
    for name, kind in get_type_hints(type(part)).items():
        value = getattr(part, name)
        if is_dataclass(kind):
            yield from _choices(value, f"{prefix}{name}.")
        elif get_origin(kind) is Literal:
            yield prefix + name, value, get_args(kind)


def _example(name: str) -> str:
    """Return a remedy that names a valid value: the default."""
    value: Any = Recipe()
    for part in name.split("."):
        value = getattr(value, part)
    return f"leave `{name}` out" if value is None else f"for example, use {_as_typed(value)}"


def _as_typed(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else f"{value}"
