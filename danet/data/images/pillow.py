"""Open image files and decode them with Pillow. Damaged files raise `InputError` with the file's name."""

import errno
import io
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from danet.errors import InputError, missing_file
from danet.files import open_regular

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")  # in Pillow's spelling

_MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
}

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
    with regular_file(path) as file, open_stream(file, path, max_pixels, decode) as image:
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
    file: BinaryIO, path: Path | str, max_pixels: int | None, decode: bool = True, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """Open the image in an open file with Pillow.

    Args:
        file: the open file, at its start.
        path: its path, for messages.
        max_pixels: the limit on the number of pixels; None: no limit.
        decode: whether to decode the pixels now; if not, only the header is read.
        formats: the accepted formats, as Pillow names them.

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
            if max_pixels is not None and image.width * image.height > max_pixels:
                what = f"{image.width} x {image.height}: more pixels than the limit of {max_pixels:,}"
                raise InputError(path, what, "make it smaller")
            if decode:
                check_png(file)
                image.load()
            yield image
        except Image.UnidentifiedImageError as error:
            raise _not_an_image(path, start, formats) from error
        except ValueError as error:
            if "PngImagePlugin.MAX_TEXT" not in str(error):
                raise
            raise InputError(path, "contains text that unpacks to over 1 MB", "save it without metadata") from error
        except Image.DecompressionBombError as error:
            limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
            raise InputError(path, f"more pixels than the limit of {limit:,}", "make it smaller") from error


def check_png(file: BinaryIO) -> None:
    """Check the checksum of the pixels of an open PNG. The position in the file does not change.

    Pillow ignores the checksum and decodes damaged pixels without an error.

    Raises:
        ValueError: the checksum is wrong.
    """
    place = file.tell()
    file.seek(0)
    if file.read(8) == b"\x89PNG\r\n\x1a\n":
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind != b"IDAT":
                file.seek(length + 4, io.SEEK_CUR)
            elif zlib.crc32(file.read(length), zlib.crc32(kind)).to_bytes(4, "big") != file.read(4):
                raise ValueError("the checksum of its pixels is wrong")
    file.seek(place)


@contextmanager
def damage_errors(path: Path | str) -> Iterator[None]:
    """Turn every exception that damaged files cause in Pillow, NumPy and rasterio into `InputError`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about unusual metadata, and about sizes, which are checked here
        try:
            yield
        except (InputError, MemoryError):
            raise
        except OSError as error:
            if error.errno is None:  # raised by Pillow, not by the system
                raise _damaged(path) from error
            raise _unreadable(path, error) from error
        except Exception as error:  # a dozen types, such as tokenize.TokenError for the header of an array
            raise _damaged(path) from error


def _damaged(path: Path | str) -> InputError:
    return InputError(path, "truncated or damaged", "copy it again")


def _unreadable(path: Path | str, error: OSError) -> InputError:
    return InputError(path, f"cannot be read ({error.strerror})", "check the disk, and copy it again")


def _not_an_image(path: Path | str, start: bytes, formats: tuple[str, ...]) -> InputError:
    """Return the error for a file that Pillow does not recognize, from its first 16 bytes."""
    if any(start.startswith(head) and kind in formats for head, kind in _MAGIC.items()):
        return _damaged(path)
    if start[4:8] == b"ftyp":
        return InputError(path, "not an image (a HEIC, AVIF or video file)", "convert it to JPEG or PNG")
    for head, (what, remedy) in _FOREIGN.items():
        if start.startswith(head):
            return InputError(path, f"not an image ({what})", remedy)
    *others, last = (kind.replace("WEBP", "WebP") for kind in formats)
    return InputError(path, "not an image", f"use {', '.join(others)} or {last}" if others else f"use {last}")
