"""Build the bodies of responses: JSON, PNG images and packed arrays."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from danet.predict import overlay
from danet.predict.modules import MODULES
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation, describe_classes
from danet.serve.image_store import StoredImage

if TYPE_CHECKING:
    from danet.predict.attention import Inspection


def model_card(predictor: Predictor) -> dict[str, Any]:
    """Return the metadata of the weights as JSON values, and which attention modules can be inspected."""
    modules = {name: name in predictor.attention_modules for name in MODULES}
    return json.loads(predictor.card.json()) | {"attention": modules}


def map_memory(inspection: "Inspection") -> int:
    """Return the memory of a map over the feature grid in JSON, for the budget: as base64, and encoded."""
    return 6 * inspection.internals.labels.size


def packed(values: np.ndarray) -> str:
    """Encode an array as base64 of little-endian float16 values in row-major order."""
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


class Encoding(NamedTuple):
    """A way to encode a segmentation, and the memory that this takes in bytes, for the budget."""

    encode: Callable[[Segmentation], bytes]
    memory: Callable[[Segmentation], int]


def _overlay_png(segmentation: Segmentation) -> bytes:
    return overlay.to_png(segmentation.overlay())


def _overlay_memory(segmentation: Segmentation) -> int:
    factor = overlay.enlargement(segmentation.labels.shape)
    height, width = (factor * side for side in segmentation.labels.shape)
    height, width = overlay.page_size((height, width), segmentation.legend())
    return 8 * height * width  # 4 for Pillow's image, 3 for the array or at most 3 for the PNG


def _pixels(segmentation: Segmentation) -> bytes:
    compress = zlib.compressobj(1, wbits=16 + zlib.MAX_WBITS)  # 16: the format of gzip
    labels, confidence = segmentation.labels.reshape(-1), segmentation.confidence.reshape(-1)
    parts = [compress.compress(labels.data)]
    for start in range(0, confidence.size, _CHUNK):
        part = (255 * confidence[start : start + _CHUNK]).round().astype(np.uint8)
        parts.append(compress.compress(part.data))
    return b"".join([*parts, compress.flush()])


_CHUNK = 1 << 20  # pixels

LABELS = Encoding(Segmentation.label_png, lambda segmentation: 3 * segmentation.labels.size)
"""The class ids as a palette PNG."""

OVERLAY = Encoding(_overlay_png, _overlay_memory)
"""The image with its class colors and a legend as PNG."""

PIXELS = Encoding(_pixels, lambda segmentation: 4 * segmentation.labels.size)
"""H*W class ids followed by H*W confidences (0 to 255), one byte each, compressed with gzip."""


def grid(inspection: "Inspection") -> dict[str, float]:
    """Return the size of the feature grid, and the size of one cell in pixels of the image."""
    (rows, columns), (height, width) = inspection.grid, inspection.image.shape[:2]
    cell_height = inspection.stride * height / inspection.input_size[0]
    cell_width = inspection.stride * width / inspection.input_size[1]
    return {"height": rows, "width": columns, "cell_height": cell_height, "cell_width": cell_width}


def contributions(inspection: "Inspection") -> dict[str, dict[str, float]]:
    """Return the scale of each attention module, and how much it adds to its input in this image, by its name."""
    internals = inspection.internals
    return {name: {"scale": internals.scales[name], **part._asdict()} for name, part in internals.contributions.items()}


def attention(image: StoredImage, x: int, y: int) -> dict[str, Any]:
    """Return the attention weights of one pixel, their sums by class, and the strongest positions.

    Raises:
        InputError: a pixel outside the image; a network without position attention.
    """
    inspection = image.inspection
    assert inspection is not None
    weights = inspection.attention(x, y)
    result = inspection.segmentation
    names, class_id = result.classes.names, int(result.labels[y, x])
    classes = describe_classes(result.classes, inspection.classes_attended(weights))
    return {
        "x": x,
        "y": y,
        "class": {"id": class_id, "name": names[class_id], "confidence": float(result.confidence[y, x])},
        "grid": grid(inspection),
        "weights": packed(weights),
        "classes": [entry | {"image_share": image.shares.get(entry["id"], 0.0)} for entry in classes],
        "strongest": [{"x": x, "y": y, "weight": weight} for x, y, weight in inspection.strongest(weights)],
    }


def channels(inspection: "Inspection", class_id: int, count: int) -> dict[str, Any]:
    """Return the channels that respond most to a class, and their maps.

    Raises:
        InputError: a class that covers all or none of the image; a network without channel attention.
    """
    numbers = inspection.channels_of(class_id, count)
    maps = zip(numbers, inspection.channel_maps(numbers), strict=True)
    return {
        "class": {"id": class_id, "name": inspection.segmentation.classes.names[class_id]},
        "channels": [{"channel": number, "map": packed(values)} for number, values in maps],
    }
