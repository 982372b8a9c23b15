"""Open image files and decode them with Pillow. Damaged files raise `InputError` with the file's name."""

import errno
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from PIL import ExifTags, Image, ImageOps

from danet.data.images.checks import check_png, check_scans, check_tiles, png_chunks
from danet.data.images.formats import FORMATS, Stream, formats_of
from danet.errors import InputError, missing_file, missing_package
from danet.files import open_regular

logging.getLogger("PIL").addHandler(logging.NullHandler())  # errors are raised; Python would print them a second time

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""

SWAPPING = (5, 6, 7, 8)
"""The EXIF orientations that swap width and height."""

_INVERSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""EXIF orientation -> the operation that undoes it."""

_MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG2000",
}

_MAX_NAMED = 6  # formats that a message suggests
_HEIF = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1")  # brands

_FOREIGN = {  # the first bytes of files that users take for images
    b"%PDF": ("a PDF", "export the page as PNG"),
    b"<!DO": ("a web page", "download the image itself"),
    b"<!do": ("a web page", "download the image itself"),
    b"<htm": ("a web page", "download the image itself"),
    b"<svg": ("an SVG drawing", "export it as PNG"),
    b"<?xm": ("an XML or SVG file", "export it as PNG"),
    b"\x89HDF": ("an HDF5 file", "export the image as PNG"),
    b"PK\x03\x04": ("a zip archive", "unpack it first"),
}


@contextmanager
def open_image(path: Path | str, max_pixels: int | None, decode: bool = True) -> Iterator[Image.Image]:
    """Open an image file with Pillow; arguments and errors as in `open_stream` and `regular_file`."""
    with regular_file(path) as file, open_stream(file, path, max_pixels, decode, formats_of(path)) as image:
        yield image


@contextmanager
def regular_file(path: Path | str) -> Iterator[BinaryIO]:
    """Open a regular file for reading.

    Raises:
        InputError: it does not exist, is not a regular file, or may not be read. Also for errors of the disk, and if
            the memory is exhausted, in the block.
    """
    path = Path(path)
    with ExitStack() as stack:
        try:
            file = stack.enter_context(open_regular(path))
        except FileNotFoundError as error:
            raise missing_file(path) from error
        except PermissionError as error:
            raise InputError(path, "no permission to read it", "change its permissions") from error
        except (OSError, ValueError) as error:
            reason = str(getattr(error, "strerror", None) or error)
            if getattr(error, "errno", None) in (errno.EISDIR, errno.EINVAL):
                raise InputError(path, reason.removeprefix("it "), "specify an image") from error
            raise InputError(path, f"cannot be opened ({reason})", "check the path") from error
        try:
            with without_warnings():
                yield file
        except OSError as error:
            if error.errno is None or error.filename is not None:  # not about this file
                raise
            raise _unreadable(path, error) from error
        except MemoryError as error:
            what, remedy = "not enough memory for it", "free some memory, or make it smaller"
            raise InputError(path, what, remedy) from error.with_traceback(None)  # which holds the memory


@contextmanager
def open_stream(
    file: Stream,
    path: Path | str,
    max_pixels: int | None,
    decode: bool = True,
    formats: tuple[str, ...] = FORMATS,
    page: int = 0,
) -> Iterator[Image.Image]:
    """Open the image in an open file with Pillow, as stored: no orientation is applied.

    Args:
        file: the open file, at its start.
        path: its path, for messages.
        max_pixels: the limit on the number of pixels; None: no limit.
        decode: whether to decode the pixels now; if not, only the header is read.
        formats: the accepted formats, as Pillow names them.
        page: the position of the page in a stack or animation.

    Raises:
        InputError: not an image of these formats, too many pixels, or damaged.
    """
    with damage_errors(path):
        start = file.read(16)
        if not start:
            raise InputError(path, "empty file (0 bytes)", "copy it again")
        file.seek(0)
        try:
            image = Image.open(file, formats=formats)
            if page:
                image.seek(page)
            orientation = orientation_of(image) if image.format == "TIFF" else 1
            if max_pixels is not None:
                _check_pixels(image.size, path, max_pixels)
                check_tiles(image, path, max_pixels)
            if decode:
                check_png(file)
                check_scans(file, path)
                image.load()
                if max_pixels is not None:
                    _check_pixels(image.size, path, max_pixels)  # an icon may contain another image than it declares
                image = _as_stored(image, orientation)
            yield image
        except Image.UnidentifiedImageError as error:
            raise _not_an_image(path, start, formats) from error
        except ValueError as error:
            if "PngImagePlugin.MAX_TEXT" not in str(error):
                raise
            raise InputError(path, "contains text that unpacks to over 1 MB", "save it without metadata") from error
        except Image.DecompressionBombError as error:
            limit = MAX_PIXELS if max_pixels is None else max_pixels
            raise InputError(path, f"more pixels than the limit of {limit:,}", "make it smaller") from error


def _check_pixels(size: tuple[int, int], path: Path | str, max_pixels: int) -> None:
    if size[0] * size[1] > max_pixels:
        what = f"{size[0]} x {size[1]}: more pixels than the limit of {max_pixels:,}"
        raise InputError(path, what, "make it smaller")


def orientation_of(image: Image.Image) -> int:
    """Return the EXIF orientation of an image, 1 to 8; 1 if there is none or it is damaged."""
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        return 1
    return orientation if orientation in range(1, 9) else 1


def stored_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of an opened image that is not decoded yet, before its orientation is applied."""
    swapped = image.format == "TIFF" and orientation_of(image) in SWAPPING
    return (image.height, image.width) if swapped else image.size


def _as_stored(image: Image.Image, orientation: int) -> Image.Image:
    """Undo the orientation that Pillow applies to a TIFF, and to no other format, when it decodes it."""
    if image.format != "TIFF" or orientation == 1:
        return image
    stored = image.transpose(_INVERSE[orientation])
    stored.format = image.format
    stored.getexif()[ExifTags.Base.Orientation] = orientation
    return stored


def header_orientation(file: Stream, image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image without decoding its pixels, which may be many."""
    if image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys():
        return orientation_of(image)
    exif = Image.Exif()
    for kind, length in png_chunks(file):
        if kind == b"eXIf":
            exif.load(b"Exif\0\0" + file.read(length))
    image.info["exif"] = exif.tobytes()
    return orientation_of(image)


def turn_upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation of an image."""
    try:
        return ImageOps.exif_transpose(image) if orientation_of(image) > 1 else image
    except Exception:  # a damaged EXIF block; assume that the image is upright
        return image


@contextmanager
def damage_errors(path: Path | str) -> Iterator[None]:
    """Turn every exception that damaged files cause in Pillow, NumPy and rasterio into `InputError`."""
    try:
        with without_warnings():
            yield
    except (InputError, MemoryError):
        raise
    except OSError as error:
        if error.errno is None:  # raised by Pillow, not by the system
            raise _damaged(path) from error
        raise _unreadable(path, error) from error
    except Exception as error:  # a dozen types, such as tokenize.TokenError for the header of an array
        raise _damaged(path) from error


@contextmanager
def without_warnings() -> Iterator[None]:
    """Ignore the warnings of image libraries about unusual metadata, and about sizes, which are checked here.

    `warnings.catch_warnings` is not thread-safe: of blocks that overlap, the one that ends last leaves the filters of
    another one. Here, one filter for these libraries alone is in place while any thread is in such a block.
    """
    global _readers
    filters: list[Any] = cast(list, warnings.filters)
    with _lock:
        _readers += 1
        if _FILTER not in filters:
            filters.insert(0, _FILTER)
    try:
        yield
    finally:
        with _lock:
            _readers -= 1
            if not _readers and _FILTER in (filters := cast(list, warnings.filters)):
                filters.remove(_FILTER)


_LIBRARIES = re.compile(r"(PIL|numpy|rasterio|pillow_heif|danet\.data\.images)\b")
_FILTER = ("ignore", None, Warning, _LIBRARIES, 0)  # as in `warnings.filters`
_lock, _readers = threading.Lock(), 0


def _damaged(path: Path | str) -> InputError:
    return InputError(path, "truncated or damaged", "copy it again")


def _unreadable(path: Path | str, error: OSError) -> InputError:
    return InputError(path, f"cannot be read ({error.strerror})", "check the disk, and copy it again")


def _not_an_image(path: Path | str, start: bytes, formats: tuple[str, ...]) -> InputError:
    """Return the error for a file that Pillow does not recognize, from its first 16 bytes."""
    known = next((kind for head, kind in _MAGIC.items() if start.startswith(head)), None)
    if known in formats:
        return _damaged(path)
    if start[4:8] == b"ftyp":
        kind = "HEIF" if start[8:12] in _HEIF else "AVIF" if start[8:12] in (b"avif", b"avis") else None
        if kind in formats:
            return _damaged(path)
        if kind == "HEIF" and "AVIF" in formats:
            return missing_package(path, "a HEIC image, and pillow-heif is not installed", "heif")
        return InputError(path, "not an image (a HEIC, AVIF or video file)", "convert it to JPEG or PNG")
    if start[8:10] == b'{"':  # a safetensors file
        return InputError(path, "not an image (weights)", "specify it as `weights`")
    for head, (what, remedy) in _FOREIGN.items():
        if start.startswith(head):
            return InputError(path, f"not an image ({what})", remedy)
    *others, last = (kind.replace("WEBP", "WebP") for kind in formats[:_MAX_NAMED])
    what = "not an image" if known is None else f"a {known} image, which is not read here"
    return InputError(path, what, f"use {', '.join(others)} or {last}" if others else f"use {last}")
