"""What cameras and files do to an image: little contrast, few pixels, JPEG. Images H,W,3 float64, white is 1."""

import io

import numpy as np
from jaxtyping import Float64
from PIL import Image

Pixels = Float64[np.ndarray, "H W 3"]


def contrast(image: Pixels, rng: np.random.Generator, kept: float) -> Pixels:  # noqa: ARG001
    """Every value brought nearer to its channel's mean."""
    mean = image.mean((0, 1))
    return mean + kept * (image - mean)


def pixelate(image: Pixels, rng: np.random.Generator, share: float) -> Pixels:  # noqa: ARG001
    """Made smaller, to that share of its sides, and enlarged again, pixels being squares."""
    whole, size = _as_file(image), image.shape[1::-1]
    small = whole.resize([max(1, int(side * share)) for side in size], Image.Resampling.BOX)
    return _of_file(small.resize(size, Image.Resampling.NEAREST))


def jpeg(image: Pixels, rng: np.random.Generator, quality: int) -> Pixels:  # noqa: ARG001
    """Saved with that quality, and read again."""
    file = io.BytesIO()
    _as_file(image).save(file, "JPEG", quality=quality)
    with Image.open(file) as saved:
        return _of_file(saved)


def _as_file(image: Pixels) -> Image.Image:
    return Image.fromarray(np.rint(255 * image).astype(np.uint8))


def _of_file(image: Image.Image) -> Pixels:
    return np.asarray(image) / 255
