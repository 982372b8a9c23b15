"""An image in, an answer out. Commands: `danet predict`; in Python `danet.load()(image)`."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float32
from PIL import Image

from danet.data.classes import Classes
from danet.data.images.channels import RGB, Bands, as_pixels
from danet.data.images.pillow import MAX_PIXELS
from danet.data.images.read import list_images, read_header, read_image, to_pixels
from danet.errors import InputError
from danet.files import check_new, make_folder, write_atomically
from danet.model import device as devices
from danet.model.baselines import Baseline
from danet.model.danet import DANet
from danet.model.fold_batchnorm import folded
from danet.predict import overlay as draw
from danet.predict.inference import segment
from danet.predict.protocols import WHOLE, Protocol
from danet.weights import file as weights_file
from danet.weights import runtimes

Kind = Literal["image", "video", "huge"]

OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "image": ("_overlay.png", "_labels.png", ".json"),
    "video": ("_overlay.mp4", ".json"),
    "huge": ("_overlay.png", "_labels.tif", ".json"),
}
"""Suffixes of the output files, added to the input's stem. Large images have more than MAX_PIXELS; see `large_image`
and `video`.
"""

_VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
_BY_ROWS = (".tif", ".tiff", ".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Segmentation:
    """What a network says of an image.

    Args:
        name: the image's stem.
        image: H,W,3 uint8 RGB, or what other bands the network takes, see `data.bands`.
        labels: H,W uint8 train ids.
        confidence: H,W float32, the probability in [0, 1] of the class at each pixel.
        classes: names and palette of the train ids.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    classes: Classes

    def overlay(self, opacity: float = 0.55) -> Image.Image:
        """The image under the classes' colors, with a legend of the classes in it and their shares."""
        entries = [
            (f"{self.classes.names[i]}  {share:.1%}", self.classes.palette[i])
            for i, share in draw.present(self.labels, self.classes)
        ]
        return draw.with_legend(draw.overlay(self.image, self.labels, self.classes, opacity), entries)

    def summary(self) -> dict[str, Any]:
        """Size, and each class in the image with its share of the pixels and its mean confidence, largest first."""
        found = [
            {
                "name": self.classes.names[i],
                "id": i,
                "share": share,
                "mean_confidence": float(self.confidence[self.labels == i].mean()),
            }
            for i, share in draw.present(self.labels, self.classes)
        ]
        return {"name": self.name, "width": self.labels.shape[1], "height": self.labels.shape[0], "classes": found}

    def save(self, folder: Path | str, overwrite: bool = False) -> list[Path]:
        """Write NAME_overlay.png, NAME_labels.png (palette image of train ids) and NAME.json, and return their paths.

        Each file is whole or not there, and the JSON comes last.

        Raises:
            InputError: one of them exists and `overwrite` is off; the folder cannot be written; the disk is full.
        """
        paths = output_paths(Path(folder), self.name)
        if not overwrite:
            check_new(*paths)
        make_folder(Path(folder))
        write_atomically(paths[0], draw.to_png(self.overlay()))
        write_atomically(paths[1], draw.to_png(draw.label_image(self.labels, self.classes)))
        write_atomically(paths[2], (json.dumps(self.summary(), indent=2) + "\n").encode())
        return paths


class Predictor:
    """A network and its card, ready for images.

    Args:
        network: a `DANet` or a baseline, which is put into evaluation mode, or an exported one.
        card: what its file says of it.
        device: "cpu", "cuda"; None: a GPU if there is one.
        dtype: of the products, but for an exported one: float32, or bfloat16 for speed where the processor or GPU has
            it.

    `folded` is what predicts: the network with its batch normalization folded, see `model.fold`, or the exported one.
    """

    def __init__(
        self,
        network: DANet | Baseline | runtimes.Exported,
        card: weights_file.Card,
        device: str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        self.device, self.network, self.card, self.dtype = devices.choose(device), network, card, dtype
        self.folded = network
        if not isinstance(network, runtimes.Exported):
            network.eval().to(self.device).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
            self.folded = folded(network, torch.zeros(1, len(card.mean), 64, 64, device=self.device))

    @property
    def classes(self) -> Classes:
        return self.card.classes

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """The prediction's logits B,K,h,w of normalized images B,3,H,W: at the feature grid, a baseline's at the image
        size; see `shown_by`.
        """
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            return self.folded.logits(images).fused

    def shown_by(self, protocol: Protocol) -> Protocol:
        """The protocol, to bring `logits` to the image as the network would."""
        return replace(protocol, align_corners=self.network.align_corners)

    def __call__(
        self, image: Path | str | Image.Image | np.ndarray, protocol: Protocol = WHOLE, size: int | None = None
    ) -> Segmentation:
        """Segment an image: a path, a Pillow image or an array, of any size; see `read_pixels`.

        Args:
            protocol: how the image is shown to the network, see `danet.predict.protocols`.
            size: the long side, in pixels, that the image is brought to before; None: the card's.

        Raises:
            InputError: a file that is no whole image, or an array of another shape or type; a protocol that cannot be
                followed, or not with a size.
        """
        return self.segment(*read_pixels(image, self.card.bands), protocol, size)

    def segment(
        self, name: str, pixels: np.ndarray, protocol: Protocol = WHOLE, size: int | None = None
    ) -> Segmentation:
        """What a call does with an image once it is read: pixels as `read_image` gives them for the card's bands."""
        if size is not None and size < 1:
            raise InputError("--size", f"{size} is less than 1", "give the long side in pixels")
        if size is not None and (own := protocol.long_side or protocol.short_side) is not None:
            what = f"the protocol has a base size of its own, {own}"
            raise InputError("--size", what, "give --size or such a --protocol")
        card, shown = self.card, self.shown_by(protocol)
        side = card.size if size is None else size
        if size is not None and (most := size**2 * min(pixels.shape[:2]) / max(pixels.shape[:2])) > MAX_PIXELS:
            what = f"{size} makes an image of {most:,.0f} pixels, more than {MAX_PIXELS:,}"
            raise InputError("--size", what, "give a shorter side")
        labels, confidence = segment(self.logits, pixels, card.mean, card.std, self.device, side, shown)
        return Segmentation(name, pixels, labels, confidence, self.classes)

    def attention(self, image: Path | str | Image.Image | np.ndarray, x: int, y: int) -> Float32[np.ndarray, "H W"]:
        """Where pixel (x, y) of an image looks: its row of Eq. 1 over the feature grid, each position's weight spread
        evenly over the pixels of the image that it stands for. At the image's size, >= 0, sums to 1. For the grid
        itself, more points and more: `danet.predict.attention.see`.

        Raises:
            InputError: no image; a pixel outside it; a network without position attention.
        """
        from danet.predict.attention import see

        seen = see(self, image)
        return seen.spread(seen.attention(x, y))


def load(path: Path | str | None = None, device: str | None = None, dtype: torch.dtype = torch.float32) -> Predictor:
    """A predictor from a weights file, or from a file of `danet export`, which runs on the processor as it was
    exported; the weights that come with the package if none is named. `device` and `dtype` are those of `Predictor`.

    Raises:
        InputError: no such file, or not a whole one; for an exported file, another device than the processor or another
            dtype than float32.
    """
    if path is None or Path(path).suffix not in runtimes.SUFFIXES:
        return Predictor(*weights_file.load(path), device, dtype)
    if device not in (None, "cpu"):
        raise InputError(f"--device {device}", "exported files run on the processor", "use cpu, or a .safetensors file")
    if dtype != torch.float32:
        what = "an exported file computes in the type it was exported in"
        raise InputError("--dtype", what, "leave it out, or use a .safetensors file")
    return Predictor(*runtimes.load(Path(path)), "cpu")


def find_images(inputs: Iterable[Path], out: Path, overwrite: bool = False, bands: Bands = RGB) -> list[Path]:
    """The files to segment, folders looked into for images (not below), and every clash of outputs found before work
    begins.

    Raises:
        InputError: nothing there; two images whose outputs would have one name; an output that exists; a name too
            long.
    """
    files: list[Path] = []
    for given in inputs:
        files += list_images(given, bands) if given.is_dir() else [given]
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.stem in by_stem:
            raise InputError(
                file, f"has the same stem as {by_stem[file.stem]}, and so the same outputs", "rename one of them"
            )
        by_stem[file.stem] = file
        paths = output_paths(out, file.stem, kind_of(file))
        if max(len(path.name.encode(errors="surrogateescape")) for path in paths) > 255:
            raise InputError(
                file,
                f"its outputs' names would have over 255 bytes ({paths[0].name[:20]}...)",
                "give it a shorter name",
            )
        if not overwrite:
            check_new(*paths)
    return files


def kind_of(file: Path) -> Kind:
    """Video by its suffix, huge by its header; all else is an image, or is refused as one."""
    if (suffix := file.suffix.lower()) in _VIDEOS:
        return "video"
    try:
        header = read_header(file) if suffix in _BY_ROWS else None
    except InputError as error:
        return "huge" if isinstance(error.__cause__, Image.DecompressionBombError) else "image"
    return "huge" if header is not None and header.height * header.width > MAX_PIXELS else "image"


def output_paths(folder: Path, stem: str, kind: Kind = "image") -> list[Path]:
    """Where the results of a file go."""
    return [folder / f"{stem}{suffix}" for suffix in OUTPUTS[kind]]


def read_pixels(image: Path | str | Image.Image | np.ndarray, bands: Bands = RGB) -> tuple[str, np.ndarray]:
    """The image's stem ("image" if it has none) and its pixels, H,W,N as `read_image` gives them. An array holds what
    a file would: H,W,N uint8 or uint16, or H,W where one band is wanted.

    Raises:
        InputError: a file that is no whole image, or an array of another shape or type.
    """
    if isinstance(image, Path | str):
        return Path(image).stem, read_image(image, bands=bands)
    if isinstance(image, Image.Image):
        return "image", to_pixels(image, bands=bands)
    stored = image[..., None] if image.ndim == 2 and bands.channels == 1 else image
    if stored.shape[2:] != (bands.count,) or stored.dtype not in (np.uint8, np.uint16) or 0 in stored.shape:
        wanted = "H,W,3 uint8 RGB (or uint16)" if bands.channels is None else f"H,W,{bands.count} uint8 or uint16"
        raise InputError("image", f"an array of shape {image.shape} and type {image.dtype}", f"give {wanted}")
    return "image", as_pixels(np.ascontiguousarray(stored), bands, "image")
