"""Augmentation: (image, labels) -> (image, labels), with an explicit random generator. No global random state.

The crop is computed first, and only that part of the image is resized: same pixels as resizing the whole and
cropping, at a fraction of the cost.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as tv

from danet.data.classes import IGNORE
from danet.data.images.channels import as_type, resize
from danet.data.photometric import distort


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, horizontal flip and color jitter, in this order.

    Args:
        crop: height and width of the result. What lies outside the image is black, and ignored in the labels.
        scale: the range of the random resizing, relative to the image's own size; (1, 1) for none.
        short_side: pixels to which the image's short side is brought before; None: as it is.
        photometric: distort brightness, contrast, saturation and hue as SSD does, see `photometric.py`.
        largest_share: a crop in which one class has more than this share of the valid pixels is drawn again, up to
            ten times (mmsegmentation's cat_max_ratio); 1 takes the first.
        flip: the probability of a left-right flip.
        jitter: the strength of random brightness, contrast and saturation, each a factor in [1 - jitter, 1 + jitter].
            Only 8-bit RGB has saturation (and `photometric` a hue); the contrast of other bands is each band's own.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    jitter: float = 0.0
    short_side: int | None = None
    photometric: bool = False
    largest_share: float = 1.0

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """H,W,N uint8 or float32 (255 is white) and H,W uint8 of any size -> the same of size `crop`."""
        scale = rng.uniform(*self.scale)
        if self.short_side is not None:
            scale *= self.short_side / min(labels.shape)
        image, labels = scaled_crop(image, labels, scale, self.crop, rng, self.largest_share)
        if rng.random() < self.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.jitter:
            image = _jitter(image, self.jitter, rng)
        if self.photometric:
            image = distort(image, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def scaled_crop(
    image: np.ndarray,
    labels: np.ndarray,
    scale: float,
    crop: tuple[int, int],
    rng: np.random.Generator,
    largest_share: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """A random crop of the image resized by `scale` (bilinear; labels nearest), padded right and bottom where the
    image is too small. `largest_share` as in `Augmentation`.
    """
    height, width = image.shape[:2]
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    size = min(crop[0], scaled[0]), min(crop[1], scaled[1])
    y, x = height / scaled[0], width / scaled[1]  # source pixels a scaled pixel
    part = size[1], size[0]
    for _ in range(1 if largest_share == 1 else 10):
        top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(scaled, size, strict=True))
        box = left * x, top * y, min((left + size[1]) * x, width), min((top + size[0]) * y, height)
        cut = np.asarray(Image.fromarray(labels).resize(part, Image.Resampling.NEAREST, box))
        if _largest_share(cut) < largest_share:
            break
    out_image, out_labels = np.zeros((*crop, image.shape[2]), image.dtype), np.full(crop, IGNORE, np.uint8)
    out_image[: size[0], : size[1]] = resize(image, size, box)
    out_labels[: size[0], : size[1]] = cut
    return out_image, out_labels


def _largest_share(labels: np.ndarray) -> float:
    """Of the classes in the valid pixels; a crop of one class alone, or of none, has share 1."""
    counts = np.bincount(labels[labels != IGNORE])
    return counts.max() / counts.sum() if counts.size else 1.0


def _jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    if image.shape[2] != 3 or image.dtype != np.uint8:
        brightness, contrast = rng.uniform(max(0.0, 1 - strength), 1 + strength, 2)
        mean = image.mean((0, 1), np.float32)
        return as_type(np.float32(brightness) * (mean + np.float32(contrast) * (image - mean)), image.dtype)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    for adjust in (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation):
        pixels = adjust(pixels, rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return pixels.permute(1, 2, 0).numpy()
