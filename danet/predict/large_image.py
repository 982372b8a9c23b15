"""Images too large to be held: read by rows through rasterio, shown to the network in overlapping windows at their
own resolution, blended, and written as they come. Command: `danet predict big.tif`, for a TIFF, PNG or JPEG of more
than `MAX_PIXELS`.

A pixel's probabilities are the mean of those of the windows that see it, each weighted by how far the pixel lies from
the window's border; so there is no seam where one window ends. Memory is bounded whatever the image's size: its
columns are taken in stripes, and of a stripe one row of windows is held. Windows on the border of two stripes are
computed for both.
"""

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, UInt8

from danet.data.images.channels import as_rgb
from danet.data.images.geotiff import BLOCK, Read, check_whole, created, opened_rows, reader, writing
from danet.data.images.pillow import regular_file
from danet.errors import InputError
from danet.files import atomic_path, check_new, make_folder, write_atomically
from danet.predict import overlay
from danet.predict.folder import Saved
from danet.predict.inference import scores
from danet.predict.predictor import Predictor, output_paths
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.window_layout import spans

WINDOW = 512
"""The windows' side where the card names no size."""

_HELD = 128 << 20  # bytes of probabilities in a row of windows, if two windows fit
_OVERVIEW = 2000


class Block(NamedTuple):
    """A part of a huge image: where it is, its pixels, train ids, and the probability of each."""

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
    window: int | None = None,
    overlap: int | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Saved:
    """Write NAME_labels.tif (train ids with the classes' colors, tiled, with the image's coordinate system and
    transform), NAME_overlay.png (the whole, at most 2,000 pixels long) and NAME.json.

    Args:
        protocol: how the whole image is shown: one way for such images, WHOLE.
        window: side of the windows in pixels; None: the size that the network was trained at.
        overlap: of neighboring windows, in pixels; None: a quarter of the window.
        advance: told (windows done, windows in all).

    Raises:
        InputError: no such image, or not one with the network's bands in 8 or 16 bits; one that cannot be read by
            rows; rasterio is not installed; results that cannot be written.
    """
    if protocol != WHOLE:
        raise InputError(
            "--protocol", f"none but whole can be followed for an image as large as {path}", "leave it out"
        )
    window = predictor.card.size or WINDOW if window is None else window
    overlap = window // 4 if overlap is None else overlap
    if not 0 <= overlap < window:
        raise InputError("window", f"{window} pixels that overlap by {overlap}", "give an overlap below the window")
    paths = output_paths(out, path.stem, "huge")
    if not overwrite:
        check_new(*paths)
    with ExitStack() as stack:
        source = stack.enter_context(opened_rows(stack.enter_context(regular_file(path)), path))
        make_folder(out)
        size = source.height, source.width
        blocks = segment_blocks(predictor, reader(source, predictor.card.bands, path), size, window, overlap, advance)
        tally = _Tally(path.stem, predictor, size)
        with writing(paths[1]), atomic_path(paths[1]) as temporary:
            with created(temporary, source, predictor.classes) as labels:
                for block in blocks:
                    place = (block.rows.start, block.rows.stop), (block.columns.start, block.columns.stop)
                    labels.write(block.labels, 1, window=place)
                    tally.add(block)
            check_whole(temporary, tally.pixels)
        summary = tally.summary() | {"window": window, "overlap": overlap}
        write_atomically(paths[0], overlay.to_png(tally.overview()))
        write_atomically(paths[2], (json.dumps(summary, indent=2) + "\n").encode())
    return Saved(paths, summary)


def segment_blocks(
    predictor: Predictor,
    read: Read,
    size: tuple[int, int],
    window: int,
    overlap: int,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Block]:
    """The blended labels of an image of `size` H, W, which together cover each pixel once."""
    rows, stripes = _weighted(size[0], window, overlap), _stripes(size[1], window, overlap, len(predictor.classes))
    total, done = len(rows) * sum(len(windows) for _, windows in stripes), 0
    for columns, windows in stripes:
        left, right = windows[0][0].start, windows[-1][0].stop
        held = torch.zeros(len(predictor.classes), min(window, size[0]), right - left)  # K,h,w: one row of windows
        for i, (span, weights) in enumerate(rows):
            pixels = read(slice(span.start, span.stop), slice(left, right))
            for across, share in windows:
                part = slice(across.start - left, across.stop - left)
                _add(predictor, pixels[:, part], weights, share, held[:, :, part])
                advance(done := done + 1, total)
            ready = (rows[i + 1][0].start if i + 1 < len(rows) else size[0]) - span.start
            own = slice(columns.start - left, columns.stop - left)
            best, index = held[:, :ready, own].max(dim=0)
            labels, confidence = index.to(torch.uint8).numpy(), best.clamp(max=1).numpy()
            yield Block(slice(span.start, span.start + ready), columns, pixels[:ready, own], labels, confidence)
            kept = held[:, ready:].clone()
            held[:, : kept.shape[1]] = kept
            held[:, kept.shape[1] :] = 0


@torch.inference_mode()
def _add(
    predictor: Predictor, pixels: np.ndarray, down: torch.Tensor, across: torch.Tensor, held: torch.Tensor
) -> None:
    """Add a window's weighted probabilities."""
    card, shown = predictor.card, predictor.shown_by(WHOLE)
    for rows, band in scores(predictor.logits, pixels, card.mean, card.std, predictor.device, None, shown):
        weighted = torch.softmax(band, dim=0).cpu() * across  # K,n,w
        held[:, rows].addcmul_(weighted, down[rows, None])


def _weighted(side: int, window: int, overlap: int) -> list[tuple[range, torch.Tensor]]:
    """The windows along an axis, each with the weight of its pixels; over all windows a pixel's weights sum to 1."""
    covers = spans(side, window, (window - overlap) / window, "shifted")
    ramps, sums = [], np.zeros(side)
    for cover in covers:
        inside = np.minimum(np.arange(len(cover)), np.arange(len(cover))[::-1]) + 0.5
        ramp = np.sin(math.pi / 2 * np.minimum(1, inside / max(overlap, 0.5))) ** 2
        ramps.append(ramp)
        sums[cover.start : cover.stop] += ramp
    return [
        (cover, torch.from_numpy((ramp / sums[cover.start : cover.stop]).astype(np.float32)))
        for cover, ramp in zip(covers, ramps, strict=True)
    ]


def _stripes(
    side: int, window: int, overlap: int, classes: int
) -> list[tuple[slice, list[tuple[range, torch.Tensor]]]]:
    """The columns cut into stripes that can be held, whole tiles of the output, each with all windows that see it."""
    windows = _weighted(side, window, overlap)
    most = _HELD // (4 * classes * window) - 2 * window  # a window may stand out at either side
    step = max(1, window // BLOCK, most // BLOCK) * BLOCK
    stripes = []
    for start in range(0, side, step):
        columns = slice(start, min(start + step, side))
        seen = [(cover, share) for cover, share in windows if cover.start < columns.stop and cover.stop > columns.start]
        stripes.append((columns, seen))
    return stripes


class _Tally:
    """Counts of the classes, and every so many-th pixel for the overview."""

    def __init__(self, name: str, predictor: Predictor, size: tuple[int, int]):
        self.name, self.classes, self.size = name, predictor.classes, size
        self.pixels = np.zeros(len(self.classes), np.int64)
        self._confidence = np.zeros(len(self.classes))
        self._step = math.ceil(max(size) / _OVERVIEW)
        small = [math.ceil(side / self._step) for side in size]
        self._image, self._labels = np.zeros((*small, 3), np.uint8), np.zeros(small, np.uint8)

    def add(self, block: Block) -> None:
        labels = block.labels.ravel()
        self.pixels += np.bincount(labels, minlength=len(self.classes))
        self._confidence += np.bincount(labels, block.confidence.ravel(), minlength=len(self.classes))
        first = [-span.start % self._step for span in (block.rows, block.columns)]
        cut = tuple(slice(start, None, self._step) for start in first)
        place = tuple(
            slice(math.ceil(span.start / self._step), math.ceil(span.stop / self._step))
            for span in (block.rows, block.columns)
        )
        self._labels[place], self._image[place] = block.labels[cut], as_rgb(block.pixels[cut])

    def summary(self) -> dict:
        """As `Segmentation.summary` gives it."""
        found = [
            {
                "name": self.classes.names[i],
                "id": int(i),
                "share": float(self.pixels[i] / self.pixels.sum()),
                "mean_confidence": float(self._confidence[i] / self.pixels[i]),
            }
            for i in np.argsort(-self.pixels, kind="stable")
            if self.pixels[i]
        ]
        return {"name": self.name, "width": self.size[1], "height": self.size[0], "classes": found}

    def overview(self):
        """The image and its labels in small, with a legend of the shares in the whole."""
        entries = [
            (f"{found['name']}  {found['share']:.1%}", self.classes.palette[found["id"]])
            for found in self.summary()["classes"]
        ]
        return overlay.with_legend(overlay.overlay(self._image, self._labels, self.classes), entries)
