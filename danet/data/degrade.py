"""Random degradations of training images, for networks that keep their accuracy on noisy, blurred or hazy images.

None of them is one of the twelve corruptions that `danet robustness` evaluates, so that its numbers still measure
images unlike those of the training. A degraded image is a mixture of the image and one to three random chains of
degradations, as in AugMix (Hendrycks et al., ICLR 2020), which keeps strong degradations plausible.
"""

import io
from collections.abc import Callable

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from danet.data.images.channels import resize

Pixels = Float32[np.ndarray, "H W 3"]
LONGEST_CHAIN = 3


Image8 = UInt8[np.ndarray, "H W 3"]


def degrade(image: Image8 | Pixels, rng: np.random.Generator) -> Image8 | Pixels:
    """Return a randomly degraded copy of an RGB image. Pixels stay in place, so its labels stay valid.

    Args:
        image: RGB with 255 as white; values outside 0 to 255 are clipped.
        rng: source of all random numbers.
    """
    original = (image.astype(np.float32) / 255).clip(0, 1)
    chains = rng.dirichlet(np.ones(3)).astype(np.float32)
    mixed = np.zeros_like(original)
    for weight in chains:
        changed = original
        for number in rng.integers(len(DEGRADATIONS), size=rng.integers(1, LONGEST_CHAIN + 1)):
            changed = DEGRADATIONS[number](changed, rng).clip(0, 1)
        mixed += weight * changed
    kept = np.float32(rng.beta(1, 2))
    result = 255 * (kept * original + (1 - kept) * mixed)
    return np.rint(result).astype(np.uint8) if image.dtype == np.uint8 else result


def speckle(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Multiply each value by 1 + noise."""
    return image * (1 + rng.uniform(0.1, 0.5) * rng.standard_normal(image.shape, np.float32))


def coarse_noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Add noise in grains of 2 to 6 pixels, gray or colored."""
    grain, colors = rng.integers(2, 7), rng.choice([1, 3])
    height, width = image.shape[:2]
    noise = rng.standard_normal((-(-height // grain), -(-width // grain), colors), np.float32)
    return image + np.float32(rng.uniform(0.05, 0.25)) * resize(noise, (height, width))


def line_noise(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Add one random value per row or per column."""
    axis = rng.integers(2)
    lines = rng.standard_normal([size if which == axis else 1 for which, size in enumerate(image.shape)], np.float32)
    return image + np.float32(rng.uniform(0.03, 0.12)) * lines


def box_blur(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Average over a rectangle of up to 7 x 7 pixels."""
    for axis in (0, 1):
        reach = int(rng.integers(0, 4))
        padded = np.pad(image, [(reach + 1, reach) if which == axis else (0, 0) for which in range(3)], "edge")
        sums = padded.cumsum(axis, np.float64)
        stop, start = (np.take(sums, np.arange(image.shape[axis]) + offset, axis) for offset in (2 * reach + 1, 0))
        image = ((stop - start) / (2 * reach + 1)).astype(np.float32)
    return image


def low_resolution(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Reduce the image up to four times, and enlarge it smoothly."""
    height, width = image.shape[:2]
    factor = rng.uniform(1.5, 4)
    small = resize(image, (max(1, round(height / factor)), max(1, round(width / factor))))
    return resize(small, (height, width))


def haze(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Blend the image with one light color, more at one side of the image than at the other."""
    density = resize(rng.uniform(0, 0.7, (2, 2, 1)).astype(np.float32), image.shape[:2])
    return image * (1 - density) + density * rng.uniform(0.6, 1, 3).astype(np.float32)


def shading(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Multiply the image by a smooth random field, like clouds, lamps and a dirty lens."""
    cells = rng.uniform(0.3, 1.5, (*rng.integers(2, 6, 2), 1)).astype(np.float32)
    return image * resize(cells, image.shape[:2])


def gamma(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Raise the values to a power from 0.4 to 2.5."""
    return image ** np.float32(np.exp(rng.uniform(np.log(0.4), np.log(2.5))))


def color_cast(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Multiply each channel by a factor of its own."""
    return image * rng.uniform(0.6, 1.4, 3).astype(np.float32)


def desaturate(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Blend the image with its gray version."""
    kept = np.float32(rng.uniform(0, 0.7))
    return kept * image + (1 - kept) * image.mean(2, keepdims=True)


def posterize(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Reduce each channel to 4 to 16 values."""
    steps = np.float32(rng.integers(3, 16))
    return np.rint(image * steps) / steps


def webp(image: Pixels, rng: np.random.Generator) -> Pixels:
    """Compress the image strongly as WebP."""
    stream = io.BytesIO()
    Image.fromarray(np.rint(255 * image).astype(np.uint8)).save(stream, "WEBP", quality=int(rng.integers(0, 25)))
    return np.asarray(Image.open(stream).convert("RGB"), np.float32) / 255


DEGRADATIONS: tuple[Callable[[Pixels, np.random.Generator], Pixels], ...] = (
    *(speckle, coarse_noise, line_noise, box_blur, low_resolution, haze),
    *(shading, gamma, color_cast, desaturate, posterize, webp),
)
