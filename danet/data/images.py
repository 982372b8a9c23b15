"""The only place that opens an image or a mask.

Pillow decodes, behind limits that are checked in the header before any pixel is; EXIF orientation is applied; 16-bit
values are scaled, never clipped; a mask's palette indices stay indices. Whatever cannot be read raises `InputError`
with the file's name.
"""

import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from danet.errors import InputError

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before they are decoded."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF")

_MAGIC = (b"\x89PNG", b"\xff\xd8", b"GIF8", b"BM", b"RIFF", b"II*\0", b"MM\0*")

_FOREIGN = {  # how files that are no image of these formats begin
    b"%PDF": "a PDF; export the page as PNG",
    b"<!DO": "a web page; download the picture itself",
    b"<!do": "a web page; download the picture itself",
    b"<htm": "a web page; download the picture itself",
    b"<svg": "an SVG drawing; export it as PNG",
    b"<?xm": "an XML or SVG file; export it as PNG",
    b"\x89HDF": "an HDF5 file; export the picture as PNG",
    b"PK\x03\x04": "a zip archive; unpack it first",
}


def read_image(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A picture as H,W,3 uint8 RGB, upright; transparency is laid over black, animations give their first frame.

    Raises:
        InputError: not a whole, readable picture of at most `max_pixels`.
    """
    with _opened(path, max_pixels) as image:
        return to_rgb(image, path)


def to_rgb(image: Image.Image, name: Path | str = "image") -> np.ndarray:
    """A decoded Pillow picture as H,W,3 uint8 RGB, upright. See `read_image`."""
    image = _upright(image)
    if image.mode == "F":
        raise InputError(name, "holds floating-point values", "convert it to 8 or 16 bits first")
    if image.mode.startswith("I"):  # 16-bit grey: Pillow would clip at 255
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise InputError(name, f"holds 32-bit values up to {grey.max()}", "convert it to 8 or 16 bits first")
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[..., None], 3, axis=2)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_mask(path: Path | str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """A mask as H,W integers (uint8 or int32), exactly as stored: palette indices, not colours. Not rotated by EXIF.

    Raises:
        InputError: not a whole, readable mask with one value a pixel.
    """
    with _opened(path, max_pixels) as image:
        if image.format in ("JPEG", "WEBP"):
            raise InputError(
                path, f"a mask in a lossy format ({image.format}): its values are not those saved", "save masks as PNG"
            )
        if image.mode in ("1", "L", "P"):
            return np.asarray(image, np.uint8)
        if image.mode.startswith("I"):
            return np.asarray(image).astype(np.int32)
        if image.mode in ("LA", "PA"):
            return np.asarray(image.getchannel(0), np.uint8)
        values = np.asarray(image)
        if values.ndim == 3 and image.mode in ("RGB", "RGBA") and (values[..., :1] == values[..., :3]).all():
            return values[..., 0]
        raise InputError(
            path,
            f"a mask of mode {image.mode}: colours, not class ids",
            "save one byte a pixel, the class id, or write colours: in dataset.yaml",
        )


def image_size(path: Path | str) -> tuple[int, int]:
    """Height and width of the upright picture, from its header alone."""
    with _opened(path, max_pixels=None, decode=False) as image:
        turned = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        return (image.width, image.height) if turned else (image.height, image.width)


def list_images(folder: Path) -> list[Path]:
    """The pictures directly in a folder, by their suffix, in the order of their names.

    Raises:
        InputError: no such folder, or no picture in it.
    """
    if not folder.is_dir():
        raise InputError(folder, "no such folder", "give a folder with pictures")
    found = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
    if not found:
        raise InputError(folder, f"no picture in it ({', '.join(SUFFIXES)})", "give a folder with pictures")
    return found


@contextmanager
def _opened(path: Path | str, max_pixels: int | None, decode: bool = True) -> Iterator[Image.Image]:
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except FileNotFoundError as error:
        raise InputError(path, "no such file", "check the path") from error
    except (OSError, ValueError) as error:
        raise InputError(path, f"cannot be opened ({error})", "check the path") from error
    if stat.S_ISDIR(mode):
        raise InputError(path, "is a folder", "give a picture")
    if not stat.S_ISREG(mode):  # opening a FIFO would wait for ever
        raise InputError(path, "is not a regular file", "give a picture")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow warns of odd metadata and of sizes that are checked here
        try:
            with open(path, "rb") as file:
                start = file.read(16)
                if not start:
                    raise InputError(path, "empty file (0 bytes)", "copy it again")
                file.seek(0)
                image = Image.open(file, formats=FORMATS)
                if max_pixels is not None and image.width * image.height > max_pixels:
                    what = f"{image.width} x {image.height}: more pixels than the limit of {max_pixels:,}"
                    raise InputError(path, what, "make it smaller")
                if decode:
                    image.load()
                yield image
        except InputError:
            raise
        except Image.UnidentifiedImageError as error:
            known = next((text for head, text in _FOREIGN.items() if start.startswith(head)), None)
            if start[4:8] == b"ftyp":
                known = "a HEIC, AVIF or video file; convert it to JPEG or PNG"
            if start.startswith(_MAGIC):
                raise InputError(path, "truncated or damaged (its header cannot be read)", "copy it again") from error
            what, remedy = (known or f"begins with {start[:4]!r}; give JPEG, PNG, WebP, BMP, TIFF or GIF").split("; ")
            raise InputError(path, f"not an image ({what})", remedy) from error
        except PermissionError as error:
            raise InputError(path, "no permission to read it", "change its permissions") from error
        except Image.DecompressionBombError as error:
            limit = Image.MAX_IMAGE_PIXELS if max_pixels is None else max_pixels
            raise InputError(path, f"more pixels than the limit of {limit:,}", "make it smaller") from error
        except (
            OSError,
            SyntaxError,
            ValueError,
            EOFError,
            IndexError,
            TypeError,
            KeyError,
            ZeroDivisionError,
            OverflowError,
        ) as error:
            raise InputError(
                path, f"truncated or damaged ({error})", "copy it again"
            ) from error  # what broken files provoke in Pillow


def _upright(image: Image.Image) -> Image.Image:
    try:
        turned = image.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)
        return ImageOps.exif_transpose(image) if turned else image
    except Exception:  # a broken EXIF block says nothing about the orientation
        return image
