"""Segment several images of one size in one forward pass.

Convolutions may add in another order when there are more images, so results can differ in their last bits. `Batched`
uses one pass only where it has seen that the results are those of single images, bit for bit.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from danet.arrays import without_gradients
from danet.data.images.channels import resize_long_side
from danet.data.images.pillow import MAX_PIXELS
from danet.errors import InputError
from danet.model.preprocess import normalize
from danet.predict.inference import labels_from_logits, memory_errors, on_device
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import Segmentation
from danet.predict.sliding_window import PIXELS_AT_ONCE
from danet.weights.runtimes import ExportedNetwork

MAX_IMAGES = 16
"""Maximum number of images per forward pass."""

Item = TypeVar("Item")
Size = tuple[int, int]
Outcome = Segmentation | InputError


@without_gradients
def segment_batch(predictor: Predictor, images: Sequence[np.ndarray], size: int | None = None) -> list[Segmentation]:
    """Segment images of one size in one forward pass.

    The results equal those for single images, up to the rounding of another batch size.

    Args:
        predictor: the network.
        images: H,W,N, as `Predictor.segment` takes them.
        size: see `Predictor`; None: the size in the card.

    Raises:
        InputError: the network returned NaN; too little memory.
    """
    card, align_corners = predictor.card, predictor.network.align_corners
    inputs = np.stack([resize_long_side(image, size or card.size) for image in images])  # B,h,w,N
    input_size, results = (inputs.shape[1], inputs.shape[2]), []
    with memory_errors("image", images[0]):
        logits = predictor.logits(normalize(on_device(inputs, predictor.device), card.mean, card.std))  # B,K,h',w'
        for i, image in enumerate(images):
            result = labels_from_logits(logits[i : i + 1], input_size, (image.shape[0], image.shape[1]), align_corners)
            results.append(Segmentation("image", image, *result, card.classes))
    return results


def group_images(
    images: Iterable[Item], size_of: Callable[[Item], Size | None], most: Callable[[Size], int]
) -> Iterator[list[Item]]:
    """Yield images in order, consecutive ones of the same size together.

    Args:
        images: of any kind.
        size_of: returns height and width; None: such an image is always alone.
        most: returns how many images of a size there may be in a group.
    """
    group: list[Item] = []
    before: Size | None = None
    for image in images:
        size = size_of(image)
        if group and (size is None or size != before or len(group) >= most(size)):
            yield group
            group = []
        group.append(image)
        before = size
    if group:
        yield group


class Batched:
    """Segments groups of images of one size, with the results of single images.

    Args:
        predictor: the network.
        protocol: the protocol; groups are for the whole image once, not for several views or windows.
        size: see `Predictor`.
    """

    def __init__(self, predictor: Predictor, protocol: Protocol = WHOLE, size: int | None = None):
        self._predictor, self._protocol, self._size = predictor, protocol, size
        self._groups = replace(protocol, align_corners=WHOLE.align_corners) == WHOLE
        self._groups = self._groups and not isinstance(predictor.network, ExportedNetwork)
        self._most = dict[Size, int]()
        self._same = set[Size]()

    def most(self, size: Size) -> int:
        """Return the number of images of this height and width in a full group.

        The network gets at most as many pixels as of the windows of an image, see `sliding_window.averaged`. The images
        themselves have at most as many as the largest single one.
        """
        if size not in self._most:
            long_side, on_cpu = self._size or self._predictor.card.size, str(self._predictor.device or "cpu") == "cpu"
            scale = 1.0 if long_side is None else long_side / max(size)
            pixels = max(1, round(size[0] * scale)) * max(1, round(size[1] * scale))
            budget = PIXELS_AT_ONCE if on_cpu else 4 * PIXELS_AT_ONCE
            count = min(MAX_IMAGES, budget // pixels, MAX_PIXELS // (size[0] * size[1]))
            self._most[size] = max(1, count) if self._groups else 1
        return self._most[size]

    def segment(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Outcome]:
        """Segment a group; an image that cannot be segmented gives its error.

        Only full groups are segmented in one pass, and only if the first such group of this size gave the bits of
        single images. If it did not, half as many images are tried in the next one.

        Args:
            names: of the images.
            images: H,W,N, of one size.
        """
        size = images[0].shape[0], images[0].shape[1]
        full = len(images) > 1 and len(images) == self.most(size)
        together = self._one_pass(names, images) if full else None
        if together is not None and size in self._same:
            return together
        alone = [self._alone(name, image) for name, image in zip(names, images, strict=True)]
        if full and together is not None and all(map(_equal, alone, together)):
            self._same.add(size)
        elif full:
            self._same.discard(size)
            self._most[size] //= 2
        return alone

    def _one_pass(self, names: Sequence[str], images: Sequence[np.ndarray]) -> list[Outcome] | None:
        try:
            found = segment_batch(self._predictor, images, self._size)
        except (InputError, RuntimeError, MemoryError):  # of one image, or too little memory for all
            return None
        return [replace(own, name=name) for name, own in zip(names, found, strict=True)]

    def _alone(self, name: str, image: np.ndarray) -> Outcome:
        try:
            return self._predictor.segment(name, image, self._protocol, self._size)
        except InputError as error:
            return error


def _equal(first: Outcome, second: Outcome) -> bool:
    return (
        isinstance(first, Segmentation)
        and isinstance(second, Segmentation)
        and np.array_equal(first.labels, second.labels)
        and first.confidence.tobytes() == second.confidence.tobytes()
    )
