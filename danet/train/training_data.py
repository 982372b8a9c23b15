"""What a run trains on, kept in its folder for the report: RUN/batch.jpg and RUN/class_pixels.json."""

import json
from collections.abc import Sequence
from pathlib import Path

from danet.data.class_weights import count_classes
from danet.data.samples import Samples
from danet.files import read_limited, write_atomically, write_json
from danet.train.batches import Batch
from danet.train.run_folder import PIXELS, PREVIEW
from danet.visualize import training_data
from danet.visualize.training_data import TrainingData

COUNTED = 200
"""Maximum number of label maps, evenly spaced, in which the pixels of each class are counted."""

_PREVIEW_BYTES = 4 << 20


def record(folder: Path, samples: Samples, parts: Sequence[Batch]) -> None:
    """Write the preview of the first step's batch, and the pixels of each class.

    Label maps that cannot be read are left out; training reports them.

    Args:
        folder: the run folder.
        samples: the training samples.
        parts: of the batch.
    """
    images = [image.numpy() for part in parts for image in part.images]
    labels = [ids.numpy() for part in parts for ids in part.labels]
    write_atomically(folder / PREVIEW, training_data.draw(images, labels, samples.classes))
    counts = count_classes(samples, lambda _: None, limit=COUNTED)
    entries = {"pixels": counts.pixels.tolist(), "counted": counts.samples, "images": len(samples)}
    write_json(folder / PIXELS, entries)


def read(folder: Path) -> TrainingData:
    """Return what was recorded; files that are missing or damaged are left out, as the report does without them."""
    try:
        preview = read_limited(folder / PREVIEW, _PREVIEW_BYTES)
    except (OSError, ValueError):
        preview = None
    try:
        entries = json.loads(read_limited(folder / PIXELS))
        pixels = [int(count) for count in entries["pixels"]]
        return TrainingData(preview, pixels, int(entries["counted"]), int(entries["images"]))
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return TrainingData(preview)
