"""The scale at which the network sees objects: choose `data.size`, and compare training with prediction.

Training crops are cut from images that are resized by `data.scale`; validation and prediction resize the long side of
an image to `data.size`. A network that never saw objects as large or as small as those of the validation fails there.
"""

from dataclasses import dataclass, replace

import numpy as np

from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import InputError
from danet.recipes import Recipe

IMAGES = 40
"""Label maps that are measured, evenly spaced over the training set."""
SIZES = 512, 1024
"""Range of sizes that are chosen without being asked for."""
VISIBLE = 8
"""Width in pixels from which objects are told apart reliably by a decoder of stride 4."""
TOLERANCE = 1.25
"""Prediction may be out of the range of the training's scales by this factor."""


@dataclass(frozen=True)
class ObjectScale:
    """The sizes of a dataset's images and of what is in them.

    Args:
        height: median height of the images in pixels.
        width: median width.
        thinnest: the class with the thinnest objects; None if no image has two classes.
        thickness: the width of its objects, as a fraction of the long side; 1 without a `thinnest`.
    """

    height: int
    width: int
    thinnest: str | None
    thickness: float

    @property
    def long_side(self) -> int:
        """Median length of the images' longer side."""
        return max(self.height, self.width)

    def describe(self, size: object) -> str:
        """Say in one line what the network sees if the long side is resized to `size`."""
        assert isinstance(size, int)
        text = f"images of about {self.width} x {self.height}, resized to a long side of {size}"
        if self.thinnest is not None:
            text += f": the thinnest class, {self.thinnest}, is then about {pixels_wide(self.thickness * size)}"
        return text


def pixels_wide(width: float) -> str:
    """Say how wide something is, with two digits below 10 pixels."""
    text = f"{width:.2g}" if width < 10 else f"{width:.0f}"
    return f"{text} pixel{'s' * (text != '1')} wide"


def measure(samples: Samples) -> ObjectScale | None:
    """Measure a training set; return None if none of the label maps that it reads is readable."""
    sizes, widths = [], [[] for _ in range(len(samples.classes))]
    for index in np.unique(np.linspace(0, len(samples) - 1, IMAGES).astype(int)):
        try:
            labels = samples.labels(int(index))
        except InputError:  # training reports it
            continue
        sizes.append(labels.shape)
        classes = np.unique(labels[labels != IGNORE])
        for k in classes if len(classes) > 1 else ():
            widths[k].append(thickness(labels == k) / max(labels.shape))
    if not sizes:
        return None
    medians = [float(np.median(values)) if values else 1.0 for values in widths]
    thinnest = int(np.argmin(medians))
    height, width = (int(np.median(side)) for side in zip(*sizes, strict=True))
    name = samples.classes.names[thinnest] if medians[thinnest] < 1 else None
    return ObjectScale(height, width, name, medians[thinnest])


def thickness(mask: np.ndarray) -> float:
    """Return the mean length of the runs of a mask, along rows or along columns, whichever is shorter.

    Args:
        mask: H,W bool with at least one True.
    """
    padded = np.pad(mask, 1)
    runs = (np.count_nonzero(padded[1:] & ~padded[:-1]), np.count_nonzero(padded[:, 1:] & ~padded[:, :-1]))
    return np.count_nonzero(mask) / max(runs)


def with_size(recipe: Recipe, found: ObjectScale | None) -> Recipe:
    """Return the recipe with a number in place of `data.size` "auto".

    The number is the smallest at which the thinnest class is `VISIBLE`, within `SIZES`, and not above the images' own
    size if that is larger than the lower limit.
    """
    if recipe.data.size != "auto":
        return recipe
    low, high = SIZES
    size = low
    if found is not None:
        wanted = 32 * np.ceil(min(high, VISIBLE / found.thickness) / 32)
        size = int(min(max(wanted, low), max(low, found.long_side)))
    return replace(recipe, data=replace(recipe.data, size=size))


def check_scales(recipe: Recipe, found: ObjectScale | None) -> None:
    """Check that prediction is at a scale of the training.

    Raises:
        InputError: it is not, for images of the median size.
    """
    data = recipe.data
    if not isinstance(data.size, int) or found is None:
        return
    prediction, unit = data.size / found.long_side, 1.0
    if data.scale_from == "size":
        unit = prediction
    elif data.short_side is not None:
        unit = data.short_side / min(found.height, found.width)
    low, high = (factor * unit for factor in data.scale)
    if not low / TOLERANCE <= prediction <= high * TOLERANCE:
        what = (
            f"images of {found.width} x {found.height} are trained at {low:.2g} to {high:.2g} times their size, but "
            f"predicted at {prediction:.2g} times ({data.size} pixels)"
        )
        raise InputError("data.scale", what, "set `data.scale_from` to size, or choose another `data.size`")
