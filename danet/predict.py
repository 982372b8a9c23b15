"""A picture in, an answer out. Commands: `danet predict`; in Python `danet.load()(image)`."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from danet import devices, draw, weights
from danet.data.images import list_images, read_image, to_rgb
from danet.data.labels import Classes
from danet.errors import InputError
from danet.inference import WHOLE, Protocol, segment
from danet.model.danet import DANet

SUFFIXES = ("_overlay.png", "_labels.png", ".json")
"""What `Segmentation.save` adds to the picture's stem."""


@dataclass(frozen=True)
class Segmentation:
    """What a network says of a picture.

    Args:
        name: the picture's stem.
        image: H,W,3 uint8 RGB.
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
        """The picture under the classes' colours, with a legend of the classes in it and their shares."""
        entries = [
            (f"{self.classes.names[i]}  {share:.1%}", self.classes.palette[i])
            for i, share in draw.present(self.labels, self.classes)
        ]
        return draw.with_legend(draw.overlay(self.image, self.labels, self.classes, opacity), entries)

    def summary(self) -> dict[str, Any]:
        """Size, and each class in the picture with its share of the pixels and its mean confidence, largest first."""
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
        """Write NAME_overlay.png, NAME_labels.png (palette picture of train ids) and NAME.json, and return their paths.

        Raises:
            InputError: one of them exists and `overwrite` is off; the folder cannot be written.
        """
        paths = output_paths(Path(folder), self.name)
        if not overwrite:
            refuse_existing(paths)
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
            self.overlay().save(paths[0])
            draw.label_image(self.labels, self.classes).save(paths[1])
            paths[2].write_text(json.dumps(self.summary(), indent=2) + "\n")
        except OSError as error:
            raise InputError(
                folder, f"cannot be written ({error.strerror or error})", "give --out another folder"
            ) from error
        return paths


class Predictor:
    """A network and its card, ready for pictures.

    Args:
        network: a `DANet`; it is put into evaluation mode.
        card: what its weights file says of it.
        device: "cpu", "cuda"; None: a GPU if there is one.
    """

    def __init__(self, network: DANet, card: weights.Card, device: str | None = None):
        self.device = devices.choose(device)
        self.network = network.eval().to(self.device)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
        self.card = card

    @property
    def classes(self) -> Classes:
        return self.card.classes

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """The prediction's logits at the feature grid, B,K,h,w, of normalised images B,3,H,W; see `shown_by`."""
        return self.network.logits(images).fused

    def shown_by(self, protocol: Protocol) -> Protocol:
        """The protocol, to bring `logits` to the picture as the network would."""
        return replace(protocol, align_corners=self.network.align_corners)

    def __call__(self, image: Path | str | Image.Image | np.ndarray) -> Segmentation:
        """Segment a picture: a path, a Pillow image or H,W,3 uint8 RGB, of any size.

        Raises:
            InputError: a file that is no whole picture, or an array of another shape or type.
        """
        name, pixels = _pixels(image)
        card, protocol = self.card, self.shown_by(WHOLE)
        labels, confidence = segment(self.logits, pixels, card.mean, card.std, self.device, card.size, protocol)
        return Segmentation(name, pixels, labels, confidence, self.classes)


def load(path: Path | str | None = None, device: str | None = None) -> Predictor:
    """A predictor from a weights file; the weights that come with the package if none is named.

    Raises:
        InputError: no such file, or not a whole weights file.
    """
    network, card = weights.load(path)
    return Predictor(network, card, device)


def find_images(inputs: Iterable[Path], out: Path, overwrite: bool = False) -> list[Path]:
    """The pictures to segment, folders looked into (not below), and every clash of outputs found before work begins.

    Raises:
        InputError: nothing there; two pictures whose outputs would have one name; an output that exists; a name too
            long.
    """
    files: list[Path] = []
    for given in inputs:
        files += list_images(given) if given.is_dir() else [given]
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.stem in by_stem:
            raise InputError(
                file, f"has the same stem as {by_stem[file.stem]}, and so the same outputs", "rename one of them"
            )
        by_stem[file.stem] = file
        paths = output_paths(out, file.stem)
        if max(len(path.name.encode(errors="surrogateescape")) for path in paths) > 255:
            raise InputError(
                file,
                f"its outputs' names would have over 255 bytes ({paths[0].name[:20]}...)",
                "give it a shorter name",
            )
        if not overwrite:
            refuse_existing(paths)
    return files


def output_paths(folder: Path, stem: str) -> list[Path]:
    """Where a picture's results go."""
    return [folder / f"{stem}{suffix}" for suffix in SUFFIXES]


def refuse_existing(paths: Sequence[Path]) -> None:
    """Raises InputError if one of the files exists."""
    for path in paths:
        if path.exists():
            raise InputError(path, "exists already", "give --out another folder, or --overwrite")


def _pixels(image: Path | str | Image.Image | np.ndarray) -> tuple[str, np.ndarray]:
    if isinstance(image, Path | str):
        return Path(image).stem, read_image(image)
    if isinstance(image, Image.Image):
        return "image", to_rgb(image)
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError("image", f"an array of shape {image.shape} and type {image.dtype}", "give H,W,3 uint8 RGB")
    return "image", image
