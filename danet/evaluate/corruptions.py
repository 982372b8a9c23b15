"""The twelve corruptions by name, with the values of their five severities (Hendrycks and Dietterich, ICLR 2019)."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from danet.evaluate import blur, digital, noise, weather

SEVERITIES = (1, 2, 3, 4, 5)


@dataclass(frozen=True)
class Corruption:
    """One way of spoiling an image.

    Args:
        kind: noise, blur, weather or digital.
        apply: (image H,W,3 float64 in [0, 1], generator, values) -> the same, perhaps beyond [0, 1].
        values: of `apply`, for severity 1 to 5.
    """

    kind: str
    apply: Callable[..., np.ndarray]
    values: Sequence[tuple]


def _of_one(*values: float) -> tuple[tuple[float], ...]:
    return tuple((value,) for value in values)


CORRUPTIONS = {
    "gaussian-noise": Corruption("noise", noise.gaussian, _of_one(0.08, 0.12, 0.18, 0.26, 0.38)),
    "shot-noise": Corruption("noise", noise.shot, _of_one(60, 25, 12, 5, 3)),
    "impulse-noise": Corruption("noise", noise.impulse, _of_one(0.03, 0.06, 0.09, 0.17, 0.27)),
    "defocus-blur": Corruption("blur", blur.defocus, ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5))),
    "glass-blur": Corruption("blur", blur.glass, ((0.7, 1, 2), (0.9, 2, 1), (1.0, 2, 3), (1.1, 3, 2), (1.5, 4, 2))),
    "motion-blur": Corruption("blur", blur.motion, ((10, 3.0), (15, 5.0), (15, 8.0), (15, 12.0), (20, 15.0))),
    "snow": Corruption(
        "weather",
        weather.snow,
        (
            (0.1, 3.0, 0.5, (10, 4.0), 0.8),
            (0.2, 2.0, 0.5, (12, 4.0), 0.7),
            (0.55, 4.0, 0.9, (12, 8.0), 0.7),
            (0.55, 4.5, 0.85, (12, 8.0), 0.65),
            (0.55, 2.5, 0.85, (12, 12.0), 0.55),
        ),
    ),
    "fog": Corruption("weather", weather.fog, ((1.5, 2.0), (2.0, 2.0), (2.5, 1.7), (2.5, 1.5), (3.0, 1.4))),
    "brightness": Corruption("weather", weather.brightness, _of_one(0.1, 0.2, 0.3, 0.4, 0.5)),
    "contrast": Corruption("digital", digital.contrast, _of_one(0.4, 0.3, 0.2, 0.1, 0.05)),
    "pixelate": Corruption("digital", digital.pixelate, _of_one(0.6, 0.5, 0.4, 0.3, 0.25)),
    "jpeg": Corruption("digital", digital.jpeg, _of_one(25, 18, 15, 10, 7)),
}


def corrupt(image: UInt8[np.ndarray, "H W 3"], name: str, severity: int, key: str = "") -> UInt8[np.ndarray, "H W 3"]:
    """An image corrupted; its size stays, and so does what its labels say.

    Args:
        image: RGB.
        name: one of CORRUPTIONS.
        severity: 1 to 5.
        key: what chance depends on, beside name and severity: the same key gives the same result, in any order of
            images.
    """
    corruption = CORRUPTIONS[name]
    digest = hashlib.sha256(f"{key}/{name}/{severity}".encode(errors="surrogateescape")).digest()
    rng = np.random.Generator(np.random.PCG64(int.from_bytes(digest)))
    corrupted = corruption.apply(image / 255, rng, *corruption.values[severity - 1])
    return np.rint(255 * corrupted.clip(0, 1)).astype(np.uint8)
