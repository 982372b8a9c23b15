"""Augmentation: (image, labels) -> (image, labels), with an explicit random generator. No global random state.

The crop is computed first, and only that part of the picture is resized: same pixels as resizing the whole and
cropping, at a fraction of the cost.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from danet.data.labels import IGNORE


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, horizontal flip and colour jitter, in this order.

    Args:
        crop: height and width of the result. What lies outside the picture is black, and ignored in the labels.
        scale: the range of the random resizing, relative to the picture's own size; (1, 1) for none.
        short_side: pixels to which the picture's short side is brought before; None: as it is.
        flip: the probability of a left-right flip.
        jitter: the strength of random brightness, contrast and saturation, each a factor in [1 - jitter, 1 + jitter].
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    jitter: float = 0.0
    short_side: int | None = None

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """H,W,3 uint8 and H,W uint8 of any size -> the same of size `crop`."""
        scale = rng.uniform(*self.scale)
        if self.short_side is not None:
            scale *= self.short_side / min(labels.shape)
        image, labels = scaled_crop(image, labels, scale, self.crop, rng)
        if rng.random() < self.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.jitter:
            image = _jitter(image, self.jitter, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def scaled_crop(
    image: np.ndarray, labels: np.ndarray, scale: float, crop: tuple[int, int], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A random crop of the picture resized by `scale` (bilinear; labels nearest), padded right and bottom where the
    picture is too small.
    """
    height, width = image.shape[:2]
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    size = min(crop[0], scaled[0]), min(crop[1], scaled[1])
    top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(scaled, size, strict=True))
    y, x = height / scaled[0], width / scaled[1]  # source pixels a scaled pixel
    box = left * x, top * y, min((left + size[1]) * x, width), min((top + size[0]) * y, height)
    out_image, out_labels = np.zeros((*crop, 3), np.uint8), np.full(crop, IGNORE, np.uint8)
    part = size[1], size[0]
    resized = Image.fromarray(image).resize(part, Image.Resampling.BILINEAR, box)
    out_image[: size[0], : size[1]] = np.asarray(resized)
    out_labels[: size[0], : size[1]] = np.asarray(Image.fromarray(labels).resize(part, Image.Resampling.NEAREST, box))
    return out_image, out_labels


def _jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    for adjust in (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation):
        pixels = adjust(pixels, rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return pixels.permute(1, 2, 0).numpy()
