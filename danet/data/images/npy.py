"""Images stored as NumPy arrays (.npy), of any number of bands. Their size is checked before any pixel is read."""

from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from danet.data.images.channels import MAX_CHANNELS, Header, check_size, check_type
from danet.data.images.formats import Stream
from danet.errors import InputError

NPY = b"\x93NUMPY"
"""The first bytes of a .npy file."""


def npy_header(file: Stream, name: Path | str) -> Header:
    """Return the header of an open .npy file.

    Raises:
        InputError: not an H,W or H,W,N array of uint8 or uint16.
    """
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise InputError(name, f"an array file of version {version}", "save it again with numpy.save")
    shape, _, dtype = read(file)
    file.seek(0)
    check_type(dtype.name, name)
    height, width, channels = shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else (0, 0, 0)
    if min(height, width, channels) < 1 or channels > MAX_CHANNELS:
        what = f"an array of shape {shape}"
        raise InputError(name, what, f"save H,W or H,W,N with N from 1 to {MAX_CHANNELS}")
    return Header(height, width, channels, 8 * dtype.itemsize)


def read_npy(file: Stream, name: Path | str, max_pixels: int, _page: int = 0) -> np.ndarray:
    """Read an open .npy file, which has a single page, as H,W,N uint8 or uint16.

    Raises:
        InputError: see `npy_header`; or larger than `max_pixels`.
    """
    header = npy_header(file, name)
    check_size(header, name, max_pixels)
    array = npy.read_array(file, allow_pickle=False)
    return array.astype(array.dtype.newbyteorder("=")).reshape(header[:3])
