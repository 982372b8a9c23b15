"""Build the bodies of responses: JSON, PNG images and packed arrays."""

import base64
import gzip
import json
from typing import Any

import numpy as np

from danet.model.dranet import AttentionNetwork
from danet.predict import overlay
from danet.predict.attention import Inspection
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation, describe_classes
from danet.serve.image_store import StoredImage


def model_card(predictor: Predictor) -> dict[str, Any]:
    """Return the metadata of the weights as JSON values, and which attention modules can be inspected."""
    network = predictor.network
    known = isinstance(network, AttentionNetwork)
    modules = {
        "position": known and network.position is not None,
        "channel": known and network.channel is not None,
    }
    return json.loads(predictor.card.json()) | {"attention": modules}


def packed(values: np.ndarray) -> str:
    """Encode an array as base64 of little-endian float16 values in row-major order."""
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def labels_png(segmentation: Segmentation) -> bytes:
    """Encode the class ids as a palette PNG."""
    return overlay.to_png(overlay.label_image(segmentation.labels, segmentation.classes))


def overlay_png(segmentation: Segmentation) -> bytes:
    """Encode the image with its class colors and a legend as PNG."""
    return overlay.to_png(segmentation.overlay())


def pixels(segmentation: Segmentation) -> bytes:
    """Compress H*W class ids followed by H*W confidences (0 to 255), one byte each, with gzip."""
    confidence = (255 * segmentation.confidence).round().astype(np.uint8)
    return gzip.compress(segmentation.labels.tobytes() + confidence.tobytes(), 1)


def grid(inspection: Inspection) -> dict[str, float]:
    """Return the size of the feature grid, and the size of one cell in pixels of the image."""
    (rows, columns), (height, width) = inspection.grid, inspection.image.shape[:2]
    cell_height = inspection.stride * height / inspection.input_size[0]
    cell_width = inspection.stride * width / inspection.input_size[1]
    return {"height": rows, "width": columns, "cell_height": cell_height, "cell_width": cell_width}


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


def channels(inspection: Inspection, class_id: int, count: int) -> dict[str, Any]:
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
