"""Every format that Pillow reads is read, and no file is taken for an image by chance."""

import numpy as np
import pytest
from PIL import Image

from danet import InputError
from danet.data.custom.propose import propose
from danet.data.images import formats
from danet.data.images.formats import FORMATS, HAS_HEIF, SUFFIXES, formats_of
from danet.data.images.pillow import _not_an_image
from danet.data.images.read import list_images, read_header, read_image

PIXELS = np.kron(np.random.default_rng(0).integers(0, 256, (8, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize(
    ("name", "loss"),
    [
        *((f"a{suffix}", 0) for suffix in (".png", ".apng", ".bmp", ".dib", ".tif", ".ppm", ".pnm", ".tga", ".qoi")),
        *((f"a{suffix}", 0) for suffix in (".sgi", ".rgb", ".pcx", ".dds")),
        *((f"a{suffix}", "lossy") for suffix in (".jpg", ".jfif", ".jpe", ".webp", ".avif", ".jp2", ".j2k")),
        ("A.JFIF", "lossy"),
    ],
)
def test_every_usual_format_is_listed_and_read(tmp_path, name, loss):
    Image.fromarray(PIXELS).save(tmp_path / name)
    assert list_images(tmp_path) == [tmp_path / name]
    assert read_header(tmp_path / name)[:3] == (64, 64, 3)
    error = np.abs(read_image(tmp_path / name).astype(int) - PIXELS)
    assert error.mean() < 12 if loss else error.max() == 0


@pytest.mark.skipif(not HAS_HEIF, reason="pillow-heif is not installed")
@pytest.mark.parametrize("suffix", [".heic", ".HEIF", ".hif"])
def test_heif_is_read_with_its_extra(tmp_path, suffix):
    Image.fromarray(PIXELS).save(tmp_path / "a.heic", quality=95)
    (tmp_path / "a.heic").rename(tmp_path / f"a{suffix}")
    assert list_images(tmp_path) == [tmp_path / f"a{suffix}"]
    assert np.abs(read_image(tmp_path / f"a{suffix}").astype(int) - PIXELS).mean() < 12


def test_without_its_extra_heif_names_the_extra(tmp_path, monkeypatch):
    content = b"\0\0\0\x18ftypheic" + bytes(40)
    (tmp_path / "a.heic").write_bytes(content)
    monkeypatch.setattr("danet.data.images.pillow.formats_of", lambda _: tuple(f for f in FORMATS if f != "HEIF"))
    monkeypatch.setattr("danet.data.images.read.formats_of", lambda _: tuple(f for f in FORMATS if f != "HEIF"))
    with pytest.raises(InputError, match=r"a HEIC image, and pillow-heif is not installed; .* uv sync --extra heif"):
        read_image(tmp_path / "a.heic")
    assert "not an image (a HEIC, AVIF or video file)" in str(_not_an_image("upload", content[:16], ("JPEG", "PNG")))


def test_init_names_the_extra_of_a_folder_of_heif_images(tmp_path, monkeypatch):
    monkeypatch.setattr("danet.data.custom.discover.HAS_HEIF", False)
    monkeypatch.setattr("danet.data.custom.layout.SUFFIXES", (".jpg", ".png"))
    (tmp_path / "images").mkdir()
    (tmp_path / "images/a.HEIC").write_bytes(b"x")
    with pytest.raises(InputError, match=r"contains 1 HEIC images, .* uv sync --extra heif"):
        propose(tmp_path)


def test_formats_without_a_signature_need_their_suffix(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.tga")
    (tmp_path / "a.tga").rename(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: not an image"):
        read_image(tmp_path / "a.jpg")
    assert formats_of("x.jpg") == formats_of("x") == FORMATS
    assert formats_of("x.TGA") == (*FORMATS, "TGA")


def test_formats_that_start_programs_or_hold_no_pixels_are_not_read(tmp_path):
    assert not {".eps", ".ps", ".pdf", ".wmf", ".h5", ".grib", ".mpg"} & set(SUFFIXES)
    Image.fromarray(PIXELS).save(tmp_path / "a.eps")
    with pytest.raises(InputError, match=r"a\.eps: not an image"):
        read_image(tmp_path / "a.eps")
    assert "EPS" not in formats._BY_SUFFIX.values()


def test_previews_and_layers_are_no_pages(tmp_path):
    frames = [Image.fromarray(PIXELS), Image.fromarray(255 - PIXELS)]
    frames[0].save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=frames[1:], quality=95)
    assert read_header(tmp_path / "a.jpg").pages == 1
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - PIXELS).mean() < 12


@pytest.mark.parametrize(("name", "pages"), [("a.tif", 3), ("a.gif", 3), ("a.png", 3), ("a.webp", 3), ("b.png", 1)])
def test_the_header_counts_pages(tmp_path, name, pages):
    frames = [Image.fromarray(np.full((8, 8, 3), 80 * i, np.uint8)) for i in range(pages)]
    frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    assert read_header(tmp_path / name).pages == pages
