"""Write the results of an image that is segmented as a whole: the overlay first, the JSON last."""

from typing import Any

from danet.files import check_new, make_folder, write_atomically, write_json
from danet.predict import overlay
from danet.predict.georeferenced import save_labels, write_polygons
from danet.predict.job import Job
from danet.predict.outputs import POLYGONS, Maps
from danet.predict.probability_maps import write_maps
from danet.predict.segmentation import Segmentation


def save_image(segmentation: Segmentation, job: Job, maps: Maps) -> dict[str, Any]:
    """Write the files `job.paths`, each completely or not at all, and return what the JSON holds.

    The overlay names the other files, see `danet.predict.existing`. The labels of an image of kind "geo" are a GeoTIFF
    with its coordinates.

    Raises:
        InputError: a file exists and `job.overwrite` is False; a file cannot be written.
    """
    first, labels, *_, summary = job.paths
    check_new(*job.paths, overwrite=job.overwrite)
    make_folder(job.folder)
    write_atomically(first, overlay.to_png(segmentation.overlay(), job.suffixes), job.overwrite)
    write_maps(segmentation, job, maps)
    if job.kind == "geo":
        save_labels(segmentation, job)
    else:
        write_atomically(labels, segmentation.label_png(job.suffixes), job.overwrite)
    if job.polygons:
        polygons = job.folder / f"{job.name}{POLYGONS}"
        write_polygons(labels, polygons, segmentation.classes, job.overwrite)
    record = segmentation.record(job.suffixes, job.kind)
    write_json(summary, record, job.overwrite)
    return record
