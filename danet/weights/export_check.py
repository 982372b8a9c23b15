"""Compare an exported graph with the network, before it is written and on labeled images."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from danet.data.images.channels import resize, resize_long_side
from danet.data.images.read import read_image
from danet.errors import InputError
from danet.model.baselines import AnyNetwork
from danet.model.preprocess import normalize
from danet.weights import runtimes
from danet.weights.export_preprocessing import segment
from danet.weights.file import Card

Inputs = dict[str, Tensor]
"""Name -> images: normalized B,N,H,W, or uint8 B,H,W,N for graphs with preprocessing."""

NOISE = ((1, 97, 130), (1, 64, 192), (3, 97, 130), (3, 64, 192))
"""B,H,W of the seeded noise on which a file is compared with the network."""


class Comparison(NamedTuple):
    """The differences between the outputs of a file and of the network.

    Args:
        input: the name of the input.
        difference: the largest absolute difference of the logits; of the confidence for graphs with preprocessing.
        largest: the largest absolute logit of the network, or confidence.
        equal: the number of pixels with the same label.
        pixels: the number of pixels.
    """

    input: str
    difference: float
    largest: float
    equal: int
    pixels: int


def float_inputs(card: Card, files: Sequence[Path], noise: bool, size: tuple[int, int] | None) -> Inputs:
    """Return normalized images: of files, and noise before them if asked for; all of `size` unless it is None.

    Raises:
        InputError: a file that cannot be read.
    """
    generator = torch.Generator().manual_seed(0)
    shapes = [(batch, height, width) for batch, height, width in NOISE] if size is None else [(1, *size)]
    inputs = {
        f"noise {batch}x{len(card.mean)}x{height}x{width}": torch.randn(
            batch, len(card.mean), height, width, generator=generator
        )
        for batch, height, width in (shapes if noise else ())
    }
    return inputs | {str(file): _normalized(read_image(file, bands=card.bands), card, size) for file in files}


def pixel_inputs(card: Card, files: Sequence[Path], noise: bool, _size: tuple[int, int] | None) -> Inputs:
    """Return uint8 images as graphs with preprocessing take them; see `float_inputs`."""
    generator, bands = torch.Generator().manual_seed(0), card.bands
    inputs = {
        f"noise {height}x{width}x{bands.count}": torch.randint(
            0, 256, (1, height, width, bands.count), dtype=torch.uint8, generator=generator
        )
        for _, height, width in (NOISE[:2] if noise else ())
    }
    return inputs | {str(file): torch.tensor(check_bytes(read_image(file, bands=bands), file))[None] for file in files}


def check_bytes(pixels: np.ndarray, name: Path | str) -> np.ndarray:
    """Return an image for a graph with preprocessing, after checking that it is uint8.

    Raises:
        InputError: it has more than 8 bits.
    """
    if pixels.dtype != np.uint8:
        what = "has more than 8 bits per value, which a graph with preprocessing does not take"
        raise InputError(name, what, "convert it to 8 bits, or export without `preprocessing`")
    return pixels


@torch.inference_mode()
def compare(network: AnyNetwork, exported: runtimes.ExportedNetwork, inputs: Inputs) -> list[Comparison]:
    """Compare a network with an exported file of it on normalized images."""
    result = []
    for name, images in inputs.items():
        ours, theirs = network.logits(images).fused, exported.logits(images).fused
        equal = network(images).fused.argmax(1) == exported.labels(images)
        difference, largest = float((ours - theirs).abs().max()), float(ours.abs().max())
        result.append(Comparison(name, difference, largest, int(equal.sum()), equal.numel()))
    return result


def compare_whole(network: AnyNetwork, card: Card, graph: bytes, inputs: Inputs) -> list[Comparison]:
    """Compare a network with a graph that has preprocessing inside, on uint8 images."""
    run, result = open_whole(graph), []
    for name, images in inputs.items():
        (ours, sure), (theirs, confidence) = segment(network, card, images[0].numpy()), run(images[0].numpy())
        difference = float(np.abs(sure - confidence).max())
        result.append(Comparison(name, difference, float(sure.max()), int((ours == theirs).sum()), ours.size))
    return result


def open_whole(graph: bytes) -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Return a function that segments an image H,W,N by a graph with preprocessing: labels and confidence."""
    runtime = runtimes.import_optional("onnxruntime", "export", "preprocessing")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = torch.get_num_threads(), 4
    session = runtime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])

    def run(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        labels, confidence = session.run(["labels", "confidence"], {"images": pixels[None]})
        return labels[0], confidence[0]

    return run


def open_labels(path: Path, graph_size: tuple[int, int] | None, whole: bool) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function that segments an image H,W,N by a written file.

    Args:
        path: the .onnx, .xml or .pte file.
        graph_size: height and width of its only input size; None: any.
        whole: whether it has preprocessing inside.
    """
    if whole:
        run = open_whole(path.read_bytes())
        return lambda pixels: run(pixels)[0]
    network, card = runtimes.load(path)

    def labels(pixels: np.ndarray) -> UInt8[np.ndarray, "H W"]:
        inputs = _normalized(pixels, card, graph_size)
        scores = network.logits(inputs).fused
        for size in (inputs.shape[2:], pixels.shape[:2]):
            scores = F.interpolate(scores, size, mode="bilinear", align_corners=network.align_corners)
        return scores.argmax(1)[0].to(torch.uint8).numpy()

    return labels


def _normalized(pixels: np.ndarray, card: Card, size: tuple[int, int] | None) -> Tensor:
    resized = resize_long_side(pixels, card.size) if size is None else resize(pixels, size)
    return normalize(torch.tensor(resized)[None], card.mean, card.std)
