"""Load a network and segment images. In Python `danet.load()(image)`; commands: `danet predict` and most others.

Exported networks are run without torch, which need not be installed: what needs it is imported where it is used.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
from jaxtyping import Float, Float32

from danet.arrays import Array
from danet.data.classes import Classes
from danet.data.images.pillow import MAX_PIXELS
from danet.data.samples import Samples
from danet.errors import InputError, missing_torch
from danet.predict.inference import Inference, Probabilities, memory_errors, predict_samples
from danet.predict.modules import MODULES, Module
from danet.predict.pixels import ImageLike, read_pixels
from danet.predict.protocols import WHOLE, Protocol, as_protocol
from danet.predict.segmentation import Prediction, Segmentation
from danet.predict.settings import Settings
from danet.weights import runtimes
from danet.weights.card import DEFAULT, DEFAULT_EXPORT, Card, resolve
from danet.weights.hub_files import is_address

if TYPE_CHECKING:
    import torch

    from danet.model.baselines import AnyNetwork
    from danet.predict.attention import Inspection

_SHOWN = 3  # names of classes in a predictor's repr

_DTYPES = ("float32", "bfloat16")


class Predictor:
    """A network with its card, ready to segment images.

    Args:
        network: a `DANet`, a `DRANet` or a baseline, which is put into evaluation mode, or an exported model, which
            runs on the CPU in the precision in which it was loaded.
        card: the description in its file.
        device: "cpu" or "cuda"; None: a GPU if there is one.
        dtype: precision of matrix products and convolutions: "float32", or "bfloat16", which is faster on hardware that
            supports it; torch's types are accepted too.

    Raises:
        InputError: an exported model with another device or dtype.
    """

    def __init__(
        self,
        network: "AnyNetwork | runtimes.ExportedNetwork",
        card: Card,
        device: str | None = None,
        dtype: "torch.dtype | str" = "float32",
    ):
        self.network, self.card = network, card
        self.dtype = str(dtype).removeprefix("torch.")
        if isinstance(network, runtimes.ExportedNetwork):
            _check_on_cpu(device)
            if network.dtype != self.dtype:
                what = f"is {self.dtype}, but the model was loaded in {network.dtype}"
                raise InputError("dtype", what, "load it again")
            self.device = None
            return
        from danet.model.device import let_forks_compute, resolve_device

        self.device = resolve_device(device)
        let_forks_compute()
        import torch

        network.eval().to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def __repr__(self) -> str:
        network = self.card.network
        exported = "exported " if isinstance(self.network, runtimes.ExportedNetwork) else ""
        name = f"{exported}{network.get('architecture', 'danet')} on {network['backbone']}"
        shown = self.classes.names[:_SHOWN]
        names = f"{', '.join(shown)}{', ...' if len(self.classes) > len(shown) else ''}"
        size = "any size" if self.card.size is None else f"long side {self.card.size}"
        return f"Predictor({name}, {len(self.classes)} classes: {names}, {size}, {self.device or 'cpu'})"

    @cached_property
    def folded(self) -> "AnyNetwork | runtimes.ExportedNetwork":
        """The network that predicts, made when it is first used.

        It is a copy with batch normalization folded into the convolutions, see `danet.model.fold_batchnorm`, or the
        exported model itself.
        """
        if isinstance(self.network, runtimes.ExportedNetwork):
            return self.network
        import torch

        from danet.model.fold_batchnorm import fold_batchnorm

        return fold_batchnorm(self.network, torch.zeros(1, len(self.card.mean), 64, 64, device=self.device))

    @property
    def classes(self) -> Classes:
        """The classes that the network predicts."""
        return self.card.classes

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the weights; of an exported model also that of the file's, which may have been quantized."""
        own = f" exported as {self.network.sha256}" if isinstance(self.network, runtimes.ExportedNetwork) else ""
        return self.card.sha256 + own

    def logits(self, images: Float[Array, "B N H W"]) -> Float[Array, "B K h w"]:
        """Return the logits of normalized images: tensors, or NumPy arrays for an exported model.

        They are at the size of the network's last feature grid; those of baselines that need images of a `multiple`
        of some pixels, at the images' size.
        """
        if isinstance(self.folded, runtimes.ExportedNetwork):
            return self.folded.logits(images).fused
        import torch

        kind = getattr(torch, self.dtype)
        with torch.autocast(images.device.type, kind, enabled=kind != torch.float32):
            return self.folded.logits(images).fused

    def resolve_protocol(self, protocol: Protocol | str) -> Protocol:
        """Return the protocol, which may be a name, with the network's own `align_corners`, as it is followed."""
        return replace(as_protocol(protocol), align_corners=self.network.align_corners)

    @overload
    def __call__(self, image: ImageLike, protocol: Protocol | str = WHOLE, size: int | None = None) -> Segmentation: ...

    @overload
    def __call__(
        self, image: Sequence[ImageLike], protocol: Protocol | str = WHOLE, size: int | None = None
    ) -> list[Segmentation]: ...

    def __call__(
        self, image: ImageLike | Sequence[ImageLike], protocol: Protocol | str = WHOLE, size: int | None = None
    ) -> Segmentation | list[Segmentation]:
        """Segment an image of any size, or several, which may have different sizes.

        Several images are segmented one after another, so the network needs the memory of one.

        Args:
            image: a path, a Pillow image, an array or a tensor, see `read_pixels`; or a list of them.
            protocol: scales, windows and averaging, or their name; see `danet.predict.protocols`.
            size: the image's long side in pixels at the network's input; None: the size in the card.

        Returns:
            The segmentation; for several images, a list of them in the same order.

        Raises:
            InputError: a damaged file; an array of another shape or type; an invalid protocol, or one that defines a
                size while `size` is given.
        """
        if isinstance(image, Sequence) and not isinstance(image, str | bytes | bytearray):
            return [self(one, protocol, size) for one in image]
        return self.segment(*read_pixels(image, self.card.bands), protocol, size)

    def segment(
        self,
        name: str,
        pixels: np.ndarray,
        protocol: Protocol | str = WHOLE,
        size: int | None = None,
        keep_probabilities: bool = False,
    ) -> Segmentation:
        """Segment pixels, as `read_image` returns them for the card's bands; see `__call__`.

        Args:
            name: of the image.
            pixels: of the image.
            protocol: see `__call__`.
            size: see `__call__`.
            keep_probabilities: hold `Segmentation.probabilities` from the start, instead of running the network again
                when they are first used.

        Raises:
            InputError: see `__call__`; too little memory.
        """
        card, given = self.card, as_protocol(protocol)
        if size is not None:
            _check_size(size, pixels.shape[:2], given)
        long_side = card.size if size is None else size
        protocol = self.resolve_protocol(given)
        inference = Inference(self.logits, card.mean, card.std, self.device, long_side, protocol)
        kept = Probabilities(pixels.shape[:2], protocol.average)
        with memory_errors(name, pixels):
            result = inference.segment(pixels, kept.add) if keep_probabilities else inference.segment(pixels)

        def probabilities() -> np.ndarray:
            if keep_probabilities:
                return kept.values
            with memory_errors(name, pixels):
                return inference.probabilities(pixels)

        settings = self.settings(given, size)
        return Segmentation(name, pixels, *result, self.classes, compute_probabilities=probabilities, settings=settings)

    def settings(self, protocol: Protocol = WHOLE, size: int | None = None) -> Settings:
        """Return what the JSON of a result records; arguments as in `__call__`."""
        return Settings.of(self.card, self.fingerprint, protocol, size, self.dtype)

    def with_size(self, size: int, protocol: Protocol = WHOLE) -> "Predictor":
        """Return this predictor with another size in its card.

        Args:
            size: the images' long side in pixels at the network's input.
            protocol: the one that it will be used with.

        Raises:
            InputError: a size below 1, or above the limit for square images; a protocol that defines a size.
        """
        _check_size(size, (1, 1), protocol)
        other = copy.copy(self)
        other.card = replace(self.card, size=size)
        return other

    def in_windows(self) -> "Predictor":
        """Return this predictor, with windows at their own resolution for images that are too large to load."""
        other = copy.copy(self)
        other.card = replace(self.card, scale_rule="native")
        return other

    def predictions(
        self, samples: Samples, protocol: Protocol = WHOLE, indices: Iterable[int] | None = None
    ) -> Iterator[Prediction]:
        """Yield each sample with its prediction.

        Args:
            samples: a dataset with the network's classes.
            protocol: scales, windows and averaging; see `danet.predict.protocols`.
            indices: which samples; None: all.
        """
        protocol = self.resolve_protocol(protocol)
        return predict_samples(self.logits, self.card, samples, self.device, indices, protocol, setting="size")

    def attention(self, image: ImageLike, x: int, y: int) -> Float32[np.ndarray, "H W"]:
        """Return how strongly pixel (x, y) of an image attends to each pixel: its row of Eq. 1.

        The row is computed over the feature grid, and each position's weight is divided evenly among its pixels. Values
        are >= 0 and sum to 1. For the grid itself, several points and more, see `inspect`.

        Raises:
            InputError: an unreadable image; a pixel outside it; a network without position attention.
        """
        inspection = self.inspect(image)
        return inspection.spread(inspection.attention(x, y))

    def inspect(self, image: ImageLike) -> "Inspection":
        """Run an image through the network once, and keep what is needed to query its attention.

        Raises:
            InputError: an unreadable image; an exported network or a baseline.
        """
        return self.inspect_pixels(*read_pixels(image, self.card.bands))

    def inspect_pixels(self, name: str, pixels: np.ndarray) -> "Inspection":
        """Inspect pixels, as `read_image` returns them for the card's bands; see `inspect`."""
        if isinstance(self.network, runtimes.ExportedNetwork):
            what = "an exported model or a baseline has no attention to inspect"
            raise InputError("weights", what, "use the .safetensors weights of a DANet or DRANet")
        from danet.predict.attention import inspect_pixels

        return inspect_pixels(self.folded, self.card, name, pixels)

    @property
    def attention_modules(self) -> tuple[Module, ...]:
        """The attention modules of the network that can be inspected."""
        if isinstance(self.network, runtimes.ExportedNetwork):
            return ()
        from danet.model.dranet import AttentionNetwork

        network = self.network
        if not isinstance(network, AttentionNetwork):
            return ()
        return tuple(name for name in MODULES if getattr(network, name) is not None)

    @property
    def has_attention(self) -> bool:
        """Whether the network has attention modules to inspect."""
        return bool(self.attention_modules)


def load(
    path: Path | str | None = None, device: str | None = None, dtype: "torch.dtype | str" = "float32"
) -> Predictor:
    """Load a predictor from a weights file, or from a file of `danet export`.

    Args:
        path: a .safetensors, .onnx, .xml or .pte file, or weights on the Hugging Face Hub:
            "hf://user/repo[@revision][/file]"; None: the bundled weights. Where torch is not installed, these are the
            exported ones, `DEFAULT_EXPORT`.
        device: see `Predictor`. Exported models run on the CPU.
        dtype: see `Predictor`. Of exported models, only .xml files compute in bfloat16, and only on a CPU that does.

    Raises:
        InputError: a missing or damaged file; an exported model with another device, or a dtype that it does not
            support; torch is needed, and not installed.
    """
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise InputError("dtype", f"{str(dtype)!r} is not supported", f"use one of {', '.join(_DTYPES)}")
    if path is not None and Path(path).suffix in runtimes.SUFFIXES and not is_address(path):
        _check_on_cpu(device)  # before the file is read
        return Predictor(*runtimes.load(Path(path), name), "cpu", name)
    try:
        from danet.weights import file
    except ImportError as error:
        needed = missing_torch("weights" if path is None else path, error)
        if resolve(path) == DEFAULT and DEFAULT_EXPORT.is_file():
            return load(DEFAULT_EXPORT, device, dtype)
        raise needed from error
    return Predictor(*file.load(path), device, dtype)


def _check_on_cpu(device: str | None) -> None:
    if device not in (None, "cpu"):
        remedy = "use cpu, or the .safetensors file"
        raise InputError("device", f"{device!r} is not supported: exported models run on the CPU", remedy)


def _check_size(size: int, shape: tuple[int, ...], protocol: Protocol) -> None:
    if isinstance(size, bool) or not isinstance(size, Integral):  # NumPy has integers of its own
        raise InputError("size", f"must be a whole number, got {size!r}", "use the long side in pixels")
    if size < 1:
        raise InputError("size", f"must be at least 1 pixel, got {size}", "use the long side in pixels")
    if (base := protocol.long_side or protocol.short_side) is not None:
        what = f"the `protocol` already resizes images, to {base} pixels"
        raise InputError("size", what, "leave out `size`, or choose another `protocol`")
    if (count := size**2 * min(shape) / max(shape)) > MAX_PIXELS:
        what = f"{size} makes an image of {count:,.0f} pixels, more than {MAX_PIXELS:,}"
        raise InputError("size", what, "use a smaller size")
