"""Query the attention of images: points, channels, and predictions without each module. Used by `danet look`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from danet.data.classes import IGNORE, LabelMap
from danet.data.images.read import read_mask
from danet.errors import InputError
from danet.predict.attention import Inspection, Module
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation, describe_classes

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
        number: of the channel, from 0.
        class_id: None if it responds to no class.
        response: to this class.
        map: the attended channel map.
    """

    number: int
    class_id: int | None
    response: float
    map: Float32[np.ndarray, "h w"]


class Ablation(NamedTuple):
    """A prediction without a module's attention, and the effect of the module, in fractions of the pixels.

    With ground truth, fractions are of the labeled pixels.

    Args:
        module: the module switched off.
        segmentation: the prediction without it.
        changed: pixels predicted differently without the module.
        corrected: pixels that are wrong without it and right with it; None: no ground truth.
        broken: pixels that are right without it and wrong with it; None: no ground truth.
    """

    module: Module
    segmentation: Segmentation
    changed: float
    corrected: float | None
    broken: float | None


class Answers(NamedTuple):
    """All answers for one image.

    Args:
        inspection: the image's.
        points: in the order of the questions.
        channels: in the order of the questions.
        ablations: one per module.
        truth: the ground truth as train ids, if given.
    """

    inspection: Inspection
    points: list[Point]
    channels: list[Channel]
    ablations: list[Ablation]
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
                "channel": channel.number,
                "class": None if channel.class_id is None else classes.names[channel.class_id],
                "response": channel.response,
            }
            for channel in self.channels
        ]
        without = {
            ablation.module: {"changed": ablation.changed}
            | ({} if ablation.corrected is None else {"corrected": ablation.corrected, "broken": ablation.broken})
            for ablation in self.ablations
        }
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
        channels: numbers of attended channel maps.
        modules: the modules to switch off.
        truth: ground truth as train ids, to count what a module corrects.

    Raises:
        InputError: a point outside the image, no such channel, or a module that the network lacks.
    """
    answers = [_point(inspection, x, y) for x, y in points]
    maps = inspection.channel_maps(channels) if channels else []
    responses = inspection.responses() if channels else np.zeros((0, 0), np.float32)
    responding = [_channel(number, responses[number], map_) for number, map_ in zip(channels, maps, strict=True)]
    ablations = [_ablation(inspection, module, truth) for module in modules]
    return Answers(inspection, answers, responding, ablations, truth)


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
    """Inspect images and answer the same questions about each.

    Args:
        predictor: a network with attention.
        images: files.
        points: x and y of pixels; if empty, the `default_points` of each image.
        channels: numbers of attended channel maps; if empty, those that respond most strongly, in the first image, to
            the class `class_name`, or else to the classes of its points.
        class_name: see `channels`.
        without: also predict with each module switched off.
        truths: ground truth masks, one per image, or none.
        ignore: the value in the masks that means no class.

    Raises:
        InputError: see `Predictor.inspect`, `ask`, `read_truth` and `Inspection.channels_of`; a network without
            attention; an unknown class.
    """
    answers: list[Answers] = []
    for image, truth in zip(images, truths or [None] * len(images), strict=True):
        inspection = predictor.inspect(image)
        if not (inspection.has_position or inspection.has_channel):
            what = "the network has no attention modules"
            raise InputError("weights", what, "use weights of a network with attention")
        own_points = points or (default_points(inspection) if inspection.has_position else [])
        if not answers and not channels:
            channels = _channels(inspection, own_points, class_name)
        labels = None if truth is None else read_truth(truth, inspection, ignore)
        modules: list[Module] = [
            module for module in MODULES if without and module in inspection.internals.logits_without
        ]
        answers.append(ask(inspection, own_points, channels, modules, labels))
    return answers


def default_points(inspection: Inspection, count: int = 2) -> list[tuple[int, int]]:
    """Return x and y of a pixel well inside each of the classes with the largest predicted areas, largest first.

    The pixel is the middle of the position that is farthest from other classes.
    """
    labels = inspection.internals.labels
    areas = np.bincount(labels.ravel())
    largest = [int(i) for i in np.argsort(-areas, kind="stable")[:count] if areas[i]]
    return [inspection.pixel_of(*_innermost(labels == i)) for i in largest]


def read_truth(path: Path, inspection: Inspection, ignore: int = IGNORE) -> UInt8[np.ndarray, "H W"]:
    """Read a ground truth mask of class ids as train ids; `ignore` becomes 255.

    Raises:
        InputError: no mask, another size than the image, or a value that is not a class id.
    """
    mask = read_mask(path)
    if mask.shape != inspection.image.shape[:2]:
        (height, width), (own_height, own_width) = inspection.image.shape[:2], mask.shape
        what = f"mask has {own_width} x {own_height} pixels, but the image has {width} x {height}"
        raise InputError(path, what, "use a mask of the image's size")
    if not 0 <= ignore < 1 << 16:
        raise InputError("ignore", f"must be from 0 to 65535, got {ignore}", "use a value of the masks")
    label_map = LabelMap.identity(len(inspection.segmentation.classes), ignore)
    return label_map.apply(mask, path, lambda value: f"correct the mask, or set `ignore` to {value}")


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


def _channel(number: int, responses: Float32[np.ndarray, " K"], map_: Float32[np.ndarray, "h w"]) -> Channel:
    best = None if np.isnan(responses).all() else int(np.nanargmax(responses))
    if best is None or responses[best] <= 0:
        return Channel(number, None, 0.0, map_)
    return Channel(number, best, float(responses[best]), map_)


def _ablation(inspection: Inspection, module: Module, truth: UInt8[np.ndarray, "H W"] | None) -> Ablation:
    without, full = inspection.without(module), inspection.segmentation.labels
    valid = np.ones(full.shape, bool) if truth is None else truth != IGNORE
    changed = _share(without.labels != full, valid)
    if truth is None:
        return Ablation(module, without, changed, None, None)
    right, right_without = full == truth, without.labels == truth
    corrected, broken = _share(right & ~right_without, valid), _share(right_without & ~right, valid)
    return Ablation(module, without, changed, corrected, broken)


def _share(mask: Bool[np.ndarray, "H W"], valid: Bool[np.ndarray, "H W"]) -> float:
    return float(mask[valid].mean()) if valid.any() else 0.0


def _innermost(region: Bool[np.ndarray, "h w"]) -> tuple[int, int]:
    """Return row and column of the cell that survives the most erosions; among several, the nearest to their mean."""
    last = region
    while region.any():
        last, padded = region, np.pad(region, 1)
        region = region & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    cells = np.argwhere(last)
    row, column = cells[np.square(cells - cells.mean(0)).sum(1).argmin()].tolist()
    return row, column
