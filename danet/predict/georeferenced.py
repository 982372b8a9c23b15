"""Results with coordinates: labels as GeoTIFF, polygons of the classes as GeoJSON, and a mosaic of all labels.

They need rasterio (the extra geo). Polygons follow the edges of pixels, in longitude and latitude (RFC 7946).
"""

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np

from danet.data.classes import IGNORE, Classes
from danet.data.images.geotiff import create_labels, open_raster, verify_labels, write_errors
from danet.data.images.pillow import regular_file
from danet.errors import InputError
from danet.files import atomic_path, check_new, write_atomically
from danet.predict.job import Job
from danet.predict.segmentation import Segmentation

if TYPE_CHECKING:
    from rasterio.io import DatasetReader

MOSAIC = "labels.vrt"
"""The file name of a mosaic."""

_LON_LAT = "EPSG:4326"
_DIGITS = 7  # of degrees: about a centimeter


def save_labels(segmentation: Segmentation, job: Job) -> None:
    """Write only NAME_labels.tif, with the image's coordinates.

    Raises:
        InputError: the file exists and `job.overwrite` is False; it cannot be written.
    """
    labels_path = job.paths[1]
    counts = np.bincount(segmentation.labels.ravel(), minlength=len(segmentation.classes))
    with regular_file(job.file) as file, open_raster(file, job.file, any_type=True) as source, ExitStack() as stack:
        stack.enter_context(write_errors(labels_path))
        temporary = stack.enter_context(atomic_path(labels_path, job.overwrite))
        with create_labels(temporary, source, segmentation.classes) as labels:
            labels.write(segmentation.labels, 1)
        verify_labels(temporary, counts)


def write_polygons(labels: Path, path: Path, classes: Classes, overwrite: bool = False) -> None:
    """Write the connected regions of labels as GeoJSON, one feature each with the name and id of its class.

    Args:
        labels: a GeoTIFF of train ids.
        path: the file to write.
        classes: names and palette, by train id.
        overwrite: replace the file if it exists.

    Raises:
        InputError: the labels have no coordinate system; the file cannot be written.
    """
    from rasterio import band
    from rasterio.features import shapes
    from rasterio.warp import transform_geom

    with _opened(labels) as source:
        if source.crs is None:
            raise InputError(labels, "has no coordinate system, so it has no polygons", "leave out `polygons`")
        features = []
        for shape, value in shapes(band(source, 1), transform=source.transform):
            train_id = int(value)
            if train_id == IGNORE:
                continue
            geometry = transform_geom(source.crs, _LON_LAT, shape, precision=_DIGITS)
            properties = {"class": classes.names[train_id], "id": train_id}
            features.append({"type": "Feature", "properties": properties, "geometry": geometry})
    write_atomically(path, (json.dumps({"type": "FeatureCollection", "features": features}) + "\n").encode(), overwrite)


def write_mosaic(path: Path, tiles: Sequence[Path], classes: Classes, overwrite: bool = False) -> None:
    """Write a virtual raster (VRT) that shows the labels of all tiles as one image; where tiles overlap, the last.

    Args:
        path: the file to write; it names the tiles relative to its folder.
        tiles: GeoTIFFs of train ids.
        classes: names and palette, by train id.
        overwrite: replace the file if it exists.

    Raises:
        InputError: there are no tiles, or tiles of another coordinate system or pixel size than the first, or rotated,
            or with ground control points only.
    """
    check_new(path, overwrite=overwrite)
    places = []
    for tile in tiles:
        with _opened(tile) as source:
            places.append(_place(tile, source))
    _check_grid(tiles, places)
    first = places[0]
    (dx, dy), corners = first["step"], np.array([place["corner"] for place in places])
    sizes = np.array([place["size"] for place in places])
    offsets = corners / (dx, dy)  # in pixels; dy is negative
    left, top = offsets.min(0)
    right, bottom = (offsets + sizes).max(0)
    width, height = round(right - left), round(bottom - top)
    root = Element("VRTDataset", rasterXSize=str(width), rasterYSize=str(height))
    SubElement(root, "SRS").text = first["crs"]
    place = (left * dx, dx, 0, top * dy, 0, dy)
    SubElement(root, "GeoTransform").text = ", ".join(repr(float(number)) for number in place)
    _add_band(root, path, tiles, offsets - (left, top), sizes, classes)
    indent(root)
    write_atomically(path, tostring(root), overwrite)


def check_mosaic(images: Sequence[Path]) -> None:
    """Check, before the work begins, that the labels of images can be a mosaic; images that are damaged are left out.

    Raises:
        InputError: see `write_mosaic`.
    """
    if not images:
        raise _no_coordinates()
    known, places = [], []
    for image in images:
        with ExitStack() as stack:
            try:
                source = stack.enter_context(open_raster(stack.enter_context(open(image, "rb")), image, any_type=True))
            except (InputError, OSError):  # which the segmentation reports
                continue
            known.append(image)
            places.append(_place(image, source))
    if known:
        _check_grid(known, places)


def _no_coordinates() -> InputError:
    return InputError("mosaic", "no image has coordinates", "leave out `mosaic`")


def _check_grid(tiles: Sequence[Path], places: Sequence[Mapping[str, Any]]) -> None:
    if not places:
        raise _no_coordinates()
    first = places[0]
    for tile, place in zip(tiles, places, strict=True):
        if place["crs"] != first["crs"] or not np.allclose(place["step"], first["step"], rtol=1e-6, atol=0):
            what = f"has another coordinate system or pixel size than {tiles[0].name}, so they make no mosaic"
            raise InputError(tile, what, "leave out `mosaic`, or warp the images to one grid")


def _add_band(
    root: Element, path: Path, tiles: Sequence[Path], offsets: np.ndarray, sizes: np.ndarray, classes: Classes
) -> None:
    parent = SubElement(root, "VRTRasterBand", dataType="Byte", band="1")
    SubElement(parent, "NoDataValue").text = str(IGNORE)
    SubElement(parent, "ColorInterp").text = "Palette"
    table = SubElement(parent, "ColorTable")
    for color in classes.palette:
        SubElement(table, "Entry", {f"c{i}": str(c) for i, c in enumerate((*color, 255), 1)})
    for tile, (x, y), (width, height) in zip(tiles, offsets, sizes, strict=True):
        source = SubElement(parent, "SimpleSource")
        name = os.path.relpath(tile, path.parent)
        SubElement(source, "SourceFilename", relativeToVRT="1").text = name
        SubElement(source, "SourceBand").text = "1"
        size = {"xSize": str(width), "ySize": str(height)}
        SubElement(source, "SrcRect", {"xOff": "0", "yOff": "0", **size})
        SubElement(source, "DstRect", {"xOff": f"{x:.4f}", "yOff": f"{y:.4f}", **size})


def _place(tile: Path, source: "DatasetReader") -> dict[str, Any]:
    """Return where a tile is: its coordinate system, upper left corner, pixel size, and size in pixels."""
    transform = source.transform
    if transform.is_identity:
        what = "has ground control points, but no coordinates of its pixels, so it cannot be part of a mosaic"
        raise InputError(tile, what, "leave out `mosaic`, or warp the image with gdalwarp")
    if transform.b or transform.d:
        raise InputError(tile, "is rotated, so it cannot be part of a mosaic", "leave out `mosaic`")
    crs = "" if source.crs is None else source.crs.to_wkt()
    corner, step = (transform.c, transform.f), (transform.a, transform.e)
    return {"crs": crs, "corner": corner, "step": step, "size": (source.width, source.height)}


@contextmanager
def _opened(labels: Path) -> "Iterator[DatasetReader]":
    import rasterio
    from rasterio.errors import NotGeoreferencedWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        with rasterio.open(labels, driver="GTiff") as source:
            yield source
