"""What is asked of an image, and the answers: points, channels, modules switched off. Used by `danet look`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from danet.data.classes import IGNORE, LabelMap
from danet.data.images.read import read_mask
from danet.errors import InputError
from danet.predict.attention import Module, Seen, see
from danet.predict.predictor import Predictor, Segmentation

MODULES: tuple[Module, ...] = ("position", "channel")


class Point(NamedTuple):
    """Where a pixel of the image looks; see `Seen` for the fields' meaning."""

    x: int
    y: int
    class_id: int
    attention: Float32[np.ndarray, "h w"]
    classes: list[tuple[int, float]]
    strongest: list[tuple[int, int, float]]


class Channel(NamedTuple):
    """An attended channel map and the class that it answers to most (None: to no class more than to another), by the
    measure of `Seen.responses`.
    """

    number: int
    class_id: int | None
    response: float
    map: Float32[np.ndarray, "h w"]


class Off(NamedTuple):
    """A prediction without a module, and what the module changed: fractions of the pixels, with ground truth of the
    labeled pixels.

    Args:
        changed: predicted otherwise without the module.
        mended: wrong without it and right with it; corrupted: the reverse. None: no ground truth.
    """

    module: Module
    segmentation: Segmentation
    changed: float
    mended: float | None
    corrupted: float | None


class Answers(NamedTuple):
    """All that is asked of one image. `truth` is H,W uint8 train ids."""

    seen: Seen
    points: list[Point]
    channels: list[Channel]
    off: list[Off]
    truth: UInt8[np.ndarray, "H W"] | None

    def as_dict(self) -> dict[str, Any]:
        """The numbers, for JSON: no maps."""
        names, (height, width) = self.seen.segmentation.classes.names, self.seen.image.shape[:2]
        points = [
            {
                "x": point.x,
                "y": point.y,
                "class": names[point.class_id],
                "classes": [{"name": names[i], "id": i, "share": share} for i, share in point.classes],
                "strongest": [{"x": x, "y": y, "weight": weight} for x, y, weight in point.strongest],
            }
            for point in self.points
        ]
        channels = [
            {"channel": c.number, "class": None if c.class_id is None else names[c.class_id], "response": c.response}
            for c in self.channels
        ]
        without = {
            off.module: {"changed": off.changed}
            | ({} if off.mended is None else {"mended": off.mended, "corrupted": off.corrupted})
            for off in self.off
        }
        numbers = {"name": self.seen.segmentation.name, "width": width, "height": height, "grid": list(self.seen.grid)}
        scales = dict(self.seen.inside.scales)
        return numbers | {"scales": scales, "points": points, "channels": channels, "without": without}


def ask(
    seen: Seen,
    points: Sequence[tuple[int, int]],
    channels: Sequence[int],
    modules: Sequence[Module] = (),
    truth: UInt8[np.ndarray, "H W"] | None = None,
) -> Answers:
    """Everything at once.

    Args:
        points: x, y in pixels of the image.
        channels: numbers of attended channel maps.
        modules: those to switch off.
        truth: train ids, to say what a module mends.

    Raises:
        InputError: a point outside the image, no such channel, a module that the network lacks.
    """
    found = [_point(seen, x, y) for x, y in points]
    maps = seen.channel_maps(channels) if channels else []
    responses = seen.responses() if channels else np.zeros((0, 0), np.float32)
    answered = [_channel(number, responses[number], map_) for number, map_ in zip(channels, maps, strict=True)]
    return Answers(seen, found, answered, [_off(seen, module, truth) for module in modules], truth)


def look_at(
    predictor: Predictor,
    images: Sequence[Path],
    points: Sequence[tuple[int, int]] = (),
    channels: Sequence[int] = (),
    class_name: str | None = None,
    without: bool = False,
    truths: Sequence[Path] = (),
    ignore: int = IGNORE,
) -> list[Answers]:
    """`ask` of several images. Without points, those of `default_points` in each image. Without channels, in all
    the images those that answer most, in the first, to the class of that name, or else to the classes of its points.

    Raises:
        InputError: what `see`, `ask`, `read_truth` and `Seen.channels_of` refuse; a network without attention.
    """
    answers: list[Answers] = []
    for image, truth in zip(images, truths or [None] * len(images), strict=True):
        seen = see(predictor, image)
        if not (seen.has_position or seen.has_channel):
            raise InputError("look", "the network has no attention", "give weights of a network that has it")
        at = points or (default_points(seen) if seen.has_position else [])
        if not answers and not channels:
            channels = _channels(seen, at, class_name)
        labels = None if truth is None else read_truth(truth, seen, ignore)
        modules: list[Module] = [module for module in MODULES if without and module in seen.inside.without]
        answers.append(ask(seen, at, channels, modules, labels))
    return answers


def default_points(seen: Seen, count: int = 2) -> list[tuple[int, int]]:
    """A pixel well inside each of the classes with the largest predictions, largest first: the middle of the position
    that is farthest from any other class.
    """
    labels = seen.inside.labels
    sizes = np.bincount(labels.ravel())
    largest = [int(i) for i in np.argsort(-sizes, kind="stable")[:count] if sizes[i]]
    return [seen.pixel(*_innermost(labels == i)) for i in largest]


def read_truth(path: Path, seen: Seen, ignore: int = IGNORE) -> UInt8[np.ndarray, "H W"]:
    """A ground truth mask of train ids, and of `ignore`, which becomes 255.

    Raises:
        InputError: no mask, of another size than the image, or with values that are no class.
    """
    mask = read_mask(path)
    if mask.shape != seen.image.shape[:2]:
        (height, width), (own_height, own_width) = seen.image.shape[:2], mask.shape
        what = f"mask of {own_width} x {own_height} pixels for an image of {width} x {height}"
        raise InputError(path, what, "make both of one size, pixel on pixel")
    return LabelMap.identity(len(seen.segmentation.classes), ignore).apply(mask, path)


def _channels(seen: Seen, points: Sequence[tuple[int, int]], class_name: str | None) -> list[int]:
    classes = seen.segmentation.classes
    if class_name is not None:
        if class_name not in classes.names:
            raise InputError("--class", f"{class_name!r} is no class", f"use one of {', '.join(classes.names)}")
        return seen.channels_of(classes.names.index(class_name))
    if not seen.has_channel:
        return []
    tellable = set(np.flatnonzero(~np.isnan(seen.responses()).any(0)).tolist())
    wanted = dict.fromkeys(int(seen.inside.labels[seen.position(x, y)]) for x, y in points or default_points(seen))
    return list(dict.fromkeys(seen.channels_of(i, 1)[0] for i in wanted if i in tellable))


def _point(seen: Seen, x: int, y: int) -> Point:
    attention = seen.attention(x, y)
    class_id = int(seen.segmentation.labels[y, x])
    return Point(x, y, class_id, attention, seen.classes_attended(attention), seen.strongest(attention))


def _channel(number: int, responses: Float32[np.ndarray, " K"], map_: Float32[np.ndarray, "h w"]) -> Channel:
    best = None if np.isnan(responses).all() else int(np.nanargmax(responses))
    if best is None or responses[best] <= 0:
        return Channel(number, None, 0.0, map_)
    return Channel(number, best, float(responses[best]), map_)


def _off(seen: Seen, module: Module, truth: UInt8[np.ndarray, "H W"] | None) -> Off:
    without, full = seen.without(module), seen.segmentation.labels
    valid = np.ones(full.shape, bool) if truth is None else truth != IGNORE
    changed = _share(without.labels != full, valid)
    if truth is None:
        return Off(module, without, changed, None, None)
    right, right_without = full == truth, without.labels == truth
    return Off(module, without, changed, _share(right & ~right_without, valid), _share(right_without & ~right, valid))


def _share(mask: Bool[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> float:
    return float(mask[valid].mean()) if valid.any() else 0.0


def _innermost(region: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Row and column of the cell that the most erosions leave, the one nearest to those cells' mean among equals."""
    last = region
    while region.any():
        last, padded = region, np.pad(region, 1)
        region = region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    cells = np.argwhere(last)
    row, column = cells[np.square(cells - cells.mean(0)).sum(1).argmin()].tolist()
    return row, column
