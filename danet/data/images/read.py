"""The only place that reads an image or a mask.

Pillow decodes (rasters.py what Pillow cannot), behind limits that are checked in the header before any pixel is; EXIF
orientation is applied; 16-bit values keep all their bits; a mask's palette indices stay indices. Whatever cannot be
read raises `InputError` with the file's name.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from danet.data.images import tiff_npy
from danet.data.images.channels import RGB, Bands, as_pixels
from danet.data.images.pillow import FORMATS, MAX_PIXELS, check_png, damage, decoded, opened, regular_file
from danet.errors import InputError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ARRAYS = (".npy",)
"""Images where the number of their bands is said; elsewhere arrays may be anything."""


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS, bands: Bands = RGB) -> np.ndarray:
    """An image as H,W,N uint8, or float32 where the file holds 16 bits or white is not 255; see bands.py. Upright;
    animations give their first frame. As RGB, transparency is laid over black.

    Raises:
        InputError: not a whole, readable image of these bands, of at most `max_pixels`.
    """
    with regular_file(path) as file:
        return _read(file, path, max_pixels, bands)


def decode_image(
    content: bytes,
    name: str,
    formats: tuple[str, ...] = FORMATS,
    max_pixels: int = MAX_PIXELS,
    bands: Bands = RGB,
) -> np.ndarray:
    """A file's bytes as `read_image` gives the file, but for animations, which are refused.

    Raises:
        InputError: not one whole, still image in one of the formats, of at most `max_pixels`.
    """
    with decoded(io.BytesIO(content), name, max_pixels, decode=False, formats=formats) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a camera's JPEG with a preview
            raise InputError(name, "an animation", "give a still image")
    return _read(io.BytesIO(content), name, max_pixels, bands)


def to_pixels(image: Image.Image, name: Path | str = "image", bands: Bands = RGB) -> np.ndarray:
    """A Pillow image as `read_image` gives its file, but for 16-bit colors, which Pillow holds in 8 bits."""
    image = _upright(image)
    if bands.channels is None and image.mode != "F" and not image.mode.startswith("I"):
        return as_pixels(np.asarray(_over_black(image)), bands, name)
    return as_pixels(_stored(image, name), bands, name)


def read_header(path: Path | str) -> tiff_npy.Header:
    """Size, bands and depth of an image, from its header alone. A palette counts as its three bands.

    Raises:
        InputError: not an image whose header can be read.
    """
    with regular_file(path) as file:
        if (how := _raster(file, rgb=False)) is not None:
            with damage(path):
                return how.header(file, path)
        deep = _deep_png(file)
        with decoded(file, path, max_pixels=None, decode=False) as image:
            mode = image.mode
            count = 1 if mode in ("1", "L") or mode.startswith("I") else {"LA": 2, "RGBA": 4}.get(mode, 3)
            return tiff_npy.Header(
                image.height, image.width, count, 16 if deep or mode.startswith("I") else 8, mode in ("LA", "RGBA")
            )


def read_mask(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A mask as H,W integers (uint8 or int32), exactly as stored: palette indices, not colors; floating-point numbers
    if all are whole. Not rotated by EXIF.

    Raises:
        InputError: not a whole, readable mask with one value a pixel.
    """
    with opened(path, max_pixels) as image:
        if image.format in ("JPEG", "WEBP"):
            raise InputError(
                path, f"a mask in a lossy format ({image.format}): its values are not those saved", "save masks as PNG"
            )
        check_alpha(image, path)
        if image.mode in ("1", "L", "P"):
            return np.asarray(image, np.uint8)
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.int32)
        if image.mode in ("LA", "PA"):
            return np.asarray(image.getchannel(0), np.uint8)
        values = np.asarray(image)
        if image.mode == "F":
            return _whole_numbers(values, path)
        if values.ndim == 3 and image.mode in ("RGB", "RGBA") and (values[..., :1] == values[..., :3]).all():
            return values[..., 0]
        raise InputError(
            path,
            f"a mask of mode {image.mode}: colors, not class ids",
            "save one byte a pixel, the class id, or write colors: in dataset.yaml",
        )


def _whole_numbers(values: np.ndarray, path: Path | str) -> np.ndarray:
    whole = np.rint(values).clip(0, 1 << 24)
    if (wrong := np.argwhere(whole != values)).size:
        y, x = wrong[0]
        what = f"a mask of numbers such as {values[y, x]:g} at x={x}, y={y}: not class ids"
        raise InputError(path, what, "save one byte a pixel, the class id, and 255 where there is none")
    return whole.astype(np.int32)


def check_alpha(image: Image.Image, path: Path | str) -> None:
    """Raises InputError for a mask whose transparency differs from pixel to pixel: it may say what counts."""
    if image.mode.endswith("A"):
        least, most = image.getchannel("A").getextrema()
        if least != most:
            raise InputError(path, "a mask with transparent and opaque pixels", "save it without transparency")


def image_size(path: Path | str, bands: Bands = RGB) -> tuple[int, int]:
    """Height and width that `read_image` gives the image, upright, from its header alone.

    Raises:
        InputError: not an image whose header can be read.
    """
    with regular_file(path) as file:
        if (how := _raster(file, bands.channels is None)) is not None:  # `read_image` does not turn these
            with damage(path):
                return how.header(file, path)[:2]
        with decoded(file, path, max_pixels=None, decode=False) as image:
            lies = _orientation(image) in (5, 6, 7, 8)
            return (image.width, image.height) if lies else (image.height, image.width)


def list_images(folder: Path, bands: Bands = RGB) -> list[Path]:
    """The images directly in a folder, by their suffix, in the order of their names; arrays where the number of bands
    is said.

    Raises:
        InputError: no such folder, one that cannot be read, or no image in it.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "give a folder with images")
    suffixes = SUFFIXES if bands.channels is None else SUFFIXES + ARRAYS
    try:
        found = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    except OSError as error:
        raise InputError(folder, f"cannot be read ({error.strerror})", "change its permissions") from error
    if not found:
        raise InputError(folder, f"no image in it ({', '.join(suffixes)})", "give a folder with images")
    return found


def _read(file: BinaryIO, name: Path | str, max_pixels: int, bands: Bands) -> np.ndarray:
    if (how := _raster(file, bands.channels is None)) is not None:
        with damage(name):
            return as_pixels(how.read(file, name, max_pixels), bands, name)
    if _deep_png(file):
        stored = _deep(file, name, max_pixels)
        if bands.channels is None and stored.shape[2] == 4:
            stored = (stored[..., :3] * (stored[..., 3:] / 65535)).round().astype(np.uint16)
        return as_pixels(stored, bands, name)
    with decoded(file, name, max_pixels) as image:
        return to_pixels(image, name, bands)


class _Raster(NamedTuple):
    header: Callable[[BinaryIO, Path | str], tiff_npy.Header]
    read: Callable[[BinaryIO, Path | str, int], np.ndarray]


def _raster(file: BinaryIO, rgb: bool) -> _Raster | None:
    """How an open file is read that Pillow does not hold whole; None: by Pillow."""
    start = file.read(6)
    file.seek(0)
    if start == tiff_npy.NPY:
        return _Raster(tiff_npy.npy_header, tiff_npy.read_npy)
    if start[:4] in tiff_npy.TIFF and not tiff_npy.pillow_holds(file, rgb):
        return _Raster(tiff_npy.tiff_header, tiff_npy.read_tiff)
    return None


def _deep_png(file: BinaryIO) -> bool:
    """Whether an open file is a PNG of 16-bit colors, with or without alpha."""
    start = file.read(26)
    file.seek(0)
    return start[:4] == b"\x89PNG" and start[24:] in (b"\x10\x02", b"\x10\x06")


def _deep(file: BinaryIO, name: Path | str, max_pixels: int) -> np.ndarray:
    """Such a PNG as H,W,N uint16. Pillow keeps one byte of the two: the first if told that the values are big-endian,
    as they are, and the second if told that they are little-endian.
    """
    halves = []
    with damage(name):
        check_png(file)
    for order in "BL":
        file.seek(0)
        with decoded(file, name, max_pixels, decode=False) as image:
            assert isinstance(image, ImageFile.ImageFile)
            image.tile = [tile._replace(args=f"{image.mode};16{order}") for tile in image.tile]
            halves.append(np.asarray(_upright(image)).astype(np.uint16))
    return halves[0] << 8 | halves[1]


def _over_black(image: Image.Image) -> Image.Image:
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _stored(image: Image.Image, name: Path | str) -> np.ndarray:
    """A Pillow image's bands as they are, H,W,N uint8 or uint16; palettes and other color spaces as RGB."""
    if image.mode == "F":
        raise InputError(name, "holds floating-point values", "convert it to 8 or 16 bits first")
    if image.mode.startswith("I"):
        gray = np.asarray(image).astype(np.int64)
        if gray.min() < 0 or gray.max() > 65535:
            raise InputError(name, f"holds 32-bit values up to {gray.max()}", "convert it to 8 or 16 bits first")
        return gray.astype(np.uint16)[..., None]
    mode = {"1": "L", "La": "LA", "RGBa": "RGBA", "PA": "RGBA"}.get(image.mode, image.mode)
    image = image.convert(mode if mode in ("L", "LA", "RGB", "RGBA") else "RGB")
    return np.asarray(image).reshape(image.height, image.width, -1)


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image) if _orientation(image) in range(2, 9) else image
    except Exception:  # a broken EXIF block says nothing about the orientation
        return image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # as above
        return 1
