"""Draw the worst and best images: ground truth, prediction, errors, and the attention of the most confident error."""

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from danet.data.classes import IGNORE, Classes
from danet.data.images.channels import as_rgb
from danet.data.samples import Samples
from danet.evaluate.confusion import Confusion
from danet.evaluate.per_image import ImageScores
from danet.evaluate.predicted_files import PredictedFiles
from danet.predict import overlay
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE, Protocol
from danet.predict.segmentation import Prediction
from danet.visualize.html import data_uri, encoded, escape, percent, swatch

WORST, BEST = 4, 2
"""Numbers of images drawn."""

_SIDES = (560, 400, 280, 160, 80)  # long sides in pixels; the first that fits into _BYTES is used
_BYTES = 80_000  # 5 drawings of each of 6 images, a third more in base64: at most 3.2 MB
_WRONG, _CHIPS = (213, 94, 0), 12


def choose(rows: Sequence[ImageScores]) -> tuple[list[int], list[int]]:
    """Return the indices of the images with the lowest mIoU, worst first, and with the highest, best first.

    No image is in both. Images without labeled pixels are in neither.
    """
    order = sorted((row.miou, i) for i, row in enumerate(rows) if not math.isnan(row.miou))
    worst = [i for _, i in order[:WORST]]
    return worst, [i for _, i in reversed(order[len(worst) :][-BEST:])]


def drawn(
    source: Predictor | PredictedFiles, samples: Samples, rows: Sequence[ImageScores], protocol: Protocol = WHOLE
) -> str:
    """Predict the worst and best images again, and return their drawings as HTML.

    Args:
        source: the network, or the files of its predictions.
        samples: all images.
        rows: scores of all samples, in their order.
        protocol: the one by which they were evaluated.
    """
    parts = []
    for title, indices in zip(("Worst", "Best"), choose(rows), strict=True):
        files = isinstance(source, PredictedFiles)
        predictions = source.predictions(indices) if files else source.predictions(samples, protocol, indices)
        for place, (index, prediction) in enumerate(zip(indices, predictions, strict=True), 1):
            row = rows[index]
            parts.append(f"<h3>{title} {place}: {escape(row.name)}, mIoU {percent(row.miou, 1, '%')}</h3>")
            parts.append(_image(source, prediction, row))
    return "".join(parts)


def bounded_uri(image: Image.Image, flat: bool) -> str:
    """Return an image as the address of an <img>, downsized until it has at most 80 kB.

    Args:
        image: the image.
        flat: it has few colors, so that PNG is used; otherwise JPEG.
    """
    resample = Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS
    content = b""
    for side in _SIDES:
        factor = min(1.0, side / max(image.size))
        small = image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))), resample)
        content = encoded(small, "PNG", optimize=True) if flat else encoded(small, "JPEG", quality=82, subsampling=0)
        if len(content) <= _BYTES:
            break
    return data_uri(content)


def hatched(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Draw gray stripes where `where` is True; their width is proportional to the image's size."""
    y, x = np.indices(where.shape)
    width = max(3, round(max(where.shape) / 90))
    stripes = np.where((x + y) // width % 2, np.uint8(120), np.uint8(165))
    return np.where(where[..., None], stripes[..., None], image)


def _image(source: Predictor | PredictedFiles, prediction: Prediction, row: ImageScores) -> str:
    sample, labels, _ = prediction
    classes = source.classes if isinstance(source, Predictor) else source.samples.classes
    image, valid = as_rgb(sample.image), sample.labels != IGNORE
    wrong = valid & (labels != sample.labels)
    everywhere = np.ones_like(valid)
    figures = [
        _figure(Image.fromarray(image), "image"),
        _figure(_labels(sample.labels, valid, classes), "ground truth", flat=True),
        _figure(_labels(labels, everywhere, classes), "prediction", flat=True),
        _figure(_errors(image, wrong, valid), f"wrong pixels: {percent(1 - row.pixel_accuracy)}%"),
    ]
    if isinstance(source, Predictor) and "position" in source.attention_modules and wrong.any():
        figures.append(_attention(source, prediction, wrong))
    scores = f"<p>IoU in this image, %:</p>{_chips(sample.labels, labels, classes)}"
    return f'<div class="drawings">{"".join(figures)}<div class="scores">{scores}</div></div>'


def _figure(image: Image.Image, caption: str, flat: bool = False) -> str:
    attributes = f'alt="{caption.split(":")[0]}" width="{image.width}" height="{image.height}"'
    return f'<figure><img {attributes} src="{bounded_uri(image, flat)}"><figcaption>{caption}</figcaption></figure>'


def _labels(ids: np.ndarray, valid: np.ndarray, classes: Classes) -> Image.Image:
    return Image.fromarray(hatched(overlay.colored(ids, classes), ~valid))


def _errors(image: np.ndarray, wrong: np.ndarray, valid: np.ndarray) -> Image.Image:
    gray = np.asarray(Image.fromarray(image).convert("L"), np.float32)
    pale = np.repeat((0.6 * gray + 0.4 * 255)[..., None], 3, 2).astype(np.uint8)
    pale[wrong] = _WRONG
    return Image.fromarray(hatched(pale, ~valid))


def _chips(truth: np.ndarray, labels: np.ndarray, classes: Classes) -> str:
    """Return the classes of one image, largest first, with color and IoU."""
    counts = Confusion(len(classes))
    counts.update(truth, labels)
    iou, pixels = counts.scores().iou, counts.matrix.sum(0) + counts.matrix.sum(1)
    order = [i for i in np.argsort(-pixels, kind="stable").tolist() if pixels[i]]
    chips = [
        f"<span>{swatch(classes.palette[i])}{escape(classes.names[i])} {percent(float(iou[i]), 0)}</span>"
        for i in order[:_CHIPS]
    ]
    more = [f"<span>and {len(order) - _CHIPS} more</span>"] if len(order) > _CHIPS else []
    return f'<div class="chips">{"".join(chips + more)}</div>'


def _attention(predictor: Predictor, prediction: Prediction, wrong: np.ndarray) -> str:
    """Draw the attention of the most confident wrong pixel, its row of Eq. 1, over the gray image."""
    sample, labels, confidence = prediction
    y, x = (int(at) for at in np.unravel_index(np.where(wrong, confidence, -1).argmax(), wrong.shape))
    inspection = predictor.inspect_pixels(sample.name, sample.image)
    weights = inspection.attention(x, y)
    mixed = Image.fromarray(overlay.heat_over(as_rgb(sample.image), inspection.interpolate(weights / weights.max())))
    radius = max(mixed.size) / 60
    pen = ImageDraw.Draw(mixed)
    for color, width in (("black", 0.5), ("white", 0.25)):
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), outline=color, width=round(width * radius) + 1)
    names = predictor.classes.names
    caption = (
        f"position attention: of the most confident wrong pixel, x={x}, y={y} (circle), "
        f"{escape(names[sample.labels[y, x]])} predicted as {escape(names[labels[y, x]])} with confidence "
        f"{confidence[y, x]:.3f}; the largest weight is {weights.max() * weights.size:.1f} times the mean; "
        f"alpha = {inspection.internals.scales['position']:.3f}"
    )
    return _figure(mixed, caption)
