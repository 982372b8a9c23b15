"""SSD's photometric distortion (Liu et al., ECCV 2016), as mmsegmentation's recipes train with it."""

import numpy as np
from PIL import Image

from danet.data.images.channels import as_type


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each with probability a half: brightness by up to 32 of 255, contrast and saturation by a factor in [0.5, 1.5],
    hue by up to 36 degrees; contrast before or after the colors, with equal probability. H,W,N of any type and bands;
    only 8-bit RGB has a saturation and a hue.
    """
    image = _shifted(image, 1.0, rng.uniform(-32, 32)) if rng.random() < 0.5 else image
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    contrast_first = rng.random() < 0.5
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-36, 36) if rng.random() < 0.5 else 0.0
    if contrast_first:
        image = _shifted(image, contrast, 0.0)
    if (saturation != 1 or hue != 0) and image.shape[2] == 3 and image.dtype == np.uint8:
        image = _recolored(image, saturation, hue)
    return image if contrast_first else _shifted(image, contrast, 0.0)


def _shifted(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return as_type(image * np.float32(factor) + np.float32(offset), image.dtype)


def _recolored(image: np.ndarray, saturation: float, degrees: float) -> np.ndarray:
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.uint8(round(degrees / 360 * 256) % 256)  # wraps around, as hues do
    hsv[..., 1] = (hsv[..., 1] * np.float32(saturation)).clip(0, 255)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
