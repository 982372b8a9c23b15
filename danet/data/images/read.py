"""Read images and masks. All code that reads an image or a mask calls these functions.

Files are decoded by Pillow, or by npy.py and geotiff.py if Pillow does not support them. Limits are checked in the
header before any pixel is decoded. EXIF orientation is applied unless told otherwise, 16-bit values keep all bits,
and a mask's palette indices stay indices. Every error is an `InputError` with the file's name.
"""

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from danet.data.classes import NO_DATA
from danet.data.images.channels import RGB, Bands, Header, as_pixels
from danet.data.images.deep_png import deep_bands, read_deep_png
from danet.data.images.formats import FORMATS, SUFFIXES, Stream, formats_of
from danet.data.images.geotiff import (
    TIFF,
    pillow_opens,
    pillow_reads_all,
    read_no_data,
    read_raster,
    read_tiff,
    tiff_header,
)
from danet.data.images.mask_values import check_alpha, check_lossless, check_lossless_tiff, coding_of
from danet.data.images.npy import NPY, npy_header, read_npy
from danet.data.images.pages import check_pages, find_pages
from danet.data.images.pillow import (
    MAX_PIXELS,
    SWAPPING,
    damage_errors,
    header_orientation,
    open_stream,
    regular_file,
    stored_size,
    turn_upright,
    without_warnings,
)
from danet.data.images.results import is_result
from danet.errors import InputError, missing_folder

ARRAYS = (".npy",)
"""Suffixes that are images only if the number of bands is given; other arrays may contain anything."""


def read_image(
    path: Path | str,
    max_pixels: int = MAX_PIXELS,
    bands: Bands = RGB,
    upright: bool = True,
    page: int | None = None,
) -> np.ndarray:
    """Read an image. For RGB, transparency is composited over black.

    Args:
        path: the file.
        max_pixels: the limit on the number of pixels.
        bands: the expected bands, and the value of white.
        upright: whether the EXIF orientation is applied.
        page: the position of a page in a stack or animation, from 0; None: the file must have only one.

    Returns:
        H,W,N uint8, or float32 if the file has 16 bits or white is not 255; see channels.py.

    Raises:
        InputError: not a complete, readable image with these bands and at most `max_pixels`; several pages.
    """
    with regular_file(path) as file:
        return _read(file, path, max_pixels, bands, upright, page)


def decode_image(
    content: bytes,
    name: str,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    bands: Bands = RGB,
) -> np.ndarray:
    """Decode the content of an image file as `read_image` reads the file; animations are refused.

    Args:
        content: the file's bytes.
        name: its name, for messages.
        formats: the accepted formats, as Pillow names them.
        max_pixels: the limit on the number of pixels.
        bands: the expected bands, and the value of white.

    Raises:
        InputError: not a complete, still image in one of the formats with at most `max_pixels`.
    """
    with without_warnings():
        with open_stream(io.BytesIO(content), name, max_pixels, decode=False, formats=formats) as image:
            if len(find_pages(io.BytesIO(content), image)) > 1:
                raise InputError(name, "is an animation", "use a still image")
        return _read(io.BytesIO(content), name, max_pixels, bands)


def to_pixels(image: Image.Image, name: Path | str = "image", bands: Bands = RGB, upright: bool = True) -> np.ndarray:
    """Convert a Pillow image as `read_image` reads its file, except for 16-bit colors, which Pillow reduces to 8."""
    image = turn_upright(image) if upright else image
    if bands.channels is None and image.mode != "F" and not image.mode.startswith("I"):
        return as_pixels(np.asarray(_over_black(image)), bands, name)
    stored = _stored(image, name)
    if bands.channels is None:
        _blacken(stored, image.info.get("transparency"))
    return as_pixels(stored, bands, name)


def read_header(path: Path | str) -> Header:
    """Read the size, number of bands and depth of an image from its header. A palette counts as three bands.

    Raises:
        InputError: not an image, or its header is damaged.
    """
    with regular_file(path) as file:
        if (reader := _other_reader(file, rgb=False)) is not None:
            with damage_errors(path):
                return reader.header(file, path)._replace(pages=len(find_pages(file)))
        deep = deep_bands(file)
        with open_stream(file, path, max_pixels=None, decode=False, formats=formats_of(path)) as image:
            mode, (width, height) = image.mode, stored_size(image)
            count = 1 if mode in ("1", "L") or mode.startswith("I") else {"LA": 2, "RGBA": 4}.get(mode, 3)
            count = deep or count
            bits = 16 if deep or mode.startswith("I") else 8
            alpha, orientation = mode in ("LA", "RGBA"), header_orientation(file, image)
            return Header(height, width, count, bits, alpha, orientation, len(find_pages(file, image)))


def read_mask(
    path: Path | str,
    max_pixels: int = MAX_PIXELS,
    or_else: str = "write colors: in dataset.yaml",
    white: int = 1,
) -> np.ndarray:
    """Read a mask as H,W integers (uint8, int32 or int64), exactly as stored.

    Palette masks give indices, not colors. Floating-point values are accepted if all are whole numbers. Pixels without
    data in a GeoTIFF are `NO_DATA`: NaN, and its "nodata" value unless that is a possible class, from 0 to 65535. EXIF
    orientation is ignored.

    Args:
        path: the file.
        max_pixels: maximum size.
        or_else: what may be done about a mask of colors, besides saving class ids.
        white: the value of white pixels in masks of 1 bit.

    Raises:
        InputError: not a complete, readable mask with one value per pixel.
    """
    with open_mask(path, max_pixels, "values") as (mask, no_data):
        if not isinstance(mask, Image.Image):
            values = mask[..., 0] if (mask[..., :1] == mask).all() else mask
        elif mask.mode in ("1", "L", "P"):
            values = np.asarray(mask, np.uint8)
            values = values * np.uint8(white) if mask.mode == "1" else values
        elif mask.mode.startswith("I"):
            values = np.asarray(mask).astype(np.int32)
        elif mask.mode in ("LA", "PA"):
            values = np.asarray(mask.getchannel(0), np.uint8)
        else:
            values = np.asarray(mask)
            if values.ndim == 3 and mask.mode in ("RGB", "RGBA") and (values[..., :1] == values[..., :3]).all():
                values = values[..., 0]
        if values.ndim == 2:
            return _whole_numbers(values, no_data, path)
        what = f"a mask of mode {mask.mode}" if isinstance(mask, Image.Image) else f"a mask of {mask.shape[2]} bands"
        remedy = f"save the class id in one byte per pixel, or {or_else}"
        raise InputError(path, f"{what}: colors, not class ids", remedy)


@contextmanager
def open_mask(
    path: Path | str, max_pixels: int, content: str
) -> Iterator[tuple[Image.Image | np.ndarray, float | None]]:
    """Open a mask, and check that it is stored without loss and is neither a stack nor partly transparent.

    Args:
        path: the file.
        max_pixels: the limit on the number of pixels.
        content: what a lossy format would change: "values" or "colors".

    Yields:
        The decoded image, or H,W,N of any number type if Pillow does not read its values as stored; and the value that
        a TIFF declares as "nodata", or None.

    Raises:
        InputError: it is not such a mask.
    """
    with regular_file(path) as file:
        tiff = _starts_with(file, TIFF)
        no_data = read_no_data(file) if tiff else None
        if tiff and not pillow_opens(file):
            check_pages(len(find_pages(file)), path, None)
            check_lossless_tiff(file, path, content)
            with damage_errors(path):
                yield read_raster(file, path, max_pixels), no_data
            return
        if deep := deep_bands(file):
            stored, _ = read_deep_png(file, path, max_pixels, upright=False, bands=deep)
            if deep != 3:
                check_alpha(stored[..., -1], path)
                stored = stored[..., :-1]
            yield stored, None
            return
        with open_stream(file, path, max_pixels, decode=False, formats=formats_of(path)) as image:
            check_pages(len(find_pages(file, image)), path, None)
            check_lossless(image, path, content)
            coding = coding_of(image) if content == "values" else None
        file.seek(0)
        with open_stream(file, path, max_pixels, formats=formats_of(path)) as image:
            if image.mode.endswith("A"):
                check_alpha(np.asarray(image.getchannel("A")), path)
            if coding is None:
                yield image, no_data
            else:
                yield coding.undo(np.asarray(image).reshape(image.height, image.width, -1)), no_data


def declared_no_data(path: Path | str) -> float | None:
    """Return the value of pixels without data that a TIFF declares, or None.

    Raises:
        InputError: the file cannot be opened.
    """
    with regular_file(path) as file:
        return read_no_data(file)


def _whole_numbers(values: np.ndarray, no_data: float | None, path: Path | str) -> np.ndarray:
    """Return the class ids of a mask, with `NO_DATA` where it has none."""
    void = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if no_data is not None and not (0 <= no_data <= 65535 and no_data == int(no_data)):
        void |= values == no_data
    if values.dtype.kind == "f":
        whole = np.rint(np.where(void, 0, values)).clip(-(1 << 24), 1 << 24)
        if (wrong := np.argwhere((whole != values) & ~void)).size:
            y, x = wrong[0]
            what = f"mask has value {values[y, x]:g} at x={x}, y={y}, which is not a class id"
            raise InputError(path, what, "save the class id in one byte per pixel, and 255 for pixels without a class")
        values = whole.astype(np.int32)
    elif values.dtype not in (np.uint8, np.int32):
        values = values.astype(np.int64)
    return np.where(void, NO_DATA, values) if void.any() else values


def image_size(path: Path | str, bands: Bands = RGB, upright: bool = True) -> tuple[int, int]:
    """Read height and width of an image, as `read_image` returns it, from its header.

    Raises:
        InputError: not an image, or its header is damaged.
    """
    with regular_file(path) as file:
        if (reader := _other_reader(file, bands.channels is None)) is not None:  # `read_image` does not rotate these
            with damage_errors(path):
                return reader.header(file, path)[:2]
        with open_stream(file, path, max_pixels=None, decode=False, formats=formats_of(path)) as image:
            width, height = stored_size(image)
            return (width, height) if upright and header_orientation(file, image) in SWAPPING else (height, width)


def list_images(folder: Path, bands: Bands = RGB) -> list[Path]:
    """List the images in a folder in the order of their names, recognized by their suffix.

    Subfolders, hidden files and results of danet are skipped. Arrays are listed only if the number of bands is given.

    Raises:
        InputError: the folder does not exist, cannot be read, or contains no images.
    """
    if not folder.is_dir():
        raise missing_folder(folder, "specify a folder that contains images")
    suffixes = SUFFIXES if bands.channels is None else SUFFIXES + ARRAYS
    try:
        files = [p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith(".")]
    except OSError as error:
        raise InputError(folder, f"cannot be read ({error.strerror})", "change its permissions") from error
    images = sorted(file for file in files if not is_result(file))
    if not images:
        what = f"contains no images ({describe_suffixes(bands)})" + (", but results of danet" if files else "")
        raise InputError(folder, what, "specify a folder that contains images")
    return images


def describe_suffixes(bands: Bands = RGB) -> str:
    """Name the usual suffixes of images, for messages."""
    suffixes = SUFFIXES[:8] if bands.channels is None else SUFFIXES[:8] + ARRAYS
    return f"{', '.join(suffixes)} and {len(SUFFIXES) - 8} others"


def _read(
    file: Stream, name: Path | str, max_pixels: int, bands: Bands, upright: bool = True, page: int | None = None
) -> np.ndarray:
    if (reader := _other_reader(file, bands.channels is None)) is not None:
        check_pages(len(find_pages(file)), name, page)
        with damage_errors(name):
            return as_pixels(reader.read(file, name, max_pixels, page or 0), bands, name)
    if deep := deep_bands(file):
        stored, transparent = read_deep_png(file, name, max_pixels, upright, deep)
        if bands.channels is None and deep == 3:
            _blacken(stored, transparent)
        elif bands.channels is None:
            stored = (stored[..., :-1] * (stored[..., -1:] / 65535)).round().astype(np.uint16)
        return as_pixels(stored, bands, name)
    with open_stream(file, name, max_pixels, decode=False, formats=formats_of(name)) as image:
        pages = find_pages(file, image)
        check_pages(len(pages), name, page)
    file.seek(0)
    with open_stream(file, name, max_pixels, formats=formats_of(name), page=pages[page] if page else 0) as image:
        return to_pixels(image, name, bands, upright)


class _Reader(NamedTuple):
    header: Callable[[Stream, Path | str], Header]
    read: Callable[[Stream, Path | str, int, int], np.ndarray]


def _other_reader(file: Stream, rgb: bool) -> _Reader | None:
    """Return the reader for an open file that Pillow does not read completely, or None for Pillow."""
    if _starts_with(file, (NPY,)):
        return _Reader(npy_header, read_npy)
    if _starts_with(file, TIFF) and not pillow_reads_all(file, rgb):
        return _Reader(tiff_header, read_tiff)
    return None


def _starts_with(file: Stream, heads: tuple[bytes, ...]) -> bool:
    start = file.read(8)
    file.seek(0)
    return start.startswith(heads)


def _blacken(stored: np.ndarray, transparent: int | tuple[int, ...] | None) -> None:
    """Set the pixels of the color that a PNG declares as transparent (tRNS) to 0, in place."""
    if transparent is not None:
        stored[(stored == transparent).all(2)] = 0


def _over_black(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _stored(image: Image.Image, name: Path | str) -> np.ndarray:
    """Return the bands of a Pillow image as stored, H,W,N uint8 or uint16; palettes and other color spaces as RGB."""
    if image.mode == "F":
        raise InputError(name, "holds floating-point values", "convert it to 8 or 16 bits first")
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            what = f"holds 32-bit values from {gray.min()} to {gray.max()}, and 0 to 65535 can be read"
            raise InputError(name, what, "convert it to 8 or 16 bits first")
        return gray.astype(np.uint16)[..., None]
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, image.mode)
    image = image.convert(mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB")
    return np.asarray(image).reshape(image.height, image.width, -1)
