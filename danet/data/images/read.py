"""Read images and masks. All code that reads an image or a mask calls these functions.

Files are decoded by Pillow, or by npy.py and geotiff.py if Pillow does not support them. Limits are checked in the
header before any pixel is decoded. EXIF orientation is applied, 16-bit values keep all their bits, and a mask's palette
indices stay indices. Every error is an `InputError` with the file's name.
"""

import io
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps

from danet.data.images.channels import RGB, Bands, Header, as_pixels
from danet.data.images.geotiff import TIFF, pillow_reads_all, read_tiff, tiff_header
from danet.data.images.npy import NPY, npy_header, read_npy
from danet.data.images.pillow import (
    FORMATS,
    MAX_PIXELS,
    check_png,
    damage_errors,
    open_image,
    open_stream,
    regular_file,
)
from danet.errors import InputError, missing_folder

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
ARRAYS = (".npy",)
"""Suffixes that are images only if the number of bands is given; other arrays may contain anything."""


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS, bands: Bands = RGB) -> np.ndarray:
    """Read an image, upright; the first frame of an animation. For RGB, transparency is composited over black.

    Args:
        path: the file.
        max_pixels: the limit on the number of pixels.
        bands: the expected bands, and the value of white.

    Returns:
        H,W,N uint8, or float32 if the file has 16 bits or white is not 255; see channels.py.

    Raises:
        InputError: not a complete, readable image with these bands and at most `max_pixels`.
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
    with open_stream(io.BytesIO(content), name, max_pixels, decode=False, formats=formats) as image:
        if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:  # MPO: a camera's JPEG with a preview
            raise InputError(name, "is an animation", "use a still image")
    return _read(io.BytesIO(content), name, max_pixels, bands)


def to_pixels(image: Image.Image, name: Path | str = "image", bands: Bands = RGB) -> np.ndarray:
    """Convert a Pillow image as `read_image` reads its file, except for 16-bit colors, which Pillow reduces to 8."""
    image = _upright(image)
    if bands.channels is None and image.mode != "F" and not image.mode.startswith("I"):
        return as_pixels(np.asarray(_over_black(image)), bands, name)
    return as_pixels(_stored(image, name), bands, name)


def read_header(path: Path | str) -> Header:
    """Read the size, number of bands and depth of an image from its header. A palette counts as three bands.

    Raises:
        InputError: not an image, or its header is damaged.
    """
    with regular_file(path) as file:
        if (reader := _other_reader(file, rgb=False)) is not None:
            with damage_errors(path):
                return reader.header(file, path)
        deep = _is_deep_png(file)
        with open_stream(file, path, max_pixels=None, decode=False) as image:
            mode = image.mode
            count = 1 if mode in ("1", "L") or mode.startswith("I") else {"LA": 2, "RGBA": 4}.get(mode, 3)
            bits = 16 if deep or mode.startswith("I") else 8
            return Header(image.height, image.width, count, bits, mode in ("LA", "RGBA"))


def read_mask(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Read a mask as H,W integers (uint8 or int32), exactly as stored.

    Palette masks give indices, not colors. Floating-point values are accepted if all are whole numbers. EXIF
    orientation is ignored.

    Raises:
        InputError: not a complete, readable mask with one value per pixel.
    """
    with open_image(path, max_pixels) as image:
        check_lossless(image, path, "values")
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
            "save the class id in one byte per pixel, or write colors: in dataset.yaml",
        )


def _whole_numbers(values: np.ndarray, path: Path | str) -> np.ndarray:
    whole = np.rint(values).clip(0, 1 << 24)
    if (wrong := np.argwhere(whole != values)).size:
        y, x = wrong[0]
        what = f"mask has value {values[y, x]:g} at x={x}, y={y}, which is not a class id"
        raise InputError(path, what, "save the class id in one byte per pixel, and 255 for pixels without a class")
    return whole.astype(np.int32)


def check_lossless(image: Image.Image, path: Path | str, content: str) -> None:
    """Check that a mask is not stored in a lossy format.

    Args:
        image: the mask.
        path: its file, for messages.
        content: what a lossy format changes: "values" or "colors".

    Raises:
        InputError: it is.
    """
    if image.format in ("JPEG", "WEBP"):
        what = f"a mask in a lossy format ({image.format}), which changes {content}"
        raise InputError(path, what, "save masks as PNG")


def check_alpha(image: Image.Image, path: Path | str) -> None:
    """Check that the pixels of a mask are equally transparent; otherwise transparency may have a meaning.

    Raises:
        InputError: they are not.
    """
    if image.mode.endswith("A"):
        least, most = image.getchannel("A").getextrema()
        if least != most:
            raise InputError(path, "a mask with transparent and opaque pixels", "save it without transparency")


def image_size(path: Path | str, bands: Bands = RGB) -> tuple[int, int]:
    """Read height and width of an image, upright as in `read_image`, from its header.

    Raises:
        InputError: not an image, or its header is damaged.
    """
    with regular_file(path) as file:
        if (reader := _other_reader(file, bands.channels is None)) is not None:  # `read_image` does not rotate these
            with damage_errors(path):
                return reader.header(file, path)[:2]
        with open_stream(file, path, max_pixels=None, decode=False) as image:
            rotated = _orientation(image) in (5, 6, 7, 8)
            return (image.width, image.height) if rotated else (image.height, image.width)


def list_images(folder: Path, bands: Bands = RGB) -> list[Path]:
    """List the images in a folder in the order of their names, recognized by their suffix.

    Subfolders and hidden files are skipped. Arrays are listed only if the number of bands is given.

    Raises:
        InputError: the folder does not exist, cannot be read, or contains no images.
    """
    if not folder.is_dir():
        raise missing_folder(folder, "specify a folder that contains images")
    suffixes = SUFFIXES if bands.channels is None else SUFFIXES + ARRAYS
    try:
        images = sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes and not p.name.startswith("."))
    except OSError as error:
        raise InputError(folder, f"cannot be read ({error.strerror})", "change its permissions") from error
    if not images:
        raise InputError(folder, f"contains no images ({', '.join(suffixes)})", "specify a folder that contains images")
    return images


def _read(file: BinaryIO, name: Path | str, max_pixels: int, bands: Bands) -> np.ndarray:
    if (reader := _other_reader(file, bands.channels is None)) is not None:
        with damage_errors(name):
            return as_pixels(reader.read(file, name, max_pixels), bands, name)
    if _is_deep_png(file):
        stored = _read_deep_png(file, name, max_pixels)
        if bands.channels is None and stored.shape[2] == 4:
            stored = (stored[..., :3] * (stored[..., 3:] / 65535)).round().astype(np.uint16)
        return as_pixels(stored, bands, name)
    with open_stream(file, name, max_pixels) as image:
        return to_pixels(image, name, bands)


class _Reader(NamedTuple):
    header: Callable[[BinaryIO, Path | str], Header]
    read: Callable[[BinaryIO, Path | str, int], np.ndarray]


def _other_reader(file: BinaryIO, rgb: bool) -> _Reader | None:
    """Return the reader for an open file that Pillow does not read completely, or None for Pillow."""
    start = file.read(6)
    file.seek(0)
    if start == NPY:
        return _Reader(npy_header, read_npy)
    if start[:4] in TIFF and not pillow_reads_all(file, rgb):
        return _Reader(tiff_header, read_tiff)
    return None


def _is_deep_png(file: BinaryIO) -> bool:
    """Return whether an open file is a PNG of 16-bit colors, with or without alpha."""
    start = file.read(26)
    file.seek(0)
    return start[:4] == b"\x89PNG" and start[24:] in (b"\x10\x02", b"\x10\x06")


def _read_deep_png(file: BinaryIO, name: Path | str, max_pixels: int) -> np.ndarray:
    """Read a PNG of 16-bit colors as H,W,N uint16.

    Pillow keeps one byte of each value: the high byte if the raw mode is big-endian, the low byte if it is
    little-endian. So the file is decoded once for each.
    """
    halves = []
    with damage_errors(name):
        check_png(file)
    for order in "BL":
        file.seek(0)
        with open_stream(file, name, max_pixels, decode=False) as image:
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
    """Return the bands of a Pillow image as stored, H,W,N uint8 or uint16; palettes and other color spaces as RGB."""
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
    except Exception:  # a damaged EXIF block; assume that the image is upright
        return image


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
