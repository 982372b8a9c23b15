"""The doors to an image's file: a regular file, opened; an image that Pillow decodes; what broken files provoke, as
`InputError` with the file's name. Used by images.py.
"""

import io
import stat
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from danet.errors import InputError

MAX_PIXELS = 64_000_000
"""Larger images are refused before they are decoded."""

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

_MAGIC = {
    b"\x89PNG": "PNG",
    b"\xff\xd8": "JPEG",
    b"RIFF": "WEBP",
    b"BM": "BMP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"GIF8": "GIF",
}

_FOREIGN = {  # how files that are no image of these formats begin
    b"%PDF": "a PDF; export the page as PNG",
    b"<!DO": "a web page; download the image itself",
    b"<!do": "a web page; download the image itself",
    b"<htm": "a web page; download the image itself",
    b"<svg": "an SVG drawing; export it as PNG",
    b"<?xm": "an XML or SVG file; export it as PNG",
    b"\x89HDF": "an HDF5 file; export the image as PNG",
    b"PK\x03\x04": "a zip archive; unpack it first",
}


@contextmanager
def opened(path: Path | str, max_pixels: int | None, decode: bool = True) -> Iterator[Image.Image]:
    """`decoded` of a file."""
    with regular_file(path) as file, decoded(file, path, max_pixels, decode) as image:
        yield image


@contextmanager
def regular_file(path: Path | str) -> Iterator[BinaryIO]:
    """The file, opened; raises InputError where there is none to be read."""
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be opened ({error})", "check the path") from error
    if stat.S_ISDIR(mode):
        raise InputError(path, "is a folder", "give an image")
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise InputError(path, "is not a regular file", "give an image")
    try:
        file = open(path, "rb")  # noqa: SIM115
    except PermissionError as error:
        raise InputError(path, "no permission to read it", "change its permissions") from error
    except OSError as error:
        raise InputError(path, f"cannot be opened ({error})", "check the path") from error
    with file:
        yield file


@contextmanager
def decoded(
    file: BinaryIO, path: Path | str, max_pixels: int | None, decode: bool = True, formats: tuple[str, ...] = FORMATS
) -> Iterator[Image.Image]:
    """The image in an open file, its pixels read if `decode`; raises InputError for what is none or has too many."""
    with damage(path):
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
            known = next((text for head, text in _FOREIGN.items() if start.startswith(head)), None)
            if start[4:8] == b"ftyp":
                known = "a HEIC, AVIF or video file; convert it to JPEG or PNG"
            kind = next((kind for head, kind in _MAGIC.items() if start.startswith(head)), None)
            if kind in formats:
                raise InputError(path, "truncated or damaged (its header cannot be read)", "copy it again") from error
            what, remedy = (known or f"begins with {start[:4]!r}; give {', '.join(formats)}").split("; ")
            raise InputError(path, f"not an image ({what})", remedy) from error
        except ValueError as error:
            if "PngImagePlugin.MAX_TEXT" not in str(error):
                raise
            raise InputError(path, "a text in it unpacks to over 1 MB", "save it again without metadata") from error
        except Image.DecompressionBombError as error:
            limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
            raise InputError(path, f"more pixels than the limit of {limit:,}", "make it smaller") from error


def check_png(file: BinaryIO) -> None:
    """Raises ValueError where the pixels of an open PNG have not the checksum that they were saved with. Pillow does
    not look at it, and reads another image. The file is left where it was.
    """
    place = file.tell()
    file.seek(0)
    if file.read(8) == b"\x89PNG\r\n\x1a\n":
        while len(head := file.read(8)) == 8:
            length, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind != b"IDAT":
                file.seek(length + 4, io.SEEK_CUR)
            elif zlib.crc32(file.read(length), zlib.crc32(kind)).to_bytes(4, "big") != file.read(4):
                raise ValueError("its pixels have another checksum")
    file.seek(place)


@contextmanager
def damage(path: Path | str) -> Iterator[None]:
    """What broken files provoke in Pillow, NumPy and rasterio becomes one kind of error."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata, and of sizes that are checked here
        try:
            yield
        except (InputError, MemoryError):
            raise
        except Exception as error:  # of a dozen kinds: tokenize.TokenError for the header of an array
            raise InputError(path, f"truncated or damaged ({error})", "copy it again") from error
