"""Segment images that are too large to load: a TIFF, PNG or JPEG of more than `MAX_PIXELS` pixels.

The image is read in parts through rasterio, and the results are written as they are computed. Its scale is what the
rule in the weights says: as smaller images, it is resized to the size in the card and segmented as a whole; or, with a
card without a size or from before the rule, it is segmented in overlapping windows at its own resolution, whose results
are blended. Command: `danet predict big.tif`.

A pixel's probabilities are the mean over the windows that contain it, weighted by the pixel's distance from each
window's border, so that no seams appear. Memory is bounded whatever the image's size: its columns are divided into
stripes, and one row of windows of a stripe is held. Windows on the border of two stripes are computed for both.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from danet.arrays import Array, largest, softmax, to_numpy, without_gradients
from danet.data.classes import IGNORE
from danet.data.images.channels import as_rgb, resize
from danet.data.images.geotiff import (
    BLOCK,
    ReadWindow,
    create_labels,
    has_coordinates,
    missing_reader,
    open_raster,
    verify_labels,
    window_reader,
    write_errors,
)
from danet.data.images.pillow import regular_file
from danet.errors import InputError
from danet.files import atomic_path, check_new, make_folder, write_atomically, write_json
from danet.model.preprocess import normalize
from danet.predict import overlay
from danet.predict.folder import Saved
from danet.predict.georeferenced import write_polygons
from danet.predict.inference import Inference, check_numbers, on_device
from danet.predict.job import Job
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import describe_classes, shares_of_counts
from danet.predict.sliding_window import spans, upsampled

WINDOW = 512
"""Side of the windows if the card specifies no size."""

_HELD = 128 << 20  # maximum bytes of probabilities in a row of windows, unless two windows need more
_OVERVIEW = 2000
_MARGIN = 2  # an image is averaged down to at least this many times its long side at the network's input, then resized
_READ = 1 << 23  # pixels read at once

Weighted = list[tuple[range, np.ndarray]]
"""The windows along an axis, each with the weights of its pixels."""


class Block(NamedTuple):
    """A part of a large image: its position, pixels, labels and confidence."""

    rows: slice
    columns: slice
    pixels: np.ndarray
    labels: UInt8[np.ndarray, "n m"]
    confidence: Float32[np.ndarray, "n m"]


def segment_file(
    predictor: Predictor,
    path: Path,
    out: Path,
    overwrite: bool = False,
    protocol: Protocol = WHOLE,
    size: int | None = None,
    overlap: int | None = None,
    polygons: bool = False,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Saved:
    """Segment a large image and write NAME_labels.tif, NAME_overlay.png, NAME.json and, if asked for, NAME.geojson.

    The labels are a tiled TIFF of train ids with the classes' colors, the image's coordinate system and transform. The
    overlay shows the whole image in at most 2,000 pixels along each side.

    Args:
        predictor: the network.
        path: the image.
        out: folder of the results.
        overwrite: replace files that exist.
        protocol: must be WHOLE.
        size: the image's long side in pixels at the network's input, or the side of the windows; None: that of the
            card.
        overlap: overlap of neighboring windows in pixels; None: a quarter of the window.
        polygons: whether polygons of the classes are written; see `write_polygons`.
        advance: called with (windows done, total).

    Raises:
        InputError: a missing or damaged image, one with other bands than the network takes or that cannot be read in
            parts; rasterio is not installed; results that cannot be written; another protocol.
    """
    if protocol != WHOLE:
        what = f"only whole is supported for an image as large as {path}"
        raise InputError("protocol", what, "leave it out")
    predictor = predictor if size is None else predictor.with_size(size)
    long_side = predictor.card.size or WINDOW
    whole = predictor.card.scale_rule == "size" and predictor.card.size is not None
    overlap = long_side // 4 if overlap is None else overlap
    if not 0 <= overlap < long_side:
        what = f"must be below the window's {long_side} pixels, got {overlap}"
        raise InputError("overlap", what, "use a smaller overlap")
    job = Job(path, out, path.stem, "large", overwrite=overwrite, polygons=polygons)
    overlay_path, labels_path, *_, json_path = job.paths
    check_new(*job.paths, overwrite=overwrite)
    with ExitStack() as stack:
        source = stack.enter_context(open_raster(stack.enter_context(regular_file(path)), path))
        read = window_reader(source, predictor.card.bands, path)
        missing = missing_reader(source, path) if has_coordinates(path) else None
        make_folder(out)
        shape = source.height, source.width
        if whole:
            blocks = segment_shrunk(predictor, read, shape, long_side, advance)
        else:
            blocks = segment_blocks(predictor, read, shape, long_side, overlap, advance)
        record = _Record(path.stem, predictor, shape)
        with write_errors(labels_path), atomic_path(labels_path, overwrite) as temporary:
            with create_labels(temporary, source, predictor.classes) as labels:
                for computed in blocks:
                    block = computed if missing is None else _without_data(computed, missing)
                    place = (block.rows.start, block.rows.stop), (block.columns.start, block.columns.stop)
                    labels.write(block.labels, 1, window=place)
                    record.add(block)
            verify_labels(temporary, record.pixels)
            write_atomically(overlay_path, overlay.to_png(record.overview(), job.suffixes), overwrite)
        summary = record.summary() | ({"long_side": long_side} if whole else {"window": long_side, "overlap": overlap})
        summary |= {"settings": predictor.settings(protocol).entry("large"), "files": job.suffixes}
        if polygons:
            write_polygons(labels_path, job.paths[2], predictor.classes, overwrite)
        write_json(json_path, summary, overwrite)
    return Saved(job.paths, summary)


def _without_data(block: Block, missing: ReadWindow) -> Block:
    """Return a block with label 255 where the image has no data."""
    labels = np.where(missing(block.rows, block.columns), np.uint8(IGNORE), block.labels)
    return block._replace(labels=labels)


def segment_blocks(
    predictor: Predictor,
    read: ReadWindow,
    size: tuple[int, int],
    window: int,
    overlap: int,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Block]:
    """Yield the labels of an image in blocks that together cover each pixel once.

    Args:
        predictor: the network.
        read: reads the pixels of some rows and columns.
        size: height and width of the image.
        window: side of the windows in pixels.
        overlap: overlap of neighboring windows in pixels.
        advance: called with (windows done, total).
    """
    rows, stripes = _weighted(size[0], window, overlap), _stripes(size[1], window, overlap, len(predictor.classes))
    total, done = len(rows) * sum(len(windows) for _, windows in stripes), 0
    for columns, windows in stripes:
        left, right = windows[0][0].start, windows[-1][0].stop
        shape = len(predictor.classes), min(window, size[0]), right - left
        held = np.zeros(shape, np.float32)  # K,h,w: one row of windows
        for i, (span, weights) in enumerate(rows):
            pixels = read(slice(span.start, span.stop), slice(left, right))
            for across, share in windows:
                part = slice(across.start - left, across.stop - left)
                _add(predictor, pixels[:, part], weights, share, held[:, :, part])
                advance(done := done + 1, total)
            ready = (rows[i + 1][0].start if i + 1 < len(rows) else size[0]) - span.start
            own = slice(columns.start - left, columns.stop - left)
            best, labels = largest(held[:, :ready, own])
            check_numbers(best)
            place = slice(span.start, span.start + ready)
            yield Block(place, columns, pixels[:ready, own], labels, best.clip(max=1))
            kept = held[:, ready:].copy()
            held[:, : kept.shape[1]] = kept
            held[:, kept.shape[1] :] = 0


def segment_shrunk(
    predictor: Predictor,
    read: ReadWindow,
    size: tuple[int, int],
    long_side: int,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Block]:
    """Yield the labels of an image that is resized as a whole, as `Predictor` does with smaller ones; see `Block`.

    Args:
        predictor: the network.
        read: reads the pixels of some rows and columns.
        size: height and width of the image.
        long_side: its long side at the network's input.
        advance: called with (rows done, total): each row is read, and then written.
    """
    factor = max(1, max(size) // (_MARGIN * long_side))
    reduced = _reduced(read, size, factor, lambda row: advance(row, 2 * size[0]))
    height, width = (max(1, round(side * long_side / max(size))) for side in size)
    small = resize(reduced, (height, width), (0, 0, size[1] / factor, size[0] / factor))
    logits = _logits(predictor, small)
    for rows, columns, scores in upsampled(logits[0], (height, width), size, predictor.network.align_corners):
        best, labels = largest(softmax(scores))
        check_numbers(best)
        near = np.ix_(*(np.arange(part.start, part.stop) // factor for part in (rows, columns)))
        yield Block(rows, columns, reduced[near], to_numpy(labels).astype(np.uint8), to_numpy(best.clip(max=1)))
        advance(size[0] + rows.stop, 2 * size[0])


@without_gradients
def _logits(predictor: Predictor, pixels: np.ndarray) -> Array:
    card = predictor.card
    return predictor.logits(normalize(on_device(pixels[None], predictor.device), card.mean, card.std))


def _reduced(read: ReadWindow, size: tuple[int, int], factor: int, advance: Callable[[int], None]) -> np.ndarray:
    """Return the means of squares of `factor` pixels of an image; those at its right and bottom may be smaller."""
    height, width = (math.ceil(side / factor) for side in size)
    across = max(1, _READ // factor**2) * factor
    down = max(1, _READ // (min(across, size[1]) * factor)) * factor
    reduced: np.ndarray | None = None
    for top in range(0, size[0], down):
        for left in range(0, size[1], across):
            pixels = read(slice(top, min(top + down, size[0])), slice(left, min(left + across, size[1])))
            starts = [np.arange(0, side, factor) for side in pixels.shape[:2]]
            sums = np.add.reduceat(np.add.reduceat(pixels, starts[0], 0, np.float64), starts[1], 1)
            counts = [np.diff([*own, side]) for own, side in zip(starts, pixels.shape[:2], strict=True)]
            means = sums / np.outer(*counts)[..., None]
            if reduced is None:
                reduced = np.empty((height, width, pixels.shape[2]), pixels.dtype)
            place = (
                slice(top // factor, top // factor + len(means)),
                slice(left // factor, left // factor + means.shape[1]),
            )
            reduced[place] = means.round() if pixels.dtype == np.uint8 else means
        advance(min(top + down, size[0]))
    assert reduced is not None
    return reduced


@without_gradients
def _add(predictor: Predictor, pixels: np.ndarray, down: np.ndarray, across: np.ndarray, held: np.ndarray) -> None:
    """Add a window's weighted probabilities."""
    card, protocol = predictor.card, predictor.resolve_protocol(WHOLE)
    inference = Inference(predictor.logits, card.mean, card.std, predictor.device, None, protocol)
    for rows, columns, scores in inference.scores(pixels):
        weighted = to_numpy(softmax(scores)) * across[columns]  # K,n,m
        held[:, rows, columns] += weighted * down[rows, None]


def _weighted(side: int, window: int, overlap: int) -> Weighted:
    """Return the windows along an axis, each with the weights of its pixels; each pixel's weights sum to 1."""
    covers = spans(side, window, (window - overlap) / window, "shifted")
    ramps, sums = [], np.zeros(side)
    for cover in covers:
        inside = np.minimum(np.arange(len(cover)), np.arange(len(cover))[::-1]) + 0.5
        ramp = np.sin(math.pi / 2 * np.minimum(1, inside / max(overlap, 0.5))) ** 2
        ramps.append(ramp)
        sums[cover.start : cover.stop] += ramp
    return [
        (cover, (ramp / sums[cover.start : cover.stop]).astype(np.float32))
        for cover, ramp in zip(covers, ramps, strict=True)
    ]


def _stripes(side: int, window: int, overlap: int, classes: int) -> list[tuple[slice, Weighted]]:
    """Divide the columns into stripes of whole tiles that fit into memory, each with the windows that overlap it."""
    windows = _weighted(side, window, overlap)
    limit = _HELD // (4 * classes * window) - 2 * window  # a window may extend beyond either side
    step = max(1, window // BLOCK, limit // BLOCK) * BLOCK
    stripes = []
    for start in range(0, side, step):
        columns = slice(start, min(start + step, side))
        inside = [(span, share) for span, share in windows if span.start < columns.stop and span.stop > columns.start]
        stripes.append((columns, inside))
    return stripes


class _Record:
    """Counts of the classes, and every n-th pixel for the overview."""

    def __init__(self, name: str, predictor: Predictor, size: tuple[int, int]):
        self.name, self.classes, self.size = name, predictor.classes, size
        self.pixels, self._confidence = np.zeros(256, np.int64), np.zeros(256)  # by label; 255: no data
        self._step = math.ceil(max(size) / _OVERVIEW)
        small = [math.ceil(side / self._step) for side in size]
        self._image, self._labels = np.zeros((*small, 3), np.uint8), np.zeros(small, np.uint8)

    def add(self, block: Block) -> None:
        labels = block.labels.ravel()
        self.pixels += np.bincount(labels, minlength=256)
        self._confidence += np.bincount(labels, block.confidence.ravel(), minlength=256)
        first = [-span.start % self._step for span in (block.rows, block.columns)]
        cut = tuple(slice(start, None, self._step) for start in first)
        place = tuple(
            slice(math.ceil(span.start / self._step), math.ceil(span.stop / self._step))
            for span in (block.rows, block.columns)
        )
        self._labels[place], self._image[place] = block.labels[cut], as_rgb(block.pixels[cut])

    def _shares(self) -> list[tuple[int, float]]:
        known = 1 - self._no_data
        return [(i, share * known) for i, share in shares_of_counts(self.pixels[: len(self.classes)])]

    @property
    def _no_data(self) -> float:
        return float(self.pixels[IGNORE] / self.pixels.sum())

    def summary(self) -> dict[str, Any]:
        """Return the same entries as `Segmentation.summary`."""
        entries = describe_classes(self.classes, self._shares())
        for entry in entries:
            entry["mean_confidence"] = float(self._confidence[entry["id"]] / self.pixels[entry["id"]])
        missing = {"pixels": int(self.pixels[IGNORE]), "share": self._no_data}
        summary = {"name": self.name, "width": self.size[1], "height": self.size[0], "classes": entries}
        return summary | ({"no_data": missing} if self.pixels[IGNORE] else {})

    def overview(self) -> Image.Image:
        """Return the downsampled overlay, with the classes' shares of the whole image in the legend."""
        colors = overlay.class_colors(self._image, self._labels, self.classes)
        legend = overlay.share_legend(self.classes, self._shares(), colors)
        if self.pixels[IGNORE]:
            legend.append((f"no data  {overlay.share_text(self._no_data)}", colors.get(IGNORE, (0, 0, 0))))
        return overlay.with_legend(overlay.overlay(self._image, self._labels, self.classes), legend)
