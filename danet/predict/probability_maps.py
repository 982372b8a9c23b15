"""Further results of an image: the probabilities of its classes, and how certain its labels are.

Command: danet predict IMAGES --probabilities npy --margin --min-confidence 0.5.
"""

import io

import numpy as np
from PIL import Image

from danet.files import write_atomically
from danet.predict.job import Job
from danet.predict.outputs import ARRAY, MARGIN, Maps
from danet.predict.overlay import to_png
from danet.predict.segmentation import Segmentation


def write_maps(segmentation: Segmentation, job: Job, maps: Maps) -> None:
    """Write the files that the maps name, each completely or not at all.

    Raises:
        InputError: a file exists and `job.overwrite` is False; a file cannot be written.
    """
    files = {}
    if maps.probabilities == "png":
        planes = enumerate(segmentation.probabilities)
        files = {f"_probability_{i}.png": _gray(plane, job) for i, plane in planes}
    if maps.probabilities == "npy":
        content = io.BytesIO()
        np.save(content, segmentation.probabilities.astype(np.float16))
        files[ARRAY] = content.getvalue()
    if maps.margin:
        files[MARGIN] = _gray(segmentation.margin, job)
    for suffix, content in files.items():
        write_atomically(job.folder / f"{job.name}{suffix}", content, job.overwrite)


def _gray(values: np.ndarray, job: Job) -> bytes:
    return to_png(Image.fromarray((values * 255).round().astype(np.uint8)), job.suffixes)
