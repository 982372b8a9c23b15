"""Noise: of electronics, of little light, of faulty pixels. Images H,W,3 float64, white is 1; results may leave
[0, 1].
"""

import numpy as np
from jaxtyping import Float64

Pixels = Float64[np.ndarray, "H W 3"]


def gaussian(image: Pixels, rng: np.random.Generator, deviation: float) -> Pixels:
    """Added to each value alone."""
    return image + rng.normal(0, deviation, image.shape)


def shot(image: Pixels, rng: np.random.Generator, photons: float) -> Pixels:
    """Light comes in quanta: white is `photons` of them, on average."""
    return rng.poisson(image * photons) / photons


def impulse(image: Pixels, rng: np.random.Generator, share: float) -> Pixels:
    """Salt and pepper: so many of the values, each channel on its own, become 0 or 1 with equal probability."""
    drawn = rng.random(image.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, image))
