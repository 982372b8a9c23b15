"""Images read through rasterio (extra geo): TIFFs that Pillow does not read completely, and images too large to load.

GDAL gets the open file and a driver chosen by its first bytes, so that it follows no URL, no virtual raster and no
sidecar file. Sizes are checked in the header before any pixel is read.
"""

import importlib.util
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from danet.data.classes import Classes
from danet.data.images.channels import MAX_CHANNELS, Bands, Header, as_pixels, check_size, check_type
from danet.data.images.formats import Stream
from danet.data.images.pages import tiff_directories
from danet.errors import InputError, missing_package

if TYPE_CHECKING:
    from rasterio.io import DatasetReader, DatasetWriter

TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes of a TIFF or BigTIFF file."""

SOFTWARE = "danet"
"""The name in the labels written."""

BLOCK = 256
"""The tile size of the labels written."""

ReadWindow = Callable[[slice, slice], np.ndarray]
"""Reads the pixels H,W,N of some rows and columns, as `read_image` returns them."""

_PLACES = (33550, 33922, 34264)  # ModelPixelScale, ModelTiepoint, ModelTransformation
_GRAY = (0, 1), (1, 1)  # photometric interpretation and number of bands
_COLORS = (2, 3), (3, 1), (5, 4), (6, 3), (8, 3)
_WITH_ALPHA = (1, 2), (2, 4)
_NOT_PILLOW = "a kind of TIFF that only rasterio reads completely"
_MAX_STORED = 512 << 20  # bytes of a strip or tile of the input; GDAL decodes them as a whole
_MASKED = 1 << 22  # pixels whose masks are read at once
_DRIVERS = {**dict.fromkeys(TIFF, "GTiff"), b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG"}

logging.getLogger("rasterio").addHandler(logging.NullHandler())  # GDAL's own messages say less than the exceptions


def pillow_reads_all(file: Stream, rgb: bool) -> bool:
    """Return whether Pillow reads every band and bit of an open TIFF.

    Without an error, it reads many TIFFs with unusual bands as a single band, and 16-bit colors as 8-bit.

    Args:
        file: the open file; its position is reset to the start.
        rgb: whether the caller needs only RGB, so that Pillow may drop a fourth band that is not alpha.
    """
    try:
        tags = next(tiff_directories(file))
        bands, bits, planar = tags.get(277, 1), max(tags.get(258, (1,))), tags.get(284, 1)
        kind, alpha = (tags.get(262, 0), bands), any(tags.get(338, (0,)))
        if not pillow_opens(file):
            return False
        if bits > 8:
            return kind in _GRAY and planar == 1
        return kind in _GRAY + _COLORS or (kind in _WITH_ALPHA and alpha) or (kind == _WITH_ALPHA[1] and rgb)
    except Exception:  # rasterio reads more kinds, and reports what is wrong with the others
        return False
    finally:
        file.seek(0)


def pillow_opens(file: Stream) -> bool:
    """Return whether Pillow knows the compression and the number type of an open TIFF, which is rewound."""
    file.seek(0)
    try:
        Image.open(file, formats=("TIFF",))
        return True
    except Exception:
        return False
    finally:
        file.seek(0)


def has_rasterio() -> bool:
    """Return whether rasterio is installed."""
    return importlib.util.find_spec("rasterio") is not None


def has_coordinates(path: Path) -> bool:
    """Return whether a file is a TIFF that says where its pixels are on Earth."""
    try:
        with open(path, "rb") as file:
            return file.read(4) in TIFF and not next(tiff_directories(file)).keys().isdisjoint(_PLACES)
    except Exception:  # a damaged file, which the segmentation reports
        return False


def has_longitudes(path: Path) -> bool:
    """Return whether the pixels of a TIFF with coordinates have a longitude and latitude; True for a damaged one."""
    try:
        with open(path, "rb") as file, open_raster(file, path, any_type=True) as source:
            return source.crs is not None and not source.transform.is_identity
    except InputError:  # which the segmentation reports
        return True


def check_upright(path: Path) -> None:
    """Check that a TIFF is not rotated by its orientation, which GDAL and the coordinates of its pixels ignore.

    Raises:
        InputError: it is rotated.
    """
    try:
        with open(path, "rb") as file:
            orientation = next(tiff_directories(file)).get(274, 1) if file.read(4) in TIFF else 1
    except Exception:  # a damaged file, which reading reports
        return
    if orientation in range(2, 9):
        raise _rotated(path)


def _rotated(path: Path) -> InputError:
    return InputError(path, "is rotated by its EXIF orientation", "save it upright")


def read_software(path: Path) -> str | None:
    """Return the name of the software that a TIFF says has written it; None if it says none, or is no TIFF."""
    try:
        with open(path, "rb") as file:
            text = next(tiff_directories(file)).get(305) if file.read(4) in TIFF else None
        return None if text is None else str(text).strip("\0 ")
    except Exception:  # a damaged file, which reading it reports
        return None


def read_no_data(file: Stream) -> float | None:
    """Return the value of pixels without data that an open TIFF declares, or None; the file is rewound."""
    try:
        text = next(tiff_directories(file)).get(42113)  # GDAL_NODATA
        return None if text is None else float(str(text).strip("\0 "))
    except Exception:  # no TIFF, or a damaged one, which decoding reports
        return None
    finally:
        file.seek(0)


@contextmanager
def open_raster(
    file: Stream, path: Path | str, reason: str = "too large to load at once", any_type: bool = False
) -> Iterator["DatasetReader"]:
    """Open a TIFF, PNG or JPEG file with rasterio.

    Args:
        file: the open file, at its start.
        path: its path, for messages.
        reason: why rasterio is needed, for the message that it is not installed.
        any_type: whether other number types than uint8 and uint16 are accepted.

    Raises:
        InputError: rasterio is not installed; the file is damaged, or has another format or number type.
    """
    try:
        import rasterio
    except ImportError as error:
        raise missing_package(path, f"{reason}, and rasterio is not installed", "geo") from error
    start = file.read(4)
    file.seek(0)
    driver = next((driver for head, driver in _DRIVERS.items() if start.startswith(head)), None)
    if driver is None:
        raise InputError(path, f"{reason}, and not a TIFF, PNG or JPEG", "convert it to TIFF")
    with rasterio.Env(GDAL_CACHEMAX=64, GDAL_ERROR_ON_LIBJPEG_WARNING=True):
        with _read_errors(path):
            source = rasterio.open(file, driver=driver)
        with source:
            _check(source, path, any_type)
            yield source


def tiff_header(file: Stream, path: Path | str) -> Header:
    """Return the header of an open TIFF.

    Raises:
        InputError: see `open_raster`.
    """
    with open_raster(file, path, _NOT_PILLOW) as source:
        return _header(source)


def read_tiff(file: Stream, path: Path | str, max_pixels: int, page: int = 0) -> np.ndarray:
    """Read an image of an open TIFF as H,W,N uint8 or uint16, with all bands in their order.

    Args:
        file: the open file.
        path: its path, for messages.
        max_pixels: the limit on the number of pixels.
        page: only 0, the first.

    Raises:
        InputError: see `open_raster`; or larger than `max_pixels`.
    """
    if page:
        raise InputError(path, f"page {page + 1} is of {_NOT_PILLOW}", "save the pages as images of their own")
    with open_raster(file, path, _NOT_PILLOW) as source:
        check_size(_header(source), path, max_pixels)
        with _read_errors(path):
            return np.ascontiguousarray(source.read().transpose(1, 2, 0))


def read_raster(file: Stream, path: Path | str, max_pixels: int) -> np.ndarray:
    """Read an open TIFF as H,W,N of its own number type, such as float64 or int64.

    Raises:
        InputError: see `open_raster`; or larger than `max_pixels`, or of complex numbers.
    """
    with open_raster(file, path, _NOT_PILLOW, any_type=True) as source:
        check_size(_header(source), path, max_pixels)
        if "complex" in source.dtypes[0]:
            raise InputError(path, "holds complex numbers", "save real numbers")
        with _read_errors(path):
            return np.ascontiguousarray(source.read().transpose(1, 2, 0))


def window_reader(source: "DatasetReader", bands: Bands, path: Path) -> ReadWindow:
    """Return a function that reads parts of a raster as `read_image` reads smaller images.

    Raises:
        InputError: the image is rotated by its EXIF orientation.
    """
    check_upright(path)
    if source.tags().get("EXIF_Orientation", "1") not in ("0", "1"):  # of a PNG or JPEG
        raise _rotated(path)
    kinds = [kind.name for kind in source.colorinterp]
    palette = _palette(source) if bands.channels is None and kinds == ["palette"] else None
    wanted = list(range(1, source.count + 1))
    extra = bands.channels is None and source.count in (2, 4)
    transparent = extra and kinds[-1] == "alpha"
    if extra and not transparent:  # near infrared
        wanted.pop()
    key = _color_key(source) if bands.channels is None and not transparent and palette is None else None
    # 1: TIFF's associated alpha, where colors are already multiplied by alpha; GDAL exposes it nowhere else
    multiplied = transparent and source.get_tag_item("TIFFTAG_EXTRASAMPLES", "_DEBUG_") == "1"

    def read(rows: slice, columns: slice) -> np.ndarray:
        window = (rows.start, rows.stop), (columns.start, columns.stop)
        with _read_errors(path):
            stored = source.read(wanted, window=window).transpose(1, 2, 0)  # H,W,N
        if transparent:
            stored = stored[..., :-1] if multiplied else _over_black(stored)
        if key is not None:
            stored = np.where((stored == key).all(2, keepdims=True), 0, stored).astype(stored.dtype)
        return as_pixels(stored if palette is None else palette[stored[..., 0]], bands, path)

    return read


def missing_reader(source: "DatasetReader", path: Path) -> ReadWindow | None:
    """Return a function that tells which pixels of some rows and columns have no data, H,W bool; None if all have.

    These are the pixels in which all bands have the value that the file declares, or whose mask or alpha is 0.
    """
    from rasterio.enums import MaskFlags

    if all(MaskFlags.all_valid in flags for flags in source.mask_flag_enums):
        return None

    def read(rows: slice, columns: slice) -> np.ndarray:
        with _read_errors(path):
            return source.dataset_mask(window=((rows.start, rows.stop), (columns.start, columns.stop))) == 0

    return read


def read_missing(path: Path) -> np.ndarray | None:
    """Return which pixels of a TIFF have no data, H,W bool; None if all have.

    Raises:
        InputError: see `open_raster`.
    """
    with open(path, "rb") as file, open_raster(file, path, any_type=True) as source:
        if (read := missing_reader(source, path)) is None:
            return None
        missing, step = np.empty((source.height, source.width), bool), max(1, _MASKED // source.width)
        for top in range(0, source.height, step):  # rasterio reads the masks of all bands
            rows = slice(top, min(top + step, source.height))
            missing[rows] = read(rows, slice(0, source.width))
        return missing


@contextmanager
def create_labels(path: Path, source: "DatasetReader", classes: Classes) -> Iterator["DatasetWriter"]:
    """Create a tiled TIFF for the labels of an image, with the classes' palette and the image's coordinates.

    These are a transform, or ground control points, as in radar images.
    """
    import rasterio

    form = {"driver": "GTiff", "width": source.width, "height": source.height, "count": 1, "dtype": "uint8"}
    stored = {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK, "compress": "deflate", "BIGTIFF": "IF_SAFER"}
    place = {"crs": source.crs, "transform": source.transform}
    if source.transform.is_identity:
        points, crs = source.gcps
        place = {"crs": crs or rasterio.CRS(), "gcps": points} if points else {"crs": source.crs}
    with rasterio.open(path, "w", **form, **stored, **place) as labels:
        labels.write_colormap(1, dict(enumerate(classes.palette)))
        labels.update_tags(TIFFTAG_SOFTWARE=SOFTWARE)
        yield labels


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Turn GDAL's errors in writing a file into `InputError`."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise InputError(path, f"cannot be written ({error.__cause__ or error})", "free some space") from error


def verify_labels(path: Path, pixels: np.ndarray) -> None:
    """Read labels back and compare the number of pixels of each class.

    If the disk becomes full while GDAL closes a file, it reports no error.

    Raises:
        OSError: the numbers differ.
    """
    import rasterio

    counts = np.zeros(len(pixels), np.int64)
    with rasterio.open(path, driver="GTiff") as labels:
        for start in range(0, labels.height, BLOCK):
            rows = labels.read(1, window=((start, min(start + BLOCK, labels.height)), (0, labels.width)))
            counts += np.bincount(rows.ravel(), minlength=len(pixels))[: len(pixels)]
    if (counts != pixels).any():
        raise OSError("the file is incomplete")


@contextmanager
def _read_errors(path: Path | str) -> Iterator[None]:
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    try:
        yield
    except (RasterioError, CPLE_BaseError) as error:
        raise InputError(path, "truncated or damaged", "copy it again") from error


def _check(source: "DatasetReader", path: Path | str, any_type: bool) -> None:
    for kind in () if any_type else source.dtypes:
        check_type(kind, path)
    if source.count > MAX_CHANNELS:
        raise InputError(path, f"{source.count} bands", f"use at most {MAX_CHANNELS}")
    height, width = source.block_shapes[0]
    if (stored := height * width * source.count * np.dtype(source.dtypes[0]).itemsize) > _MAX_STORED:
        what = f"stored in blocks of {stored:,} bytes, which must be decoded as a whole"
        raise InputError(path, what, "write it tiled: gdal_translate -co TILED=YES")


def _header(source: "DatasetReader") -> Header:
    bits = max(8 * np.dtype(kind).itemsize for kind in source.dtypes)
    return Header(source.height, source.width, source.count, bits)


def _palette(source: "DatasetReader") -> np.ndarray:
    """Return the colors of a palette image over black, 256,3 uint8."""
    palette = np.zeros((256, 4), np.uint8)
    for index, color in source.colormap(1).items():
        palette[index] = color
    if source.driver != "PNG":  # for TIFF, GDAL makes the color that means no data transparent
        palette[:, 3] = 255
    return _over_black(palette)


def _color_key(source: "DatasetReader") -> np.ndarray | None:
    """Return the color that a PNG without an alpha channel declares as transparent (tRNS)."""
    values = source.tags().get("NODATA_VALUES", "").split() or [v for v in source.nodatavals if v is not None]
    return np.array([float(v) for v in values]) if source.driver == "PNG" and values else None


def _over_black(stored: np.ndarray) -> np.ndarray:
    """Composite colors ...,N + 1 uint8 or uint16, whose last channel is alpha, over black; ...,N, rounded."""
    white = np.uint32(np.iinfo(stored.dtype).max)  # uint32 holds white * white + white // 2
    over = (stored[..., :-1] * stored[..., -1:].astype(np.uint32) + white // 2) // white
    return over.astype(stored.dtype)
