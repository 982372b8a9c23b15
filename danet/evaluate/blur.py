"""Blur: out of focus, behind frosted glass, in motion. Images H,W,3 float64, white is 1."""

import math

import numpy as np
from jaxtyping import Float64

Pixels = Float64[np.ndarray, "H W 3"]
Kernel = Float64[np.ndarray, "M N"]


def defocus(image: Pixels, rng: np.random.Generator, radius: int, softness: float) -> Pixels:  # noqa: ARG001
    """The mean over a disc whose edge is smoothed by a Gaussian of 3 or 5 pixels a side."""
    reach = 2 if radius > 8 else 1
    y, x = np.mgrid[-radius - reach : radius + reach + 1, -radius - reach : radius + reach + 1]
    disc = (x**2 + y**2 <= radius**2).astype(float)
    soft = filtered(disc[..., None], _gaussian_kernel(reach, softness))[..., 0]
    return filtered(image, soft / soft.sum())


def glass(image: Pixels, rng: np.random.Generator, deviation: float, reach: int, times: int) -> Pixels:
    """Pixels shuffled over up to `reach` pixels, `times` over, between two Gaussian blurs.

    As the released code does it, which means to exchange two pixels and copies one: from the last row to the first,
    each pixel takes what a neighbor holds by then.
    """
    kernel = _gaussian_kernel(math.ceil(4 * deviation), deviation)
    height, width = image.shape[:2]
    rows, columns = np.arange(height - reach, reach, -1), np.arange(width - reach, reach, -1)
    places = (rows[:, None] * width + columns).ravel()
    source = list(range(height * width))
    for _ in range(times):
        dy, dx = rng.integers(-reach, reach, (2, places.size))
        for place, neighbor in zip(places.tolist(), (places + dy * width + dx).tolist(), strict=True):
            source[place] = source[neighbor]
    shuffled = filtered(image, kernel).reshape(-1, 3)[source]
    return filtered(shuffled.reshape(image.shape), kernel)


def motion(image: Pixels, rng: np.random.Generator, radius: int, deviation: float) -> Pixels:
    """Half a Gaussian along a line, at an angle of up to 45 degrees from the horizontal."""
    return filtered(image, streak(radius, deviation, rng.uniform(-45, 45)))


def streak(radius: int, deviation: float, degrees: float) -> Kernel:
    """Weights of a Gaussian from its peak, which is the kernel's middle, over 2 `radius` + 1 pixels in a direction; 90
    degrees is down.
    """
    length = 2 * radius + 1
    steps = np.arange(length)
    angle = math.radians(degrees)
    y, x = (np.rint(steps * part).astype(int) for part in (math.sin(angle), math.cos(angle)))
    kernel = np.zeros((2 * length - 1, 2 * length - 1))
    np.add.at(kernel, (length - 1 + y, length - 1 + x), np.exp(-0.5 * (steps / deviation) ** 2))
    return kernel / kernel.sum()


def filtered(image: Float64[np.ndarray, "H W C"], kernel: Kernel) -> Float64[np.ndarray, "H W C"]:
    """Each channel convolved with a kernel of odd sides, by Fourier transforms; edges are continued by their last
    pixel.
    """
    y, x = (side // 2 for side in kernel.shape)
    size = image.shape[0] + 2 * y, image.shape[1] + 2 * x
    padded = np.pad(image, ((y, y), (x, x), (0, 0)), mode="edge")
    transform = np.fft.rfft2(kernel, size)[..., None]
    whole = np.fft.irfft2(np.fft.rfft2(padded, axes=(0, 1)) * transform, size, axes=(0, 1))
    return whole[2 * y :, 2 * x :]


def _gaussian_kernel(reach: int, deviation: float) -> Kernel:
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / deviation) ** 2)
    kernel = np.outer(line, line)
    return kernel / kernel.sum()
