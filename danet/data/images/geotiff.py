"""Images too large to be held, read by rows through rasterio (danet[geo]), and their labels written as they come.
Used by `danet.predict.large_image`.
"""

import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from danet.data.classes import Classes
from danet.data.images.channels import Bands, as_pixels
from danet.data.images.tiff_npy import TIFF
from danet.errors import InputError

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

BLOCK = 256
"""The side of the output's tiles."""

_MAX_STORED = 512 << 20  # bytes of a strip or tile of the input: GDAL unpacks them whole
_DRIVERS = {**dict.fromkeys(TIFF, "GTiff"), b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}

Read = Callable[[slice, slice], np.ndarray]
"""Rows and columns -> their pixels, H,W,N as `read_image` gives them."""


@contextmanager
def opened_rows(file: BinaryIO, path: Path) -> Iterator["DatasetReader"]:
    """The image as a raster. GDAL sees the open file alone, by the driver of its first bytes: no address, no virtual
    raster, no file beside it is followed.
    """
    try:
        import rasterio
        from rasterio.errors import NotGeoreferencedWarning
    except ImportError as error:
        what = "too large to be held, and rasterio, which reads it by rows, is not installed"
        raise InputError(path, what, "pip install 'danet[geo]'") from error
    start = file.read(4)
    file.seek(0)
    driver = next((driver for head, driver in _DRIVERS.items() if start.startswith(head)), None)
    if driver is None:
        raise InputError(path, "of a format that cannot be read by rows", "convert it to TIFF")
    logging.getLogger("rasterio").addHandler(logging.NullHandler())  # GDAL's own lines say less than the exceptions
    with warnings.catch_warnings(), rasterio.Env(GDAL_CACHEMAX=64, GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        warnings.simplefilter("ignore", NotGeoreferencedWarning)  # an image without coordinates is none the worse
        with _reading(path):
            source = rasterio.open(file, driver=driver)
        with source:
            _check(source, path)
            yield source


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise InputError(path, f"truncated or damaged ({error.__cause__ or error})", "copy it again") from error


def _check(source: "DatasetReader", path: Path) -> None:
    if set(source.dtypes) - {"uint8", "uint16"}:
        raise InputError(path, f"holds {source.dtypes[0]} values", "convert it to 8 or 16 bits (uint8 or uint16) first")
    height, width = source.block_shapes[0]
    if (stored := height * width * source.count * np.dtype(source.dtypes[0]).itemsize) > _MAX_STORED:
        what = f"stored in pieces of {stored:,} bytes, which must be unpacked whole"
        raise InputError(path, what, "write it tiled: gdal_translate -co TILED=YES")
    if source.tags().get("EXIF_Orientation", "1") not in ("0", "1"):
        raise InputError(path, "lies on its side by its EXIF orientation", "save it upright")


def reader(source: "DatasetReader", bands: Bands, path: Path) -> Read:
    """Its pixels as `read_image` gives those of smaller ones."""
    kinds = [kind.name for kind in source.colorinterp]
    palette = None
    if bands.channels is None and kinds == ["palette"]:
        palette = np.zeros((256, 4), np.uint8)
        for index, color in source.colormap(1).items():
            palette[index] = color
        if source.driver != "PNG":  # of a TIFF's palette, GDAL clears the color that means no data
            palette[:, 3] = 255
        palette = _over_black(palette)
    wanted = list(range(1, source.count + 1))
    extra = bands.channels is None and source.count in (2, 4)
    transparent = extra and kinds[-1] == "alpha"
    if extra and not transparent:  # near infrared
        wanted.pop()
    key = _color_key(source) if bands.channels is None and not transparent and palette is None else None
    # 1: TIFF's associated alpha, whose colors are stored as they lie over black; GDAL tells it nowhere else
    laid = transparent and source.get_tag_item("TIFFTAG_EXTRASAMPLES", "_DEBUG_") == "1"

    def read(rows: slice, columns: slice) -> np.ndarray:
        place = (rows.start, rows.stop), (columns.start, columns.stop)
        with _reading(path):
            stored = source.read(wanted, window=place).transpose(1, 2, 0)  # H,W,N
        if transparent:
            stored = stored[..., :-1] if laid else _over_black(stored)
        if key is not None:
            stored = np.where((stored == key).all(2, keepdims=True), 0, stored).astype(stored.dtype)
        return as_pixels(stored if palette is None else palette[stored[..., 0]], bands, path)

    return read


def _color_key(source: "DatasetReader") -> np.ndarray | None:
    """The color that a PNG without an alpha channel takes for transparent (tRNS)."""
    named = source.tags().get("NODATA_VALUES", "").split() or [v for v in source.nodatavals if v is not None]
    return np.array([float(v) for v in named]) if source.driver == "PNG" and named else None


def _over_black(stored: np.ndarray) -> np.ndarray:
    """Colors ...,N and their alpha, the last of N + 1 uint8 or uint16 -> ...,N, rounded."""
    white = np.uint32(np.iinfo(stored.dtype).max)  # uint32 holds white * white + white // 2
    over = (stored[..., :-1] * stored[..., -1:].astype(np.uint32) + white // 2) // white
    return over.astype(stored.dtype)


@contextmanager
def created(path: Path, source: "DatasetReader", classes: Classes) -> Iterator["DatasetWriter"]:
    """A TIFF for the labels of an image: tiled, in the classes' colors, where the image lies."""
    import rasterio

    form = {"driver": "GTiff", "width": source.width, "height": source.height, "count": 1, "dtype": "uint8"}
    stored = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    where = {"crs": source.crs, "transform": None if source.transform.is_identity else source.transform}
    with rasterio.open(path, "w", **form, **stored, **where) as labels:
        labels.write_colormap(1, dict(enumerate(classes.palette)))
        yield labels


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """What GDAL raises when it cannot write becomes an InputError with the file's name."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise InputError(path, f"cannot be written ({error.__cause__ or error})", "free some space") from error


def check_whole(path: Path, pixels: np.ndarray) -> None:
    """Read labels once more and compare the pixels of each class: GDAL may lack the last of its space when it closes a
    file, and say nothing. Raises OSError.
    """
    import rasterio

    found = np.zeros(len(pixels), np.int64)
    with rasterio.open(path, driver="GTiff") as labels:
        for start in range(0, labels.height, BLOCK):
            rows = labels.read(1, window=((start, min(start + BLOCK, labels.height)), (0, labels.width)))
            found += np.bincount(rows.ravel(), minlength=len(pixels))[: len(pixels)]
    if (found != pixels).any():
        raise OSError("what was written is not there")
