"""Twelve image corruptions at five severities, after Hendrycks and Dietterich, ICLR 2019 (ImageNet-C).

Corruptions take and return H,W,3 float64 images in [0, 1]; results may lie outside, and `corrupt` clips them.
"""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image

from danet.data.images.channels import check_rgb, resize
from danet.errors import InputError, unknown_name

SEVERITIES = (1, 2, 3, 4, 5)

Pixels = Float64[np.ndarray, "H W 3"]
Kernel = Float64[np.ndarray, "M N"]


@dataclass(frozen=True)
class Corruption:
    """A corruption with its parameters.

    Args:
        kind: noise, blur, weather or digital.
        apply: called as apply(image, rng, *values[severity - 1]).
        values: the further arguments of `apply` for severities 1 to 5.
    """

    kind: str
    apply: Callable[..., np.ndarray]
    values: Sequence[tuple]


def corrupt(image: UInt8[np.ndarray, "H W 3"], name: str, severity: int, key: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """Return a corrupted copy of an image. Its size stays the same, and its labels stay valid.

    Args:
        image: RGB.
        name: a key of `CORRUPTIONS`.
        severity: 1 to 5.
        key: seeds the random numbers, together with name and severity. The same key gives the same result.

    Raises:
        InputError: an unknown name, another severity, or an array that is no such image.
    """
    if name not in CORRUPTIONS:
        raise unknown_name("name", name, CORRUPTIONS)
    if severity not in SEVERITIES:
        raise InputError("severity", f"must be from 1 to 5, got {severity}", "for example, use 3")
    check_rgb(image)
    corruption = CORRUPTIONS[name]
    digest = hashlib.sha256(f"{key}/{name}/{severity}".encode(errors="surrogateescape")).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
    corrupted = corruption.apply(image / 255, rng, *corruption.values[severity - 1])
    return np.rint(255 * corrupted.clip(0, 1)).astype(np.uint8)


# Noise


def gaussian_noise(image: Pixels, rng: np.random.Generator, deviation: float) -> Pixels:
    """Add Gaussian noise, independent for each value."""
    return image + rng.normal(0, deviation, image.shape)


def shot_noise(image: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    """Replace each value by a Poisson photon count; white has a mean of `photons`."""
    return rng.poisson(image * photons) / photons


def impulse_noise(image: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    """Set a share of the values to 0 or 1 with equal probability, independently for each channel."""
    uniform = rng.random(image.shape)
    return np.where(uniform < share / 2, 0.0, np.where(uniform < share, 1.0, image))


# Blur


def defocus_blur(image: Pixels, rng: np.random.Generator, radius: int, deviation: float) -> Pixels:  # noqa: ARG001
    """Average over a disc whose edge is smoothed by a 3x3 or 5x5 Gaussian."""
    reach = 2 if radius > 8 else 1
    y, x = np.mgrid[-radius - reach : radius + reach + 1, -radius - reach : radius + reach + 1]
    disc = (x**2 + y**2 <= radius**2).astype(float)
    smoothed = convolve(disc[..., None], _gaussian_kernel(reach, deviation))[..., 0]
    return convolve(image, smoothed / smoothed.sum())


def glass_blur(image: Pixels, rng: np.random.Generator, deviation: float, reach: int, times: int) -> Pixels:
    """Shuffle pixels over up to `reach` pixels, `times` times, between two Gaussian blurs.

    The released code intends to swap two pixels but copies one, and so does this function: from the last row to the
    first, each pixel takes the current value of a neighbor.
    """
    kernel = _gaussian_kernel(math.ceil(4 * deviation), deviation)
    height, width = image.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    targets = (rows[:, None] * width + columns).ravel()
    source = list(range(height * width))
    for _ in range(times):
        dy, dx = rng.integers(-reach, reach, (2, targets.size))
        for target, neighbor in zip(targets.tolist(), (targets + dy * width + dx).tolist(), strict=True):
            source[target] = source[neighbor]
    shuffled = convolve(image, kernel).reshape(-1, 3)[source]
    return convolve(shuffled.reshape(image.shape), kernel)


def motion_blur(image: Pixels, rng: np.random.Generator, radius: int, deviation: float) -> Pixels:
    """Blur along a line at a random angle of up to 45 degrees from the horizontal."""
    return convolve(image, streak_kernel(radius, deviation, rng.uniform(-45, 45)))


# Weather


def snow(
    image: Pixels,
    rng: np.random.Generator,
    mean: float,
    zoom: float,
    threshold: float,
    streak: tuple[int, float],
    kept: float,
) -> Pixels:
    """Add motion-blurred flakes to a whitened image. Flakes are enlarged noise above a threshold.

    Args:
        image: the image.
        rng: the random numbers.
        mean: mean of the noise; its standard deviation is 0.3.
        zoom: width of a flake in pixels.
        threshold: noise below it is no flake.
        streak: radius and deviation of the motion blur, see `streak_kernel`.
        kept: weight of the original image; the whitened image has the rest.
    """
    height, width = image.shape[:2]
    small = math.ceil(height / zoom), math.ceil(width / zoom)
    flakes = resize(rng.normal(mean, 0.3, (*small, 1)).astype(np.float32), (height, width)).astype(float)
    flakes[flakes < threshold] = 0
    flakes = convolve(flakes.clip(0, 1), streak_kernel(*streak, rng.uniform(45, 135)))
    gray = image @ (0.299, 0.587, 0.114)
    whitened = np.maximum(image, 1.5 * gray[..., None] + 0.5)
    return kept * image + (1 - kept) * whitened + flakes + flakes[::-1, ::-1]


def fog(image: Pixels, rng: np.random.Generator, density: float, decay: float) -> Pixels:
    """Add clouds and rescale, so that the brightest possible value stays the same.

    Args:
        image: the image.
        rng: the random numbers.
        density: value of the densest cloud, in units of white.
        decay: larger values give smoother clouds.
    """
    height, width = image.shape[:2]
    side = 1 << max(height - 1, width - 1, 1).bit_length()
    clouds = plasma_fractal(side, decay, rng)[:height, :width, None]
    brightest = image.max()
    return (image + density * clouds) * brightest / (brightest + density)


def brightness(image: Pixels, rng: np.random.Generator, added: float) -> Pixels:  # noqa: ARG001
    """Increase the HSV value of each pixel; hue and saturation stay the same."""
    value = image.max(-1, keepdims=True)
    brighter = (value + added).clip(0, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(value > 0, image * (brighter / value), brighter)


# Digital


def contrast(image: Pixels, rng: np.random.Generator, kept: float) -> Pixels:  # noqa: ARG001
    """Scale the differences from each channel's mean."""
    mean = image.mean((0, 1))
    return mean + kept * (image - mean)


def pixelate(image: Pixels, rng: np.random.Generator, share: float) -> Pixels:  # noqa: ARG001
    """Shrink both sides to a share of their length and enlarge the image again by nearest neighbor."""
    original, size = _to_pillow(image), image.shape[1::-1]
    small = original.resize([max(1, int(side * share)) for side in size], Image.Resampling.BOX)
    return _from_pillow(small.resize(size, Image.Resampling.NEAREST))


def jpeg(image: Pixels, rng: np.random.Generator, quality: int) -> Pixels:  # noqa: ARG001
    """Compress as JPEG."""
    file = io.BytesIO()
    _to_pillow(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as compressed:
        return _from_pillow(compressed)


# Building blocks


def convolve(image: Float64[np.ndarray, "H W C"], kernel: Kernel) -> Float64[np.ndarray, "H W C"]:
    """Convolve each channel with a kernel of odd size by Fourier transform, with the edge pixels repeated."""
    y, x = (side // 2 for side in kernel.shape)
    size = image.shape[0] + 2 * y, image.shape[1] + 2 * x
    padded = np.pad(image, ((y, y), (x, x), (0, 0)), mode="edge")
    transform = np.fft.rfft2(kernel, size)[..., None]
    full = np.fft.irfft2(np.fft.rfft2(padded, axes=(0, 1)) * transform, size, axes=(0, 1))
    return full[2 * y :, 2 * x :]


def streak_kernel(radius: int, deviation: float, degrees: float) -> Kernel:
    """Return half a Gaussian along a line of 2 `radius` + 1 pixels from the kernel's center; 90 degrees is down."""
    length = 2 * radius + 1
    steps = np.arange(length)
    angle = math.radians(degrees)
    y, x = (np.rint(steps * part).astype(int) for part in (math.sin(angle), math.cos(angle)))
    kernel = np.zeros((2 * length - 1, 2 * length - 1))
    np.add.at(kernel, (length - 1 + y, length - 1 + x), np.exp(-0.5 * (steps / deviation) ** 2))
    return kernel / kernel.sum()


def plasma_fractal(side: int, decay: float, rng: np.random.Generator) -> Float64[np.ndarray, "side side"]:
    """Return periodic clouds in [0, 1] by the diamond-square algorithm; `side` is a power of two.

    Midpoints are the mean of their four neighbors plus noise, which is divided by the square of `decay` whenever the
    step is halved.
    """
    field, step, amplitude = np.zeros((side, side)), side, 1.0

    def midpoint(*neighbors: np.ndarray) -> np.ndarray:
        return sum(neighbors) / 4 + rng.uniform(-amplitude, amplitude, neighbors[0].shape)

    while step >= 2:
        half = step // 2
        corner = field[::step, ::step]
        right, below = np.roll(corner, -1, 1), np.roll(corner, -1, 0)
        middle = midpoint(corner, right, below, np.roll(right, -1, 0))
        field[half::step, half::step] = middle
        field[::step, half::step] = midpoint(corner, right, middle, np.roll(middle, 1, 0))
        field[half::step, ::step] = midpoint(corner, below, middle, np.roll(middle, 1, 1))
        step, amplitude = half, amplitude / decay**2
    return (field - field.min()) / np.ptp(field)


def _gaussian_kernel(reach: int, deviation: float) -> Kernel:
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()


def _to_pillow(image: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(255 * image).astype(np.uint8))


def _from_pillow(image: Image.Image) -> Pixels:
    return np.asarray(image) / 255


def _each(*values: float) -> tuple[tuple[float], ...]:
    return tuple((value,) for value in values)


CORRUPTIONS = {
    "gaussian-noise": Corruption("noise", gaussian_noise, _each(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": Corruption("noise", shot_noise, _each(60, 25, 12, 5, 3)),
    "impulse-noise": Corruption("noise", impulse_noise, _each(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus-blur": Corruption("blur", defocus_blur, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass-blur": Corruption("blur", glass_blur, ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion-blur": Corruption("blur", motion_blur, ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))),
    "snow": Corruption(
        "weather",
        snow,
        (
            (0.1, 3.0, 0.5, (10, 4.0), 0.8),
            (0.2, 2.0, 0.5, (12, 4.0), 0.7),
            (0.55, 4.0, 0.9, (12, 8.0), 0.7),
            (0.55, 4.5, 0.85, (12, 8.0), 0.65),
            (0.55, 2.5, 0.85, (12, 12.0), 0.55),
        ),
    ),
    "fog": Corruption("weather", fog, ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))),
    "brightness": Corruption("weather", brightness, _each(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption("digital", contrast, _each(0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": Corruption("digital", pixelate, _each(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": Corruption("digital", jpeg, _each(25, 18, 15, 10, 7)),
}
"""Name -> corruption, with the parameters of the released ImageNet-C code."""
