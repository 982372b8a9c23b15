"""Open image files and decode them with Pillow. Damaged files raise `InputError` with the file's name."""

import errno
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import ExifTags, Image

from danet.data.images.formats import FORMATS, formats_of
from danet.errors import InputError, missing_file, missing_package
from danet.files import open_regular

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
    file: BinaryIO,
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
            if max_pixels is not None and image.width * image.height > max_pixels:
                what = f"{image.width} x {image.height}: more pixels than the limit of {max_pixels:,}"
                raise InputError(path, what, "make it smaller")
            if decode:
                check_png(file)
                image.load()
                image = _as_stored(image, orientation)
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


def header_orientation(file: BinaryIO, image: Image.Image) -> int:
    """Return the EXIF orientation of an opened image without decoding its pixels, which may be many."""
    if image.format != "PNG" or {"exif", "Raw profile type exif"} & image.info.keys():
        return orientation_of(image)
    exif = Image.Exif()
    for kind, length in _png_chunks(file):
        if kind == b"eXIf":
            exif.load(b"Exif\0\0" + file.read(length))
    image.info["exif"] = exif.tobytes()
    return orientation_of(image)


def check_png(file: BinaryIO) -> None:
    """Check the checksum of the pixels of an open PNG. The position in the file does not change.

    Pillow ignores the checksum and decodes damaged pixels without an error.

    Raises:
        ValueError: the checksum is wrong.
    """
    for kind, length in _png_chunks(file):
        if kind == b"IDAT" and zlib.crc32(file.read(length), zlib.crc32(kind)).to_bytes(4, "big") != file.read(4):
            raise ValueError("the checksum of its pixels is wrong")


def _png_chunks(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
    """Yield the type and length of each chunk of an open PNG; the file is at its content. Other files have none."""
    place = file.tell()
    file.seek(0)
    start = 8 if file.read(8) == b"\x89PNG\r\n\x1a\n" else None
    while start is not None:
        file.seek(start)
        head = file.read(8)
        if len(head) < 8:
            break
        length = int.from_bytes(head[:4], "big")
        yield head[4:], length
        start += length + 12
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
        kind = "HEIF" if start[8:12] in _HEIF else "AVIF" if start[8:12] in (b"avif", b"avis") else None
        if kind in formats:
            return _damaged(path)
        if kind == "HEIF" and "AVIF" in formats:
            return missing_package(path, "a HEIC image, and pillow-heif is not installed", "heif")
        return InputError(path, "not an image (a HEIC, AVIF or video file)", "convert it to JPEG or PNG")
    for head, (what, remedy) in _FOREIGN.items():
        if start.startswith(head):
            return InputError(path, f"not an image ({what})", remedy)
    *others, last = (kind.replace("WEBP", "WebP") for kind in formats)
    return InputError(path, "not an image", f"use {', '.join(others)} or {last}" if others else f"use {last}")
