"""Weather: snow, fog, glaring light. Images H,W,3 float64, white is 1; results may leave [0, 1]."""

import math

import numpy as np
from jaxtyping import Float64

from danet.data.images.channels import resize
from danet.evaluate.blur import filtered, streak

Pixels = Float64[np.ndarray, "H W 3"]


def snow(
    image: Pixels,
    rng: np.random.Generator,
    mean: float,
    zoom: float,
    least: float,
    streaks: tuple[int, float],
    kept: float,
) -> Pixels:
    """Flakes, noise that is enlarged, cut off below `least` and smeared as it falls, over an image turned whitish.

    Args:
        mean: of the noise, whose deviation is 0.3.
        zoom: how many pixels wide a flake is.
        least: below it there is no flake.
        streaks: length in pixels (2 n + 1) and deviation of the smear.
        kept: share of the image's own colors.
    """
    height, width = image.shape[:2]
    small = math.ceil(height / zoom), math.ceil(width / zoom)
    flakes = resize(rng.normal(mean, 0.3, (*small, 1)).astype(np.float32), (height, width)).astype(float)
    flakes[flakes < least] = 0
    flakes = filtered(flakes.clip(0, 1), streak(*streaks, rng.uniform(45, 135)))
    gray = image @ (0.299, 0.587, 0.114)
    whitish = np.maximum(image, 1.5 * gray[..., None] + 0.5)
    return kept * image + (1 - kept) * whitish + flakes + flakes[::-1, ::-1]


def fog(image: Pixels, rng: np.random.Generator, density: float, decay: float) -> Pixels:
    """Clouds laid over the image, whose light is weakened by as much.

    Args:
        density: of the thickest cloud; 1 would be white.
        decay: the larger, the smoother the clouds.
    """
    height, width = image.shape[:2]
    side = 1 << max(height - 1, width - 1, 1).bit_length()
    clouds = _clouds(side, decay, rng)[:height, :width, None]
    brightest = image.max()
    return (image + density * clouds) * brightest / (brightest + density)


def brightness(image: Pixels, rng: np.random.Generator, added: float) -> Pixels:  # noqa: ARG001
    """So much is added to the largest of a pixel's three values; hue and saturation stay."""
    value = image.max(-1, keepdims=True)
    brighter = (value + added).clip(0, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(value > 0, image * (brighter / value), brighter)


def _clouds(side: int, decay: float, rng: np.random.Generator) -> Float64[np.ndarray, "side side"]:
    """Diamonds and squares on a torus: midpoints are the mean of their neighbors and a random part, which becomes
    `decay` squared times smaller with each halving of the step. From 0 to 1; `side` is a power of two.
    """
    field, step, wobble = np.zeros((side, side)), side, 1.0

    def between(*neighbors: np.ndarray) -> np.ndarray:
        return sum(neighbors) / 4 + rng.uniform(-wobble, wobble, neighbors[0].shape)

    while step >= 2:
        half = step // 2
        corner = field[::step, ::step]
        right, below = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        middle = between(corner, right, below, np.roll(right, -1, 0))
        field[half::step, half::step] = middle
        field[::step, half::step] = between(corner, right, middle, np.roll(middle, 1, 0))
        field[half::step, ::step] = between(corner, below, middle, np.roll(middle, 1, 1))
        step, wobble = half, wobble / decay**2
    return (field - field.min()) / np.ptp(field)
