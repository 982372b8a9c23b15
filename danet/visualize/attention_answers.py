"""Query the attention of images: points, channels, and predictions without each module. Used by `danet look`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from danet.errors import InputError
from danet.predict.attention import Inspection, Module
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation, describe_classes
from danet.visualize.ground_truth import Effect, GroundTruth, effect

MODULES: tuple[Module, ...] = ("position", "channel")


class Point(NamedTuple):
    """The attention of a pixel of the image.

    Args:
        x: of the pixel.
        y: of the pixel.
        class_id: predicted there.
        attention: to each position.
        classes: (train id, share of the attention), see `Inspection.classes_attended`.
        strongest: (x, y, weight), see `Inspection.strongest`.
    """

    x: int
    y: int
    class_id: int
    attention: Float32[np.ndarray, "h w"]
    classes: list[tuple[int, float]]
    strongest: list[tuple[int, int, float]]


class Channel(NamedTuple):
    """An attended channel map, and the class to which it responds most strongly; see `Inspection.responses`.

    Args:
        index: of the channel, from 0; the paper and the figures number channels from 1.
        class_id: None if it responds to no class.
        response: to this class.
        map: the attended channel map.
    """

    index: int
    class_id: int | None
    response: float
    map: Float32[np.ndarray, "h w"]


class Ablation(NamedTuple):
    """A prediction without a module's attention, and the effect of the module."""

    segmentation: Segmentation
    effect: Effect


class Answers(NamedTuple):
    """All answers for one image.

    Args:
        inspection: the image's.
        points: in the order of the questions.
        channels: in the order of the questions.
        ablations: by the module that is switched off.
        truth: the ground truth as train ids, if given.
    """

    inspection: Inspection
    points: list[Point]
    channels: list[Channel]
    ablations: dict[Module, Ablation]
    truth: UInt8[np.ndarray, "H W"] | None

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, without maps, for JSON."""
        classes, (height, width) = self.inspection.segmentation.classes, self.inspection.image.shape[:2]
        points = [
            {
                "x": point.x,
                "y": point.y,
                "class": classes.names[point.class_id],
                "classes": describe_classes(classes, point.classes),
                "strongest": [{"x": x, "y": y, "weight": weight} for x, y, weight in point.strongest],
            }
            for point in self.points
        ]
        channels = [
            {
                "channel": channel.index,
                "number": channel.index + 1,
                "class": None if channel.class_id is None else classes.names[channel.class_id],
                "response": channel.response,
            }
            for channel in self.channels
        ]
        without = {module: ablation.effect.as_dict() for module, ablation in self.ablations.items()}
        name, grid = self.inspection.segmentation.name, list(self.inspection.grid)
        about = {"name": name, "width": width, "height": height, "grid": grid}
        scales = dict(self.inspection.internals.scales)
        return about | {"scales": scales, "points": points, "channels": channels, "without": without}


def ask(
    inspection: Inspection,
    points: Sequence[tuple[int, int]],
    channels: Sequence[int],
    modules: Sequence[Module] = (),
    truth: UInt8[np.ndarray, "H W"] | None = None,
) -> Answers:
    """Answer all questions about one image.

    Args:
        inspection: the image's.
        points: x and y of pixels.
        channels: indices of attended channel maps, from 0.
        modules: the modules to switch off.
        truth: ground truth as train ids, to count what a module corrects.

    Raises:
        InputError: a point outside the image, no such channel, or a module that the network lacks.
    """
    answers = [_point(inspection, x, y) for x, y in points]
    maps = inspection.channel_maps(channels) if channels else []
    responses = inspection.responses() if channels else np.zeros((0, 0), np.float32)
    responding = [_channel(index, responses[index], map_) for index, map_ in zip(channels, maps, strict=True)]
    ablations = {}
    for module in modules:
        without = inspection.without(module)
        ablations[module] = Ablation(without, effect(without, inspection.segmentation, truth))
    return Answers(inspection, answers, responding, ablations, truth)


def look_at(
    predictor: Predictor,
    images: Sequence[Path],
    points: Sequence[tuple[int, int]] = (),
    channels: Sequence[int] = (),
    class_name: str | None = None,
    without: bool = False,
    truths: Sequence[GroundTruth] = (),
) -> list[Answers]:
    """Inspect images and answer the same questions about each.

    Args:
        predictor: a network with attention.
        images: files.
        points: x and y of pixels; if empty, the `default_points` of each image.
        channels: numbers of attended channel maps, from 1 as in the paper; if empty, those that respond most strongly,
            in the first image, to the class `class_name`, or else to the classes of its points.
        class_name: see `channels`.
        without: also predict with each module switched off.
        truths: the ground truth of each image, or none.

    Raises:
        InputError: see `Predictor.inspect`, `ask`, `GroundTruth` and `Inspection.channels_of`; a network without
            attention; an unknown class; no such channel.
    """
    answers: list[Answers] = []
    indices: list[int] = []
    for image, truth in zip(images, truths or [None] * len(images), strict=True):
        inspection = predictor.inspect(image)
        if not (inspection.has_position or inspection.has_channel):
            what = "the network has no attention modules"
            raise InputError("weights", what, "use weights of a network with attention")
        own_points = points or (default_points(inspection) if inspection.has_position else [])
        if not answers:
            indices = _indices(inspection, channels) or _channels(inspection, own_points, class_name)
        labels = None if truth is None else truth(inspection.segmentation)
        modules: list[Module] = [
            module for module in MODULES if without and module in inspection.internals.logits_without
        ]
        answers.append(ask(inspection, own_points, indices, modules, labels))
    return answers


def default_points(inspection: Inspection, count: int = 2) -> list[tuple[int, int]]:
    """Return x and y of a pixel well inside each of the classes with the largest predicted areas, largest first.

    The pixel is the middle of the position that is farthest from other classes.
    """
    labels = inspection.internals.labels
    areas = np.bincount(labels.ravel())
    largest = [int(i) for i in np.argsort(-areas, kind="stable")[:count] if areas[i]]
    return [inspection.pixel_of(*_innermost(labels == i)) for i in largest]


def _indices(inspection: Inspection, channels: Sequence[int]) -> list[int]:
    """Return the indices of channels that are numbered from 1."""
    count = len(inspection.channel_attention()) if channels else 0
    for channel in channels:
        if not 1 <= channel <= count:
            what = f"there is no channel {channel}: the network has {count}, numbered from 1 as in the paper"
            raise InputError("channels", what, f"use numbers from 1 to {count}")
    return [channel - 1 for channel in channels]


def _channels(inspection: Inspection, points: Sequence[tuple[int, int]], class_name: str | None) -> list[int]:
    classes = inspection.segmentation.classes
    if class_name is not None:
        if class_name not in classes.names:
            raise InputError("class_name", f"{class_name!r} is not a class", f"use one of {', '.join(classes.names)}")
        return inspection.channels_of(classes.names.index(class_name))
    if not inspection.has_channel:
        return []
    distinguishable = set(np.flatnonzero(~np.isnan(inspection.responses()).any(0)).tolist())
    positions = [inspection.position_of(x, y) for x, y in points or default_points(inspection)]
    wanted = dict.fromkeys(int(inspection.internals.labels[position]) for position in positions)
    return list(dict.fromkeys(inspection.channels_of(i, 1)[0] for i in wanted if i in distinguishable))


def _point(inspection: Inspection, x: int, y: int) -> Point:
    attention = inspection.attention(x, y)
    class_id = int(inspection.segmentation.labels[y, x])
    classes, strongest = inspection.classes_attended(attention), inspection.strongest(attention)
    return Point(x, y, class_id, attention, classes, strongest)


def _channel(index: int, responses: Float32[np.ndarray, " K"], map_: Float32[np.ndarray, "h w"]) -> Channel:
    best = None if np.isnan(responses).all() else int(np.nanargmax(responses))
    if best is None or responses[best] <= 0:
        return Channel(index, None, 0.0, map_)
    return Channel(index, best, float(responses[best]), map_)


def _innermost(region: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Return row and column of the cell that survives the most erosions; among several, the nearest to their mean."""
    last = region
    while region.any():
        last, padded = region, np.pad(region, 1)
        region = region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    cells = np.argwhere(last)
    row, column = cells[np.square(cells - cells.mean(0)).sum(1).argmin()].tolist()
    return row, column
