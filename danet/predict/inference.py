"""Run a network on an image under a protocol: pixels -> scores -> labels and confidence at the image's own size."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, UInt8

from danet.arrays import Array, largest, namespace, softmax, to_numpy, without_gradients
from danet.data.images.channels import resize_long_side
from danet.data.samples import Sample, Samples
from danet.errors import InputError
from danet.model.preprocess import normalize
from danet.predict.protocols import WHOLE, Average, Protocol
from danet.predict.segmentation import Prediction
from danet.predict.sliding_window import Logits, Part, averaged, upsampled
from danet.weights.card import Card


@dataclass(frozen=True)
class Inference:
    """A network and how to run it on an image.

    Args:
        logits: the network.
        mean: per channel, of images in [0, 1].
        std: per channel.
        device: a torch.device; None: the network takes and returns NumPy arrays.
        long_side: resize the image to this long side first, as in training; None: not at all. Protocols with a base
            size ignore it.
        protocol: scales, windows and averaging.
        batch: maximum number of images per forward pass, flipped ones included; it does not affect the result. None: as
            suits the device, see `sliding_window.averaged`.
    """

    logits: Logits
    mean: tuple[float, ...]
    std: tuple[float, ...]
    device: Any
    long_side: int | None = None
    protocol: Protocol = WHOLE
    batch: int | None = None

    def scores(self, image: UInt8[np.ndarray, "H W N"] | Float32[np.ndarray, "H W N"]) -> Iterator[Part]:
        """Yield the averaged scores at the image's own size, a tile at a time, see `averaged`.

        They are logits, probabilities, or sums of exponentials, depending on `protocol.average`.

        Args:
            image: pixels, 255 is white.

        Raises:
            InputError: an invalid protocol; exponentials that overflow.
        """
        size, mean, std = image.shape[:2], self.mean, self.std
        inputs = image if self.protocol.base(*size) is not None else resize_long_side(image, self.long_side)
        black = normalize(on_device(np.zeros((1, 1, 1, len(mean)), np.uint8), self.device), mean, std)
        pixels = normalize(on_device(inputs[None], self.device), mean, std)
        return averaged(self.logits, pixels, black, size, self.protocol, self.batch)

    @without_gradients
    def segment(
        self,
        image: UInt8[np.ndarray, "H W N"] | Float32[np.ndarray, "H W N"],
        observe: Callable[[Part], None] = lambda _: None,
    ) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
        """Return the class of each pixel and its probability, at the image's own size; see `scores`.

        Args:
            image: pixels, 255 is white.
            observe: called with each part of the scores.
        """
        observed = (observe(part) or part for part in self.scores(image))
        return _most_probable(observed, image.shape[:2], self.protocol.average)

    @without_gradients
    def probabilities(
        self, image: UInt8[np.ndarray, "H W N"] | Float32[np.ndarray, "H W N"]
    ) -> Float32[np.ndarray, "K H W"]:
        """Return the probability of each class at each pixel, at the image's own size; see `scores`."""
        collected = Probabilities(image.shape[:2], self.protocol.average)
        for part in self.scores(image):
            collected.add(part)
        return collected.values


class Probabilities:
    """The probabilities of an image's classes, collected from the parts of its scores. They take 4 K H W bytes.

    Args:
        size: height and width of the image.
        average: of the protocol that the scores are from.
    """

    values: Float32[np.ndarray, "K H W"]

    def __init__(self, size: tuple[int, int], average: Average):
        self._size = size
        self._average: Average = average

    def add(self, part: Part) -> None:
        """Add the scores of a part of the image."""
        rows, columns, scores = part
        if not hasattr(self, "values"):
            self.values = np.empty((len(scores), *self._size), np.float32)
        self.values[:, rows, columns] = to_numpy(_probabilities(scores, self._average).clip(max=1))


@contextmanager
def memory_errors(name: str, pixels: np.ndarray, setting: str = "size") -> Iterator[None]:
    """Turn errors for lack of memory into `InputError`; `setting` is the parameter that makes images smaller."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError):
            from danet.model.attention_kernels import is_out_of_memory

            if not is_out_of_memory(error):
                raise
        what = f"not enough memory to segment {pixels.shape[1]} x {pixels.shape[0]} pixels"
        remedy = f"use a smaller `{setting}`, or free some memory"
        raise InputError(name, what, remedy) from error.with_traceback(None)  # which holds the memory


def on_device(values: np.ndarray, device: Any) -> Array:
    """Return a copy of the values as a tensor on a torch.device, or the values themselves if it is None."""
    if device is None:
        return values
    import torch

    return torch.tensor(values, device=device)


@without_gradients
def labels_from_logits(
    logits: Float[Array, "1 K h w"], input_size: tuple[int, int], size: tuple[int, int], align_corners: bool
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """Return the class of each pixel and its probability from logits that the network has computed already.

    The result is that of `Inference.segment` under the protocol WHOLE.

    Args:
        logits: of one image, at the feature grid's or the input's size.
        input_size: height and width of the network's input.
        size: height and width of the image.
        align_corners: the network's, for both interpolations.
    """
    return _most_probable(upsampled(logits[0], input_size, size, align_corners), size, "logits")


def predict_samples(
    logits: Logits,
    card: Card,
    samples: Samples,
    device: Any,
    indices: Iterable[int] | None = None,
    protocol: Protocol = WHOLE,
    observe: Callable[[Sample, Part], None] = lambda _sample, _part: None,
    setting: str = "data.size",
) -> Iterator[Prediction]:
    """Yield each sample with its prediction, for networks in training; otherwise use `Predictor.predictions`.

    Args:
        logits: the network.
        card: its mean, standard deviation and size.
        samples: a dataset with the network's classes.
        device: see `Inference`.
        indices: which samples; None: all.
        protocol: scales, windows and averaging, with the network's `align_corners`.
        observe: called with each part of an image's scores, see `Inference.scores`.
        setting: the parameter that makes images smaller, for messages.
    """
    inference = Inference(logits, card.mean, card.std, device, card.size, protocol)
    for index in range(len(samples)) if indices is None else indices:
        sample = samples[index]
        with memory_errors(sample.name, sample.image, setting):
            result = inference.segment(sample.image, partial(observe, sample))
        yield Prediction(sample, *result)


def _most_probable(
    tiles: Iterable[Part], size: tuple[int, int], average: Average
) -> tuple[UInt8[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    labels, confidence = np.empty(size, np.uint8), np.empty(size, np.float32)
    for rows, columns, scores in tiles:
        best, index = largest(_probabilities(scores, average))  # n,m
        check_numbers(best)
        labels[rows, columns] = to_numpy(index)
        confidence[rows, columns] = to_numpy(best.clip(max=1))  # a mean may round up
    return labels, confidence


def check_numbers(confidence: Float[Array, "n m"]) -> None:
    """Check that a network returned numbers.

    Raises:
        InputError: there are NaN.
    """
    if namespace(confidence).isnan(confidence).any():
        what = "the network returned values that are not numbers (NaN)"
        raise InputError("weights", what, "use other weights, or `dtype` float32")


def _probabilities(scores: Float[Array, "K n W"], average: Average) -> Float[Array, "K n W"]:
    if average == "logits":
        return softmax(scores)
    if average == "exp":  # divide by the largest first: the sum may overflow float32, and all scores may be 0
        library = namespace(scores)
        most = library.amax(scores, 0)
        scores = scores / library.where(most > 0, most, 1)
        return scores / scores.sum(0).clip(min=1)
    return scores
