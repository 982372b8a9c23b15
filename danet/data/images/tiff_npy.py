"""Images that Pillow cannot hold: arrays (.npy), and TIFFs of any number of bands through rasterio (danet[geo]). Used
by images.py, which has opened the file and checked that it is a regular one.

Sizes are checked in the header before any pixel is read. GDAL sees the open file alone, by its GTiff driver: no
address, no virtual raster, no file beside it is followed.
"""

from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.lib import format as npy
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from danet.data.images.channels import MAX_CHANNELS
from danet.errors import InputError

NPY, TIFF = b"\x93NUMPY", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""How such files begin."""

_TYPES = ("uint8", "uint16")


class Header(NamedTuple):
    """An image's size, its bands, the bits of each value, and whether the last band is meant as transparency."""

    height: int
    width: int
    channels: int
    bits: int
    alpha: bool = False


def pillow_holds(file: BinaryIO, rgb: bool) -> bool:
    """Whether Pillow gives every band and bit of an open TIFF: many with other bands it reads without a word as one
    band, and 16-bit colors as 8-bit ones.

    Args:
        rgb: a fourth band of an 8-bit RGB image, which Pillow leaves out, is not missed.
    """
    try:
        head = file.read(8)
        tags = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)  # 43: BigTIFF
        file.seek(tags.next)
        tags.load(file)
        bands, bits, planar = tags.get(277, 1), max(tags.get(258, (1,))), tags.get(284, 1)
        kind, alpha = (tags.get(262, 0), bands), any(tags.get(338, (0,)))
        if bits > 8:
            return kind in _GRAY and planar == 1
        return kind in _GRAY + _COLORS or (kind in _WITH_ALPHA and alpha) or (kind == _WITH_ALPHA[1] and rgb)
    except Exception:  # rasterio knows more kinds, or says what is wrong
        return False
    finally:
        file.seek(0)


_GRAY = (0, 1), (1, 1)  # photometric interpretation and number of bands
_COLORS = (2, 3), (3, 1), (5, 4), (6, 3), (8, 3)
_WITH_ALPHA = (1, 2), (2, 4)


def npy_header(file: BinaryIO, name: Path | str) -> Header:
    """What the array in an open .npy is.

    Raises:
        InputError: no H,W or H,W,N array of uint8 or uint16.
    """
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise InputError(name, f"an array file of version {version}", "save it again with numpy.save")
    shape, _, dtype = read(file)
    file.seek(0)
    _check_type(dtype.name, name)
    height, width, channels = shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else (0, 0, 0)
    if min(height, width, channels) < 1 or channels > MAX_CHANNELS:
        what = f"an array of shape {shape}"
        raise InputError(name, what, f"save H,W or H,W,N with N from 1 to {MAX_CHANNELS}")
    return Header(height, width, channels, 8 * dtype.itemsize)


def read_npy(file: BinaryIO, name: Path | str, max_pixels: int) -> np.ndarray:
    """An open .npy as H,W,N uint8 or uint16.

    Raises:
        InputError: see `npy_header`; or larger than `max_pixels`, cut off.
    """
    header = npy_header(file, name)
    _check_size(header, name, max_pixels)
    array = npy.read_array(file, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("=")).reshape(header[:3])


def tiff_header(file: BinaryIO, name: Path | str) -> Header:
    """What an open TIFF holds, by rasterio.

    Raises:
        InputError: rasterio is not installed; another type than uint8 and uint16.
    """
    with _rasterio(name).open(file, driver="GTiff") as source:
        return _header(source, name)


def read_tiff(file: BinaryIO, name: Path | str, max_pixels: int) -> np.ndarray:
    """An open TIFF's first image as H,W,N uint8 or uint16, all bands in their order, by rasterio.

    Raises:
        InputError: rasterio is not installed; another type than uint8 and uint16; larger than `max_pixels`.
    """
    with _rasterio(name).open(file, driver="GTiff") as source:
        _check_size(_header(source, name), name, max_pixels)
        return np.ascontiguousarray(source.read().transpose(1, 2, 0))


def _header(source, name: Path | str) -> Header:
    for kind in source.dtypes:
        _check_type(kind, name)
    if source.count > MAX_CHANNELS:
        raise InputError(name, f"{source.count} bands", f"give at most {MAX_CHANNELS}")
    return Header(source.height, source.width, source.count, max(8 * np.dtype(kind).itemsize for kind in source.dtypes))


def _rasterio(name: Path | str):
    try:
        import rasterio
    except ImportError as error:
        what = "a TIFF of a kind that only rasterio reads whole, and rasterio is not installed"
        raise InputError(name, what, "pip install 'danet[geo]'") from error
    return rasterio


def _check_type(kind: str, name: Path | str) -> None:
    if kind not in _TYPES:
        raise InputError(name, f"holds {kind} values", "convert it to 8 or 16 bits (uint8 or uint16) first")


def _check_size(header: Header, name: Path | str, max_pixels: int) -> None:
    """Of more than four bands correspondingly fewer pixels, for the same memory."""
    height, width, channels = header[:3]
    limit = max_pixels * 4 // max(4, channels)
    if height * width > limit:
        what = f"{width} x {height} in {channels} bands: more pixels than the limit of {limit:,}"
        raise InputError(name, what, "make it smaller")
