"""Reading images and masks: all common formats, and files that are not images."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from danet import InputError
from danet.data.classes import NO_DATA
from danet.data.images.binary_masks import read_binary_mask
from danet.data.images.color_masks import read_colored_mask
from danet.data.images.formats import HAS_HEIF
from danet.data.images.pillow import open_stream
from danet.data.images.read import image_size, list_images, read_header, read_image, read_mask


@pytest.fixture
def image() -> np.ndarray:
    """Return an image of 24 x 32 pixels, smooth enough that JPEG changes it little."""
    y, x = np.mgrid[:24, :32]
    return np.stack([8 * x, 10 * y, 255 - 8 * x], -1).astype(np.uint8)


WEB = ("JPEG", "PNG", "WEBP", "GIF")


def encoded(array: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "kind", "tolerance"),
    [
        ("a.png", "PNG", 0),
        ("a.bmp", "BMP", 0),
        ("a.tif", "TIFF", 0),
        ("a.JPG", "JPEG", 12),
        ("a.webp", "WEBP", 40),
        ("jpeg named.png", "JPEG", 12),
        ("no extension", "PNG", 0),
        ("ünïcode 🚗.png", "PNG", 0),
    ],
)
def test_formats_are_recognized_by_content(tmp_path, image, name, kind, tolerance):
    (tmp_path / name).write_bytes(encoded(image, kind))
    result = read_image(tmp_path / name)
    assert result.shape == (24, 32, 3)
    assert result.dtype == np.uint8
    assert np.abs(result.astype(int) - image).max() <= tolerance


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, image, mode):
    kind = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    (tmp_path / "a").write_bytes(encoded(Image.fromarray(image).convert(mode), kind))
    result = read_image(tmp_path / "a")
    assert result.shape == (24, 32, 3)
    if mode in ("RGBA", "CMYK"):
        assert np.abs(result.astype(int) - image).max() <= 3


def test_transparency_is_composited_over_black(tmp_path, image):
    clear = Image.fromarray(image).convert("RGBA")
    clear.putalpha(0)
    clear.save(tmp_path / "a.png")
    assert not read_image(tmp_path / "a.png").any()


def test_16_bit_gray_is_scaled_not_clipped(tmp_path):
    values = np.array([[0, 257, 40000, 40001, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.dtype == np.float32
    for band in range(3):  # as RGB, with all its bits
        assert (image[..., band] * 257).round().astype(int).tolist() == values.tolist()


@pytest.mark.parametrize("values", [(-5, 12), (0, 70000)])
def test_32_bit_values_that_16_bits_do_not_hold_are_named(tmp_path, values):
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=f"32-bit values from {values[0]} to {values[1]}, and 0 to 65535 can be read"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("orientation", range(2, 9))
def test_exif_orientation_is_applied(tmp_path, image, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(image).save(tmp_path / "a.png", exif=exif)
    turned = read_image(tmp_path / "a.png")
    assert turned.shape[:2] == ((32, 24) if orientation >= 5 else (24, 32))
    assert image_size(tmp_path / "a.png") == turned.shape[:2]
    assert not np.array_equal(turned, image)
    assert sorted(turned.reshape(-1, 3).tolist()) == sorted(image.reshape(-1, 3).tolist())


@pytest.mark.parametrize("exif", [b"Exif\0\0broken", b"\xff" * 40])
def test_a_damaged_exif_block_is_ignored(tmp_path, image, exif):
    Image.fromarray(image).save(tmp_path / "a.jpg", exif=exif)
    assert read_image(tmp_path / "a.jpg").shape == (24, 32, 3)
    assert image_size(tmp_path / "a.jpg") == (24, 32)


def test_a_frame_of_an_animation_is_read_only_if_asked_for(tmp_path, image):
    frames = [Image.fromarray(image), Image.fromarray(255 - image)]
    frames[0].save(tmp_path / "a.webp", save_all=True, append_images=frames[1:], lossless=True)
    for page, frame in enumerate((image, 255 - image)):
        assert np.array_equal(read_image(tmp_path / "a.webp", page=page), frame)
    with pytest.raises(
        InputError, match=r"a\.webp: a stack or animation of 2 pages; save the pages as images of their"
    ):
        read_image(tmp_path / "a.webp")
    with pytest.raises(InputError, match="has 2 pages, so page 3 does not exist"):
        read_image(tmp_path / "a.webp", page=2)


def png_header(width: int, height: int) -> bytes:
    """Return the header of a PNG without pixels."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda p: b"", r"empty file \(0 bytes\)"),
        (lambda p: b"hello, this is a text", "not an image; use JPEG, PNG, WebP, BMP, TIFF or GIF"),
        (lambda p: b"<!DOCTYPE html><html>404</html>", r"a web page\); download the image itself"),
        (lambda p: b"<svg xmlns='http://www.w3.org/2000/svg'/>", r"an SVG drawing\); export it as PNG"),
        (lambda p: b"%PDF-1.7", r"a PDF\); export the page as PNG"),
        (lambda p: b"\x08" + bytes(7) + b'{"a": 1}', r"weights\); specify it as `weights`"),
        (lambda p: b"\0\0\0\x18ftypheic" + bytes(20), "HEIC" if not HAS_HEIF else "truncated or damaged"),
        (lambda p: b"\0\0\0\x18ftypavif" + bytes(20), "truncated or damaged"),
        (lambda p: b"\0\0\0\x18ftypisom" + bytes(20), "not an image .a HEIC, AVIF or video file"),
        (lambda p: encoded(p, "JPEG")[:400], "truncated or damaged"),
        (lambda p: encoded(p, "PNG")[:-40], "truncated or damaged"),
        (lambda p: encoded(p, "PNG").replace(b"IDAT", b"IDAX"), "truncated or damaged"),
        (
            lambda p: png_header(60_000, 60_000) + b"\0\0\1\0IDAT" + bytes(300),
            "more pixels than the limit of 64,000,000",
        ),
        (lambda p: encoded(Image.fromarray(np.ones((4, 4), np.float32)), "TIFF"), "floating-point values"),
    ],
)
def test_files_that_are_not_images_are_refused_with_a_remedy(tmp_path, image, content, message):
    (tmp_path / "bad.jpg").write_bytes(content(image))
    with pytest.raises(InputError, match=rf"bad\.jpg: .*{message}"):
        read_image(tmp_path / "bad.jpg")


@pytest.mark.parametrize("kind", ["BMP", "TIFF"])
def test_images_of_formats_that_are_not_read_are_called_images(image, kind):
    """The server reads only the formats of browsers."""
    with pytest.raises(InputError) as raised, open_stream(io.BytesIO(encoded(image, kind)), "image", None, formats=WEB):
        pass
    assert str(raised.value) == f"image: a {kind} image, which is not read here; use JPEG, PNG, WebP or GIF"


def test_the_caller_limits_the_number_of_pixels(tmp_path, image):
    Image.fromarray(image).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="32 x 24: more pixels than the limit of 700"):
        read_image(tmp_path / "a.png", max_pixels=700)


def test_headers_of_too_large_images_name_the_limit_for_images(tmp_path):
    (tmp_path / "a.png").write_bytes(png_header(60_000, 60_000) + b"\0\0\1\0IDAT" + bytes(300))
    with pytest.raises(InputError, match="more pixels than the limit of 64,000,000"):
        read_header(tmp_path / "a.png")


def test_paths_that_are_not_regular_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "dangling.jpg").symlink_to("nowhere")
    for name, message in [
        ("pipe.jpg", "not a regular file"),
        ("folder.jpg", "is a folder"),
        ("loop.jpg", "cannot be opened"),
        ("dangling.jpg", "no such file"),
        ("absent.jpg", "no such file"),
        ("a\0b", "cannot be opened"),
    ]:
        with pytest.raises(InputError, match=message):
            read_image(tmp_path / name)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_masks_keep_their_values(tmp_path, dtype):
    values = np.array([[0, 1, 11, 255]], dtype)
    Image.fromarray(values).save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == values.tolist()


def png_of(rows: list[bytes], width: int, depth: int, kind: int) -> bytes:
    """Return a PNG of packed rows, of any bit depth and color type."""
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, len(rows), depth, kind, 0, 0, 0)), (b"IDAT", pixels)]
    chunks += [(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + head + body + struct.pack(">I", zlib.crc32(head + body)) for head, body in chunks
    )


@pytest.mark.parametrize("depth", [2, 4])
def test_png_masks_of_few_bits_are_read_as_stored(tmp_path, depth):
    ids = [[0, 1, 2, 3], [3, 0, 0, (1 << depth) - 1]]
    packed = [int("".join(f"{value:0{depth}b}" for value in row), 2).to_bytes(depth // 2, "big") for row in ids]
    (tmp_path / "m.png").write_bytes(png_of(packed, 4, depth, 0))
    mask = read_mask(tmp_path / "m.png")
    assert (mask.dtype, mask.tolist()) == (np.uint8, ids)


@pytest.mark.parametrize("kind", [2, 4, 6])
def test_png_masks_of_16_bit_colors_are_read_as_stored(tmp_path, kind):
    ids, bands = np.array([[0, 1, 2, 255], [300, 3, 0, 0]]), {2: 3, 4: 2, 6: 4}[kind]
    pixels = np.repeat(ids[..., None], bands, 2)
    pixels[..., 3 if kind == 6 else 1 if kind == 4 else 2 :] = ids[..., None] if kind == 2 else 65535
    (tmp_path / "m.png").write_bytes(png_of([row.astype(">u2").tobytes() for row in pixels], 4, 16, kind))
    assert read_mask(tmp_path / "m.png").tolist() == ids.tolist()
    if kind != 2:
        pixels[0, 0, -1] = 0
        (tmp_path / "m.png").write_bytes(png_of([row.astype(">u2").tobytes() for row in pixels], 4, 16, kind))
        with pytest.raises(InputError, match="a mask with transparent and opaque pixels"):
            read_mask(tmp_path / "m.png")


def test_masks_of_16_bit_colors_are_read_if_8_bits_hold_them(tmp_path):
    pixels = 257 * np.array([[[0, 0, 0], [255, 0, 128]]])
    (tmp_path / "m.png").write_bytes(png_of([row.astype(">u2").tobytes() for row in pixels], 2, 16, 2))
    assert read_colored_mask(tmp_path / "m.png", {(0, 0, 0): 0, (255, 0, 128): 1}).tolist() == [[0, 1]]
    pixels[0, 0, 0] = 1
    (tmp_path / "m.png").write_bytes(png_of([row.astype(">u2").tobytes() for row in pixels], 2, 16, 2))
    with pytest.raises(InputError, match="has no colors; save it as RGB of 8 bits"):
        read_colored_mask(tmp_path / "m.png", {(0, 0, 0): 0})


@pytest.mark.parametrize("largest", [1, 2, 3, 20, 127, 254, 255, 256, 1000, 65534, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_pgm_masks_are_read_as_stored_whatever_is_white(tmp_path, largest, plain):
    ids = np.arange(largest + 1)[None]
    body = " ".join(map(str, ids[0])).encode() if plain else ids.astype(">u2" if largest > 255 else "u1").tobytes()
    (tmp_path / "m.pgm").write_bytes(b"P%d\n%d 1\n%d\n%b" % (2 if plain else 5, largest + 1, largest, body))
    assert read_mask(tmp_path / "m.pgm").tolist() == ids.tolist()


def test_tiff_masks_in_which_0_is_white_are_read_as_stored(tmp_path):
    ids = np.array([[0, 1, 2, 255]], np.uint8)
    Image.fromarray(255 - ids).save(tmp_path / "m.tif", tiffinfo={262: 0})  # Pillow inverts it, as it does in reading
    with Image.open(tmp_path / "m.tif") as image:
        stored = 255 - np.asarray(image)
    assert read_mask(tmp_path / "m.tif").tolist() == stored.tolist() == ids.tolist()


@pytest.mark.parametrize("read", [read_mask, read_binary_mask, lambda file: read_colored_mask(file, {(0, 0, 0): 0})])
def test_tiff_masks_with_jpeg_compression_are_refused(tmp_path, read):
    file = tmp_path / "m.tif"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file, compression="jpeg")
    with pytest.raises(
        InputError, match=r"m\.tif: a mask in a lossy format \(a TIFF with JPEG compression\), which ch"
    ):
        read(file)
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(file, compression="tiff_lzw")
    assert not read(file).any()


def test_floating_point_masks_must_have_whole_numbers(tmp_path):
    ids = np.array([[0, 1, 2], [3, 255, 0]], np.float32)
    file = tmp_path / "m.tif"
    Image.fromarray(ids).save(file)
    assert np.array_equal(read_mask(file), ids)
    for value, read in ((-9999, -9999), (np.nan, NO_DATA)):
        ids[1, 2] = value
        Image.fromarray(ids).save(file)
        assert read_mask(file).tolist() == [[0, 1, 2], [3, 255, read]]
    for wrong in (0.5, np.inf):
        ids[1, 2] = wrong
        Image.fromarray(ids).save(file)
        with pytest.raises(InputError, match=rf"m\.tif: mask has value {wrong:g} at x=2, y=1, which is not a class id"):
            read_mask(file)


def test_palette_masks_give_indices_not_colors(tmp_path):
    mask = Image.frombytes("P", (4, 1), bytes([0, 1, 2, 255]))
    mask.putpalette([*range(256)] * 3)
    mask.save(tmp_path / "m.png")
    assert read_mask(tmp_path / "m.png").tolist() == [[0, 1, 2, 255]]


def test_gray_rgb_masks_are_read_and_color_masks_refused(tmp_path, image):
    gray = np.repeat(np.array([[3, 7]], np.uint8)[..., None], 3, -1)
    Image.fromarray(gray).save(tmp_path / "gray.png")
    Image.fromarray(image).save(tmp_path / "rgb.png")
    Image.fromarray(image[..., 0]).save(tmp_path / "lossy.jpg")
    assert read_mask(tmp_path / "gray.png").tolist() == [[3, 7]]
    with pytest.raises(InputError, match="colors, not class ids"):
        read_mask(tmp_path / "rgb.png")
    with pytest.raises(InputError, match="lossy"):
        read_mask(tmp_path / "lossy.jpg")


def test_images_of_a_folder_are_listed_by_name(tmp_path, image):
    for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_bytes(encoded(image, "PNG"))
    assert [path.name for path in list_images(tmp_path)] == ["a.JPG", "b.png"]
    with pytest.raises(InputError, match="no such folder"):
        list_images(tmp_path / "absent")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="contains no images"):
        list_images(tmp_path / "empty")
