"""Colors of classes that viewers with any kind of color vision can tell apart.

Color vision deficiencies are simulated as by Machado, Oliveira and Fernandes, "A Physiologically-based Model for
Simulation of Color Vision Deficiency" (2009), at full severity.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
from jaxtyping import Float

Color = tuple[int, int, int]

_DEFICIENCIES = {
    "protanopia": (
        (0.152286, 1.052583, -0.204868),
        (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968),
        (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779),
        (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}
"""Name -> what such a viewer sees, as a matrix of linear sRGB."""

_RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
_WHITE = np.array([0.95047, 1.0, 1.08883])
_LEVELS = (0, 36, 73, 109, 146, 182, 219, 255)
_LIGHTNESS = (25, 92)  # lighter and darker colors look like white and black
_FIRST: Color = (255, 109, 0)  # of those tried, the one after which the 21st color is still the most different


def difference(first: Sequence[Color], second: Sequence[Color]) -> Float[np.ndarray, "N M"]:
    """Return how different colors look to the viewer who sees the smallest difference between them.

    Args:
        first: N colors.
        second: M colors.

    Returns:
        The smallest CIELAB difference (delta E, 1976) over normal vision and the three deficiencies; 15 is easy to see.
    """
    lab = [_as_seen(np.array(colors, float)) for colors in (first, second)]
    return np.linalg.norm(lab[0][:, :, None] - lab[1][:, None], axis=-1).min(0)


@cache
def distinct_palette(n: int) -> tuple[Color, ...]:
    """Return n colors; each is the one whose smallest `difference` from those before it, and from black, is largest.

    The first colors are the same for every n. For up to 21 colors, all differences are at least 15.

    Args:
        n: up to 256.
    """
    grid = [(r, g, b) for r in _LEVELS for g in _LEVELS for b in _LEVELS]
    lightness = _as_seen(np.array(grid, float))[0, :, 0]
    candidates = [c for c, value in zip(grid, lightness, strict=True) if _LIGHTNESS[0] < value < _LIGHTNESS[1]]
    chosen = [_FIRST]
    nearest = difference(candidates, [(0, 0, 0), _FIRST]).min(1)
    while len(chosen) < n:
        chosen.append(candidates[int(nearest.round(3).argmax())])  # rounded: the same on every machine
        nearest = np.minimum(nearest, difference(candidates, chosen[-1:])[:, 0])
    return tuple(chosen[:n])


def voc_palette(n: int) -> tuple[Color, ...]:
    """Return the first n colors of the PASCAL VOC palette after black."""
    colors = []
    for i in range(1, n + 1):
        channels = [0, 0, 0]
        for bit in range(8):  # the bits of i go to R, G and B in turn, most significant first
            for channel in range(3):
                channels[channel] |= ((i >> (3 * bit + channel)) & 1) << (7 - bit)
        colors.append(tuple(channels))
    return tuple(colors)


def _as_seen(colors: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "4 N 3"]:
    """Return sRGB colors in CIELAB, as seen with normal vision and with each deficiency."""
    encoded = colors / 255
    light = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    seen = [light, *((light @ np.array(matrix).T).clip(0, 1) for matrix in _DEFICIENCIES.values())]
    relative = np.stack(seen) @ _RGB_TO_XYZ.T / _WHITE
    linear = relative / (3 * (6 / 29) ** 2) + 4 / 29
    x, y, z = np.moveaxis(np.where(relative > (6 / 29) ** 3, np.cbrt(relative), linear), -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
