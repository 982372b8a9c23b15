"""The segmentation of one image: labels and confidence, their summary by class, and the files that hold them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float32, Integer, UInt8
from PIL import Image

from danet.data.classes import IGNORE, Classes, Color
from danet.data.samples import Sample
from danet.errors import InputError
from danet.files import check_new, make_folder, write_atomically, write_json
from danet.predict import overlay as draw
from danet.predict.outputs import OUTPUTS, Kind, check_confidence, output_paths
from danet.predict.resampling import tiles
from danet.predict.settings import Settings

_CHUNK = 1 << 20  # pixels counted at once


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The class of each pixel of an image.

    Notebooks show the overlay. Two segmentations are equal only if they are the same object: compare their `labels`.

    Args:
        name: the image's file name without suffix; "image" for an array or a Pillow image.
        image: H,W,3 uint8 RGB, or the bands that the network takes; see `danet.data.images.channels`.
        labels: H,W uint8 train ids.
        confidence: H,W float32, the probability of each pixel's class, in [0, 1].
        classes: names and palette, by train id.
        min_confidence: see `with_unknown`; None: each pixel has the label of its most probable class.
        compute_probabilities: returns `probabilities`; None: they cannot be computed.
        settings: with which it was made, which `save` records; None: not known.
        most_probable: H,W uint8, the labels before `with_unknown`; None: `labels`.
        no_data: number of pixels without data, see `without_data`; their label is 255.
    """

    name: str
    image: np.ndarray
    labels: np.ndarray
    confidence: np.ndarray
    classes: Classes
    min_confidence: float | None = None
    compute_probabilities: Callable[[], np.ndarray] | None = None
    settings: Settings | None = None
    most_probable: np.ndarray | None = None
    no_data: int = 0

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: not the network that computes the probabilities."""
        return self.__dict__ | {"compute_probabilities": None}

    def __repr__(self) -> str:
        height, width = self.labels.shape
        largest = self.shares()[:3]
        shares = ", ".join(f"{self.classes.names[i]} {draw.share_text(share, 0)}" for i, share in largest)
        return f"Segmentation({self.name!r}, {width} x {height}{': ' if shares else ''}{shares})"

    @cached_property
    def probabilities(self) -> np.ndarray:
        """The probability of each class at each pixel, K,H,W float32 in [0, 1]; over the classes, they sum to 1.

        They are computed when they are first used, which runs the network on the image again, and are then kept: 4 K H
        W bytes, 44 MB for 11 classes and a million pixels. `del segmentation.probabilities` frees them.

        Raises:
            InputError: too little memory; the segmentation was not made by a `Predictor` of this process.
        """
        if self.compute_probabilities is None:
            what = "unknown: this segmentation was loaded, or made of labels"
            raise InputError("probabilities", what, "use the segmentation that the predictor returned")
        return self.compute_probabilities()

    @cached_property
    def margin(self) -> np.ndarray:
        """How much more probable each pixel's class is than the second most probable one, H,W float32 in [0, 1].

        A small margin means that the network hesitates between two classes. It is computed from `probabilities`.
        """
        height, width = self.labels.shape
        margin = np.empty((height, width), np.float32)
        for tile in tiles(height, width, len(self.probabilities)):  # sorting the whole would double the memory
            ordered = np.sort(self.probabilities[:, *tile], axis=0)
            margin[tile] = ordered[-1] - ordered[-2] if len(ordered) > 1 else ordered[-1]
        return margin

    def with_unknown(self, min_confidence: float) -> "Segmentation":
        """Return this segmentation with label 255, unknown, at the pixels whose confidence is below `min_confidence`.

        An earlier limit is replaced.

        Raises:
            InputError: a confidence that is not from 0 to 1.
        """
        check_confidence(min_confidence)
        own = self.labels if self.most_probable is None else self.most_probable
        labels = np.where(self.confidence < min_confidence, np.uint8(IGNORE), own)
        compute = None if self.compute_probabilities is None else lambda: self.probabilities
        return replace(
            self, labels=labels, min_confidence=min_confidence, most_probable=own, compute_probabilities=compute
        )

    def without_data(self, missing: Bool[np.ndarray, "H W"] | None) -> "Segmentation":
        """Return this segmentation with label 255 where a raster has no data; see `geotiff.read_missing`.

        Args:
            missing: where there is none; None: nowhere. Call it before `with_unknown`.
        """
        if missing is None or not missing.any():
            return self
        labels = np.where(missing, np.uint8(IGNORE), self.labels)
        compute = None if self.compute_probabilities is None else lambda: self.probabilities
        return replace(self, labels=labels, no_data=int(missing.sum()), compute_probabilities=compute)

    @property
    def unknown(self) -> float:
        """The share of the image's pixels whose class is unknown, see `with_unknown`."""
        return 0.0 if self.min_confidence is None else float((self.labels == IGNORE).mean()) - self._no_data

    @property
    def _no_data(self) -> float:
        return self.no_data / self.labels.size

    def shares(self) -> list[tuple[int, float]]:
        """Return (train id, share) of each class in the image, largest first.

        With `unknown` and the share of the pixels without data, they sum to 1.
        """
        known = 1 - self.unknown - self._no_data
        return [(i, share * known) for i, share in class_shares(self.labels, self.classes)]

    def _repr_png_(self) -> bytes:
        return draw.to_png(self.overlay())

    def overlay(self, opacity: float = draw.OPACITY) -> Image.Image:
        """Return the image blended with its classes' colors, with a legend of their names and shares.

        Images of at most 128 pixels are enlarged by a whole number.
        """
        image, labels = self.image, self.labels
        if (factor := draw.enlargement(labels.shape)) > 1:
            image, labels = (array.repeat(factor, 0).repeat(factor, 1) for array in (image, labels))
        return draw.with_legend(draw.overlay(image, labels, self.classes, opacity), self.legend(opacity))

    def legend(self, opacity: float = draw.OPACITY) -> list[tuple[str, Color]]:
        """Return the entries of the overlay's legend: names and shares of the classes, and colors as in the overlay."""
        colors = draw.class_colors(self.image, self.labels, self.classes, opacity)
        entries = draw.share_legend(self.classes, self.shares(), colors)
        others = {"unknown": self.unknown, "no data": self._no_data}
        color = colors.get(IGNORE, (0, 0, 0))
        return entries + [(f"{name}  {draw.share_text(share)}", color) for name, share in others.items() if share]

    @property
    def mean_confidence(self) -> float:
        """The mean of `confidence`. A low one is a sign of an image unlike those that the network was trained on."""
        return float(self.confidence.mean(dtype=np.float64))

    def summary(self) -> dict[str, Any]:
        """Return the image's name and size, and each class in it with share and mean confidence, largest first.

        After `with_unknown`, it also has the number and the share of the unknown pixels; and of those without data, if
        there are any.
        """
        entries = describe_classes(self.classes, self.shares())
        counts = _sums(self.labels)
        sums = _sums(self.labels, self.confidence)
        for entry in entries:
            entry["mean_confidence"] = float(sums[entry["id"]] / counts[entry["id"]])
        summary = {"name": self.name, "width": self.labels.shape[1], "height": self.labels.shape[0], "classes": entries}
        if self.min_confidence is not None:
            summary["unknown"] = {
                "min_confidence": self.min_confidence,
                "pixels": int(counts[IGNORE]) - self.no_data,
                "share": self.unknown,
            }
        if self.no_data:
            summary["no_data"] = {"pixels": self.no_data, "share": self._no_data}
        return summary

    def record(self, files: Sequence[str], kind: Kind = "image") -> dict[str, Any]:
        """Return what NAME.json holds: the summary, the settings if they are known, and the files written with it.

        Args:
            files: the ends of their names.
            kind: of the image.
        """
        settings = {} if self.settings is None else {"settings": self.settings.entry(kind)}
        return self.summary() | settings | {"files": list(files)}

    def save(self, folder: Path | str, overwrite: bool = False) -> list[Path]:
        """Write NAME_overlay.png, NAME_labels.png (palette image of train ids) and NAME.json, and return their paths.

        Each file is written completely or not at all, the JSON last. It has the summary and what `record` adds.

        Raises:
            InputError: a file exists and `overwrite` is False; the folder cannot be written to; the disk is full.
        """
        overlay, labels, summary = paths = output_paths(Path(folder), self.name)
        check_new(*paths, overwrite=overwrite)
        make_folder(Path(folder))
        files = OUTPUTS["image"]
        write_atomically(overlay, draw.to_png(self.overlay(), files), overwrite)
        write_atomically(labels, self.label_png(files), overwrite)
        write_json(summary, self.record(files), overwrite)
        return paths

    def label_png(self, files: Sequence[str] = ()) -> bytes:
        """Return the labels as a palette image; `files` as in `overlay.to_png`."""
        return draw.to_png(draw.label_image(self.labels, self.classes), files)


class Prediction(NamedTuple):
    """A sample of a dataset and its prediction at the image's own size.

    Args:
        sample: image and ground truth.
        labels: train ids.
        confidence: the probability of each pixel's class, in [0, 1].
    """

    sample: Sample
    labels: UInt8[np.ndarray, "H W"]
    confidence: Float32[np.ndarray, "H W"]


def class_shares(labels: np.ndarray, classes: Classes) -> list[tuple[int, float]]:
    """Return (train id, share of the valid pixels) of each class in the labels, largest share first."""
    return shares_of_counts(_sums(labels)[: len(classes)])


def _sums(labels: np.ndarray, values: np.ndarray | None = None) -> np.ndarray:
    """Return the sum of the values at each label, 256, or the number of pixels; in bounded memory."""
    sums = np.zeros(256, np.int64 if values is None else np.float64)
    flat, weights = labels.reshape(-1), None if values is None else values.reshape(-1)
    for start in range(0, flat.size, _CHUNK):
        part = slice(start, start + _CHUNK)
        sums += np.bincount(flat[part], None if weights is None else weights[part], 256)
    return sums


def shares_of_counts(counts: Integer[np.ndarray, " K"]) -> list[tuple[int, float]]:
    """Return (train id, share of the total) of each class with a count above 0, largest first."""
    order = np.argsort(-counts, kind="stable")
    return [(int(i), float(counts[i] / counts.sum())) for i in order if counts[i]]


def describe_classes(classes: Classes, shares: Iterable[tuple[int, float]]) -> list[dict[str, Any]]:
    """Return {"name", "id", "share"} of each (train id, share), for JSON."""
    return [{"name": classes.names[i], "id": i, "share": share} for i, share in shares]
