"""The images that callers give: paths, Pillow images, arrays and tensors -> pixels H,W,N."""

from pathlib import Path

import numpy as np
from PIL import Image

from danet.arrays import Array, is_tensor, namespace, to_numpy
from danet.data.images.channels import RGB, Bands, as_pixels
from danet.data.images.read import read_image, to_pixels
from danet.errors import InputError

ImageLike = Path | str | Image.Image | np.ndarray | Array
"""A path, a Pillow image, an array or a tensor; see `read_pixels`."""

_STORED = ("uint8", "uint16")


def read_pixels(image: ImageLike, bands: Bands = RGB) -> tuple[str, np.ndarray]:
    """Return an image's name and its pixels, H,W,N as `read_image` returns them.

    Args:
        image: a path, whose stem is the name; or a Pillow image, an array or a tensor, whose name is "image". An array
            is H,W,N, a tensor N,H,W; both may be H,W for a single band, which is gray if the network takes RGB. They
            hold what a file would, uint8 or uint16, or floating-point numbers from 0 to 1, where 1 is white.
        bands: the bands that the network takes.

    Raises:
        InputError: a damaged file; an array or a tensor of another shape or type, or with numbers that are not from 0
            to 1, for example because they are normalized.
    """
    if isinstance(image, Path | str):
        return Path(image).stem, read_image(image, bands=bands)
    if isinstance(image, Image.Image):
        return "image", to_pixels(image, bands=bands)
    kind = "array"
    if is_tensor(image):
        image, kind = _to_array(image), "tensor"
    if not isinstance(image, np.ndarray):
        raise InputError(
            "image", f"is of type {type(image).__name__}", "use a path, a Pillow image, an array or a tensor"
        )
    stored = image[..., None] if image.ndim == 2 else image
    known = stored.dtype.name in _STORED or np.issubdtype(stored.dtype, np.floating)
    gray = bands.channels is None and stored.shape[2:] == (1,)
    if not known or stored.ndim != 3 or 0 in stored.shape or not (gray or stored.shape[2] == bands.count):
        raise _unknown_form(image, kind, bands)
    if stored.dtype.name not in _STORED:
        return "image", _from_unit_range(stored, bands, kind)
    return "image", as_pixels(np.ascontiguousarray(stored), bands, "image")


def _to_array(tensor: Array) -> np.ndarray:
    """Return a tensor N,H,W or H,W as an array H,W,N or H,W."""
    array = to_numpy(tensor.float() if tensor.dtype == namespace(tensor).bfloat16 else tensor)
    return np.moveaxis(array, 0, -1) if array.ndim == 3 else array


def _from_unit_range(stored: np.ndarray, bands: Bands, kind: str) -> np.ndarray:
    """Return numbers from 0 to 1 as pixels: uint8 for RGB, as from a file of 8 bits, otherwise float32."""
    low, high = float(stored.min()), float(stored.max())
    if not (low >= 0 and high <= 1):  # also NaN
        what = f"{kind} of {stored.dtype} has numbers from {low:g} to {high:g}, but 0 must be black and 1 white"
        raise InputError("image", what, "divide by the largest value; the network normalizes images itself")
    pixels = stored.astype(np.float32) * np.float32(255)
    if bands.channels is None:
        pixels = pixels.round().astype(np.uint8)
    return np.ascontiguousarray(np.broadcast_to(pixels, (*stored.shape[:2], bands.count)))


def _unknown_form(image: np.ndarray, kind: str, bands: Bands) -> InputError:
    shape = tuple(image.shape)
    shape = (shape[2], *shape[:2]) if kind == "tensor" and len(shape) == 3 else shape
    order = "N,H,W" if kind == "tensor" else "H,W,N"
    forms = f"{order.replace('N', str(bands.count))}{' RGB, or H,W gray' if bands.channels is None else ''}"
    remedy = f"use {forms}, uint8, uint16 or floating point from 0 to 1; for several images, a list of them"
    return InputError("image", f"{kind} has shape {shape} and type {image.dtype}", remedy)
