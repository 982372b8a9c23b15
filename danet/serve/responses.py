"""What the server's answers hold: results as JSON, PNG, and packed arrays."""

import base64
import gzip
import json
from typing import Any

import numpy as np

from danet.model.danet import DANet
from danet.predict import overlay
from danet.predict.attention import Seen
from danet.predict.predictor import Predictor, Segmentation


def card(predictor: Predictor) -> dict[str, Any]:
    """The network's card, and which modules can be looked into."""
    network = predictor.network
    known = isinstance(network, DANet)
    modules = {
        "position": known and network.position is not None,
        "channel": known and network.channel is not None,
    }
    return json.loads(predictor.card.json()) | {"attention": modules}


def packed(values: np.ndarray) -> str:
    """An array as base64 of little-endian float16, row by row."""
    return base64.b64encode(values.astype("<f2").tobytes()).decode()


def labels_png(segmentation: Segmentation) -> bytes:
    """The train ids as a palette image."""
    return overlay.to_png(overlay.label_image(segmentation.labels, segmentation.classes))


def overlay_png(segmentation: Segmentation) -> bytes:
    """The image under its classes' colors, with a legend."""
    return overlay.to_png(segmentation.overlay())


def pixels(segmentation: Segmentation) -> bytes:
    """Gzip of H*W train ids and then H*W confidences in 0..255, a byte each."""
    confidence = (255 * segmentation.confidence).round().astype(np.uint8)
    return gzip.compress(segmentation.labels.tobytes() + confidence.tobytes(), 1)


def grid(seen: Seen) -> dict[str, float]:
    """The feature grid: positions, and the image's pixels that one stands for."""
    (rows, columns), (height, width) = seen.grid, seen.image.shape[:2]
    cell_height, cell_width = seen.stride * height / seen.shown[0], seen.stride * width / seen.shown[1]
    return {"height": rows, "width": columns, "cell_height": cell_height, "cell_width": cell_width}


def attention(seen: Seen, x: int, y: int) -> dict[str, Any]:
    """Where a pixel looks: all weights, their shares by class, and the strongest.

    Raises:
        InputError: a pixel outside the image; a network without position attention.
    """
    weights = seen.attention(x, y)
    found = seen.segmentation
    own = int(found.labels[y, x])
    return {
        "x": x,
        "y": y,
        "class": {"id": own, "name": found.classes.names[own], "confidence": float(found.confidence[y, x])},
        "grid": grid(seen),
        "weights": packed(weights),
        "classes": [{"id": i, "name": found.classes.names[i], "share": s} for i, s in seen.classes_attended(weights)],
        "strongest": [{"x": x, "y": y, "weight": weight} for x, y, weight in seen.strongest(weights)],
    }


def channels(seen: Seen, class_id: int, count: int) -> dict[str, Any]:
    """The channels that answer most to a class, and their maps.

    Raises:
        InputError: a class that no channel tells from the rest; a network without channel attention.
    """
    numbers = seen.channels_of(class_id, count)
    maps = seen.channel_maps(numbers)
    found = [{"channel": number, "map": packed(own)} for number, own in zip(numbers, maps, strict=True)]
    return {"class": {"id": class_id, "name": seen.segmentation.classes.names[class_id]}, "channels": found}
