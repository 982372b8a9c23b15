"""Synthetic street scenes: nothing to download; each image is a pure function of (split, index).

`toy`: sky, building, road, car, sign and person, with varying light, noise and occlusion.
`toy-context`: wide images in which all cars look alike. Only the lamp at the far left tells whether they are waiting
(red) or driving (green), and it is farther from the cars than convolutions reach. This measures what global context
is worth.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from danet.data.classes import Classes
from danet.data.images.channels import RGB, Bands
from danet.data.samples import Sample
from danet.errors import InputError

CLASSES = Classes(
    names=("sky", "building", "road", "car", "sign", "person"),
    palette=((86, 156, 214), (160, 82, 45), (105, 105, 120), (230, 159, 0), (204, 51, 63), (0, 158, 115)),
)
CONTEXT_CLASSES = Classes(
    names=("sky", "building", "road", "lamp", "waiting car", "driving car"),
    palette=((86, 156, 214), (160, 82, 45), (105, 105, 120), (240, 228, 66), (204, 51, 63), (0, 158, 115)),
)
COUNTS = {"train": 5000, "val": 80}
CONTEXT_COUNTS = {"train": 2400, "val": 80}

_SKY, _BUILDING, _ROAD = 0, 1, 2
_CAR, _SIGN, _PERSON = 3, 4, 5
_LAMP, _WAITING, _DRIVING = 3, 4, 5


@dataclass(frozen=True)
class SyntheticScenes:
    """`Samples` drawn on access."""

    classes: Classes
    split: str
    count: int
    draw: Callable[["_Canvas", np.random.Generator], None]
    size: tuple[int, int]
    bands: Bands = RGB

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        rng = np.random.Generator(np.random.PCG64((list(COUNTS).index(self.split), index)))
        canvas = _Canvas(*self.size)
        self.draw(canvas, rng)
        return Sample(
            f"{self.split}-{index:04d}", _illuminate(np.asarray(canvas.image), rng), np.asarray(canvas.labels)
        )

    def labels(self, index: int) -> np.ndarray:
        """Return the H,W uint8 train ids of a scene."""
        return self[index].labels


def load(_root: Path, split: str) -> SyntheticScenes:
    """Return 5,000 scenes of 144 x 192 pixels for "train", or 80 for "val"."""
    return SyntheticScenes(CLASSES, split, _count(COUNTS, split), _street, (144, 192))


def load_context(_root: Path, split: str) -> SyntheticScenes:
    """Return 2,400 or 80 scenes of 64 x 320 pixels, with a lamp on the left and cars on the right."""
    return SyntheticScenes(CONTEXT_CLASSES, split, _count(CONTEXT_COUNTS, split), _lamp_and_cars, (64, 320))


def _count(counts: dict[str, int], split: str) -> int:
    if split not in counts:
        raise InputError("split", f"{split!r} is unknown", f"use {' or '.join(counts)}")
    return counts[split]


class _Canvas:
    """An image and its labels; each shape is drawn into both."""

    def __init__(self, height: int, width: int):
        self.height, self.width = height, width
        self.image = Image.new("RGB", (width, height))
        self.labels = Image.new("L", (width, height))
        self._pens = ImageDraw.Draw(self.image), ImageDraw.Draw(self.labels)

    def rectangle(self, box: tuple[float, float, float, float], color: tuple[int, ...], label: int) -> None:
        for pen, fill in zip(self._pens, (color, label), strict=True):
            pen.rectangle([round(v) for v in box], fill=fill)

    def ellipse(self, box: tuple[float, float, float, float], color: tuple[int, ...], label: int) -> None:
        for pen, fill in zip(self._pens, (color, label), strict=True):
            pen.ellipse([round(v) for v in box], fill=fill)

    def polygon(self, corners: list[tuple[float, float]], color: tuple[int, ...], label: int) -> None:
        for pen, fill in zip(self._pens, (color, label), strict=True):
            pen.polygon([(round(x), round(y)) for x, y in corners], fill=fill)


def _street(canvas: _Canvas, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.42, 0.55) * canvas.height
    _backdrop(canvas, rng, horizon)
    drawings = [_sign] + [_car] * rng.integers(1, 3) + [_person] * rng.integers(1, 3)
    depths = rng.uniform(0.2, 1.0, len(drawings))
    order = rng.permutation(len(drawings))
    for depth, i in zip(np.sort(depths), order, strict=True):  # near objects occlude far ones
        ground = horizon + depth * 0.9 * (canvas.height - horizon)
        drawings[i](canvas, rng, rng.uniform(0.05, 0.95) * canvas.width, ground, 1.3 + 1.2 * depth)


def _lamp_and_cars(canvas: _Canvas, rng: np.random.Generator) -> None:
    horizon = rng.uniform(0.42, 0.5) * canvas.height
    _backdrop(canvas, rng, horizon)
    waiting = bool(rng.random() < 0.5)
    x, y = rng.uniform(20, 44), rng.uniform(0.3, 0.4) * canvas.height
    canvas.rectangle((x - 4, y, x + 4, canvas.height - 6), (60, 60, 65), _LAMP)
    canvas.ellipse((x - 16, y - 16, x + 16, y + 16), (225, 40, 40) if waiting else (40, 210, 90), _LAMP)
    for _ in range(rng.integers(2, 5)):
        ground = rng.uniform(0.7, 0.95) * canvas.height
        _car(canvas, rng, rng.uniform(215, 305), ground, rng.uniform(0.7, 1.0), _WAITING if waiting else _DRIVING)


def _backdrop(canvas: _Canvas, rng: np.random.Generator, horizon: float) -> None:
    sky = np.array([(135, 190, 235), (190, 195, 200), (240, 190, 140), (60, 80, 130)][rng.integers(4)])
    for row in range(int(horizon) + 1):
        shade = sky + (255 - sky) * 0.5 * row / horizon
        canvas.rectangle((0, row, canvas.width, row), tuple(shade.astype(int).tolist()), _SKY)
    x = rng.uniform(-30, 0)
    while x < canvas.width:
        width, top = rng.uniform(36, 80), horizon * rng.uniform(0.15, 0.75)
        if rng.random() < 0.75:
            wall = _color(rng, (90, 60, 50), (200, 170, 150))
            canvas.rectangle((x, top, x + width, horizon), wall, _BUILDING)
            window = tuple(min(255, c + int(rng.integers(-50, 60))) for c in wall)
            for wx in np.arange(x + 3, x + width - 4, 7):
                for wy in np.arange(top + 4, horizon - 5, 9):
                    canvas.rectangle((wx, wy, wx + 3, wy + 4), window, _BUILDING)
        x += width
    gray = int(rng.integers(60, 120))
    canvas.rectangle((0, horizon, canvas.width, canvas.height), (gray, gray, gray + 6), _ROAD)
    for left in np.arange(rng.uniform(0, 20), canvas.width, 26):
        y = horizon + 0.55 * (canvas.height - horizon)
        canvas.rectangle((left, y, left + 12, y + 2), (210, 210, 200), _ROAD)


def _car(canvas: _Canvas, rng: np.random.Generator, x: float, ground: float, size: float, label: int = _CAR) -> None:
    paint, half, tall = _color(rng, (20, 20, 20), (250, 250, 250)), 17 * size, 11 * size
    cabin = [(x - 0.65 * half, ground - tall), (x - 0.4 * half, ground - 1.9 * tall)]
    cabin += [(x + 0.4 * half, ground - 1.9 * tall), (x + 0.7 * half, ground - tall)]
    canvas.polygon(cabin, (70, 90, 110), label)
    canvas.rectangle((x - half, ground - 1.1 * tall, x + half, ground - 0.25 * tall), paint, label)
    for wheel in (x - 0.6 * half, x + 0.6 * half):
        canvas.ellipse((wheel - 3.5 * size, ground - 7 * size, wheel + 3.5 * size, ground), (25, 25, 25), label)


def _sign(canvas: _Canvas, rng: np.random.Generator, x: float, ground: float, size: float) -> None:
    radius, top = 8.5 * size, ground - 40 * size
    canvas.rectangle((x - 3.5 * size, top, x + 3.5 * size, ground), (120, 120, 125), _SIGN)
    plate = [(200, 30, 40), (30, 80, 190), (240, 200, 40)][rng.integers(3)]
    if rng.random() < 0.5:
        canvas.ellipse((x - radius, top - radius, x + radius, top + radius), plate, _SIGN)
    else:
        canvas.polygon([(x, top - radius), (x - radius, top + radius), (x + radius, top + radius)], plate, _SIGN)


def _person(canvas: _Canvas, rng: np.random.Generator, x: float, ground: float, size: float) -> None:
    coat, trousers = _color(rng, (20, 20, 20), (230, 120, 230)), _color(rng, (20, 20, 40), (110, 100, 120))
    canvas.rectangle((x - 5 * size, ground - 15 * size, x + 5 * size, ground), trousers, _PERSON)
    canvas.rectangle((x - 6.5 * size, ground - 31 * size, x + 6.5 * size, ground - 14 * size), coat, _PERSON)
    canvas.ellipse((x - 5 * size, ground - 42 * size, x + 5 * size, ground - 31 * size), (224, 172, 140), _PERSON)


def _color(rng: np.random.Generator, low: tuple[int, ...], high: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(rng.integers(a, b)) for a, b in zip(low, high, strict=True))


def _illuminate(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add uneven light, a color cast and noise."""
    height, width = image.shape[:2]
    slope = rng.uniform(-0.25, 0.25, 2)
    light = (
        rng.uniform(0.65, 1.15) + slope[0] * np.linspace(-1, 1, height)[:, None] + slope[1] * np.linspace(-1, 1, width)
    )
    illuminated = image * light[..., None] * rng.uniform(0.9, 1.1, 3) + rng.normal(0, rng.uniform(4, 14), image.shape)
    return illuminated.clip(0, 255).astype(np.uint8)
