"""Augmentation: (image, labels) -> (image, labels), with an explicit random generator and no global random state.

The crop is chosen first, and only that part of the image is resized: the same pixels as resizing the whole image and
cropping, at a fraction of the cost.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from danet.data.classes import IGNORE
from danet.data.degrade import degrade
from danet.data.images.channels import as_type, resize
from danet.startup import without_dynamo

with without_dynamo():
    from torchvision.transforms.v2 import functional as tv


@dataclass(frozen=True)
class Augmentation:
    """Random scale, crop, flips, rotation, color changes and degradations, in this order.

    Args:
        crop: height and width of the result. Pixels outside the image are black, and ignored in the labels.
        scale: range of the random resizing factor; (1, 1) for none.
        flip: probability of a horizontal flip.
        vertical_flip: probability of a vertical flip.
        rotate: probability of a rotation by 90, 180 or 270 degrees.
        rare: probability that a crop is centered on a pixel of a rare class. Each class in the image is chosen with a
            probability that is inverse to its entry in `class_pixels`.
        class_pixels: the number of pixels of each class in the training set; needed for `rare`.
        jitter: strength of random brightness, contrast and saturation, each a factor in [1 - jitter, 1 + jitter].
            Other images than 8-bit RGB have no saturation, and a contrast per band.
        short_side: length in pixels to which the image's short side is resized before the random resizing. None: keep
            its size.
        long_side: the same for the long side, instead of `short_side`.
        photometric: apply SSD's photometric distortion, see `distort`.
        gamma: range of a random exponent of the pixels as values from 0 to 1, drawn from the log-uniform distribution.
            Above 1, shadows become darker; below 1, brighter. (1, 1) for none.
        degrade: probability of noise, blur, haze and the like; see degrade.py. Only for RGB images.
        largest_share: a crop in which one class has more than this share of the valid pixels is drawn again, up to ten
            times (mmsegmentation's cat_max_ratio). 1: keep the first crop.
    """

    crop: tuple[int, int]
    scale: tuple[float, float] = (1.0, 1.0)
    flip: float = 0.5
    jitter: float = 0.0
    short_side: int | None = None
    long_side: int | None = None
    photometric: bool = False
    gamma: tuple[float, float] = (1.0, 1.0)
    degrade: float = 0.0
    largest_share: float = 1.0
    vertical_flip: float = 0.0
    rotate: float = 0.0
    rare: float = 0.0
    class_pixels: tuple[int, ...] = ()

    def __call__(
        self, image: np.ndarray, labels: np.ndarray, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return an augmented image and its labels, of size `crop`.

        Args:
            image: H,W,N uint8, or float32 with 255 as white.
            labels: H,W uint8 train ids.
            rng: source of all random numbers.
        """
        scale = rng.uniform(*self.scale)
        if self.short_side is not None:
            scale *= self.short_side / min(labels.shape)
        if self.long_side is not None:
            scale *= self.long_side / max(labels.shape)
        turns = int(rng.integers(1, 4)) if self.rotate and rng.random() < self.rotate else 0
        center = _rare_pixel(labels, self.class_pixels, rng) if self.rare and rng.random() < self.rare else None
        crop = (self.crop[1], self.crop[0]) if turns % 2 else self.crop
        image, labels = scaled_crop(image, labels, scale, crop, rng, self.largest_share, center)
        if rng.random() < self.flip:
            image, labels = image[:, ::-1], labels[:, ::-1]
        if self.vertical_flip and rng.random() < self.vertical_flip:
            image, labels = image[::-1], labels[::-1]
        if turns:
            image, labels = np.rot90(image, turns), np.rot90(labels, turns)
        if self.jitter:
            image = _jitter(image, self.jitter, rng)
        if self.photometric:
            image = distort(image, rng)
        if self.gamma != (1, 1):
            image = _correct_gamma(image, float(np.exp(rng.uniform(*np.log(self.gamma)))))
        if self.degrade and rng.random() < self.degrade:
            image = degrade(image, rng)
        return np.ascontiguousarray(image), np.ascontiguousarray(labels)


def paste(
    image: np.ndarray, labels: np.ndarray, other: tuple[np.ndarray, np.ndarray], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste the pixels of one class of another crop over a crop, at the same place.

    This is the copy-paste of Ghiasi et al., CVPR 2021, by classes, as masks have no instances. The class is chosen with
    a probability inverse to its number of pixels in the other crop, which must have two: its background stays there.

    Args:
        image: H,W,N.
        labels: H,W uint8 train ids.
        other: image and labels of the other crop, of the same sizes.
        rng: source of the random number.
    """
    other_image, other_labels = other
    present, counts = np.unique(other_labels[other_labels != IGNORE], return_counts=True)
    if len(present) < 2:
        return image, labels
    inside = other_labels == rng.choice(present, p=1 / counts / (1 / counts).sum())
    return np.where(inside[..., None], as_type(other_image, image.dtype), image), np.where(inside, other_labels, labels)


def scaled_crop(
    image: np.ndarray,
    labels: np.ndarray,
    scale: float,
    crop: tuple[int, int],
    rng: np.random.Generator,
    largest_share: float = 1.0,
    center: tuple[int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Return a random crop of the image resized by `scale`, padded on the right and bottom if the image is too small.

    The image is resized bilinearly, the labels by nearest neighbor.

    Args:
        image: H,W,N uint8 or float32.
        labels: H,W uint8 train ids.
        scale: the resizing factor.
        crop: height and width of the result.
        rng: source of all random numbers.
        largest_share: see `Augmentation`.
        center: row and column of the pixel in the middle of the crop, or as near to it as the border allows, instead
            of a random place.
    """
    height, width = image.shape[:2]
    scaled = max(1, round(height * scale)), max(1, round(width * scale))
    size = min(crop[0], scaled[0]), min(crop[1], scaled[1])
    flipped = size[1], size[0]
    y, x = height / scaled[0], width / scaled[1]  # source pixels per scaled pixel
    for _ in range(1 if largest_share == 1 or center is not None else 10):
        if center is None:
            top, left = (int(rng.integers(0, whole - part + 1)) for whole, part in zip(scaled, size, strict=True))
        else:
            places = zip(center, (y, x), scaled, size, strict=True)
            top, left = (
                int(np.clip((at + 0.5) / step - part / 2, 0, whole - part)) for at, step, whole, part in places
            )
        box = left * x, top * y, min((left + size[1]) * x, width), min((top + size[0]) * y, height)
        cropped = np.asarray(Image.fromarray(labels).resize(flipped, Image.Resampling.NEAREST, box))
        if _largest_share(cropped) < largest_share:
            break
    out_image, out_labels = np.zeros((*crop, image.shape[2]), image.dtype), np.full(crop, IGNORE, np.uint8)
    out_image[: size[0], : size[1]] = resize(image, size, box)
    out_labels[: size[0], : size[1]] = cropped
    return out_image, out_labels


def _rare_pixel(labels: np.ndarray, class_pixels: tuple[int, ...], rng: np.random.Generator) -> tuple[int, int] | None:
    """Return row and column of a random pixel of a class chosen as for `Augmentation.rare`; None without labels."""
    flat = np.asarray(labels).ravel()
    counts = np.bincount(flat, minlength=len(class_pixels))[: len(class_pixels)]
    present = np.flatnonzero(counts)
    if not len(present):
        return None
    weights = 1 / np.maximum(np.array(class_pixels)[present], 1)
    chosen = rng.choice(present, p=weights / weights.sum())
    place = np.flatnonzero(flat == chosen)[rng.integers(counts[chosen])]
    return int(place) // labels.shape[1], int(place) % labels.shape[1]


def distort(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Apply SSD's photometric distortion (Liu et al., ECCV 2016), which mmsegmentation's recipes use.

    Each change has a probability of one half: brightness by up to 32 of 255, contrast and saturation by a factor in
    [0.5, 1.5], hue by up to 36 degrees. Contrast changes before or after saturation and hue, with equal probability.
    Images other than 8-bit RGB have no saturation and no hue.

    Args:
        image: H,W,N uint8 or float32.
        rng: source of all random numbers.
    """
    image = _linear(image, 1.0, rng.uniform(-32, 32)) if rng.random() < 0.5 else image
    contrast = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    contrast_first = rng.random() < 0.5
    saturation = rng.uniform(0.5, 1.5) if rng.random() < 0.5 else 1.0
    hue = rng.uniform(-36, 36) if rng.random() < 0.5 else 0.0
    if contrast_first:
        image = _linear(image, contrast, 0.0)
    if (saturation != 1 or hue != 0) and image.shape[2] == 3 and image.dtype == np.uint8:
        image = _shift_colors(image, saturation, hue)
    return image if contrast_first else _linear(image, contrast, 0.0)


def _largest_share(labels: np.ndarray) -> float:
    """Return the share of the most frequent class in the valid pixels; 1 if there are none."""
    counts = np.bincount(labels[labels != IGNORE])
    return counts.max() / counts.sum() if counts.size else 1.0


def _jitter(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    low, high = max(0.0, 1 - strength), 1 + strength
    if image.shape[2] != 3 or image.dtype != np.uint8:
        brightness, contrast = rng.uniform(low, high, 2)
        mean = image.mean((0, 1), np.float32)
        return as_type(np.float32(brightness) * (mean + np.float32(contrast) * (image - mean)), image.dtype)
    pixels = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)
    for adjust in (tv.adjust_brightness, tv.adjust_contrast, tv.adjust_saturation):
        pixels = adjust(pixels, rng.uniform(low, high))
    return pixels.permute(1, 2, 0).numpy()


def _linear(image: np.ndarray, factor: float, offset: float) -> np.ndarray:
    return as_type(image * np.float32(factor) + np.float32(offset), image.dtype)


def _correct_gamma(image: np.ndarray, gamma: float) -> np.ndarray:
    if image.dtype == np.uint8:
        return (255 * np.linspace(0, 1, 256) ** gamma).round().astype(np.uint8)[image]
    return 255 * (image.clip(0) / 255) ** np.float32(gamma)


def _shift_colors(image: np.ndarray, saturation: float, degrees: float) -> np.ndarray:
    hsv = np.array(Image.fromarray(image).convert("HSV"))
    hsv[..., 0] += np.uint8(round(degrees / 360 * 256) % 256)  # wraps around, as hues do
    hsv[..., 1] = (hsv[..., 1] * np.float32(saturation)).clip(0, 255)
    return np.asarray(Image.fromarray(hsv, "HSV").convert("RGB"))
