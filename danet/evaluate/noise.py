"""Noise: of electronics, of little light, of faulty pixels. Pictures H,W,3 float64, white is 1; results may leave
[0, 1].
"""

import numpy as np
from jaxtyping import Float64

Picture = Float64[np.ndarray, "H W 3"]


def gaussian(image: Picture, rng: np.random.Generator, deviation: float) -> Picture:
    """Added to each value alone."""
    return image + rng.normal(0, deviation, image.shape)


def shot(image: Picture, rng: np.random.Generator, photons: float) -> Picture:
    """Light comes in quanta: white is `photons` of them, on average."""
    return rng.poisson(image * photons) / photons


def impulse(image: Picture, rng: np.random.Generator, share: float) -> Picture:
    """Salt and pepper: so many of the values, each channel on its own, become 0 or 1 with equal probability."""
    drawn = rng.random(image.shape)
    return np.where(drawn < share / 2, 0.0, np.where(drawn < share, 1.0, image))
