"""Images that ask for more than their size suggests, or whose disk or memory fails: one line, and no harm to others."""

import io
import os
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hostile import tiff, tiled
from memory import needs_proc, peak_of
from PIL import Image

from danet.data.classes import Classes, LabelMap
from danet.data.images.checks import MAX_SCANS
from danet.data.images.pillow import regular_file
from danet.data.images.read import image_size, read_header, read_image, read_mask
from danet.data.samples import Pair, PairedFiles
from danet.errors import InputError


@needs_proc
@pytest.mark.parametrize("read", [read_image, read_mask])
def test_a_tile_far_larger_than_its_image_is_not_decoded(tmp_path, read):
    (tmp_path / "bomb.tif").write_bytes(tiled(8_192))
    message = "stored in tiles of 8192 x 8192: more pixels than the limit of 64,000,000; write it with smaller tiles"

    def refused() -> None:
        with pytest.raises(InputError, match=message):
            read(tmp_path / "bomb.tif")

    assert peak_of(refused) < 30_000_000
    (tmp_path / "honest.tif").write_bytes(tiled(512))
    assert read(tmp_path / "honest.tif").shape[:2] == (64, 64)


def jpeg(**options) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", **options)
    return file.getvalue()


def with_scans(count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    content = jpeg(progressive=True)[:-2]
    last = content.rindex(b"\xff\xda")
    return content + content[last:] * count + b"\xff\xd9"


def test_a_jpeg_of_many_scans_is_rejected(tmp_path):
    (tmp_path / "scans.jpg").write_bytes(with_scans(MAX_SCANS))
    with pytest.raises(InputError, match=f"a JPEG of more than {MAX_SCANS} scans or 10,000 segments; save it again"):
        read_image(tmp_path / "scans.jpg")
    (tmp_path / "segments.jpg").write_bytes(jpeg()[:2] + b"\xff\xe1\0\2" * 20_000 + jpeg()[2:])
    with pytest.raises(InputError, match="10,000 segments"):
        read_image(tmp_path / "segments.jpg")


@pytest.mark.parametrize(
    "content",
    [
        jpeg(),
        jpeg(progressive=True),
        with_scans(20),
        jpeg(restart_marker_blocks=1),
        jpeg(comment=b"\xff\xda" * 30_000),
        jpeg(exif=b"Exif\0\0" + jpeg(progressive=True)),
        jpeg() + b"\xff\xda" * 10_000,  # phones append videos
    ],
    ids=["baseline", "progressive", "30 scans", "restarts", "comment", "preview", "appended"],
)
def test_honest_jpegs_are_read(content, tmp_path):
    (tmp_path / "x.jpg").write_bytes(content)
    assert read_image(tmp_path / "x.jpg").shape == (64, 64, 3)


def test_an_icon_that_contains_a_larger_image_than_it_declares_is_rejected(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (300, 300)).save(file, "PNG")
    png = file.getvalue()
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22)
    (tmp_path / "x.ico").write_bytes(struct.pack("<HHH", 0, 1, 1) + entry + png)
    with pytest.raises(InputError, match="300 x 300: more pixels than the limit of 10,000"):
        read_image(tmp_path / "x.ico", max_pixels=10_000)


@needs_proc
def test_a_png_that_declares_gigabytes_is_rejected_without_memory(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    content = bytearray(file.getvalue())
    at = content.index(b"IDAT")
    content[at - 4 : at] = (0x7FFF_FFF0).to_bytes(4, "big")
    (tmp_path / "x.png").write_bytes(content)

    def refused() -> None:
        with pytest.raises(InputError, match="damaged"):
            read_image(tmp_path / "x.png")

    assert peak_of(refused) < 30_000_000


@pytest.mark.parametrize("read", [read_image, read_mask, read_header, image_size])
def test_a_tiff_of_thousands_of_invalid_tags_is_read_silently(tmp_path, capfd, read):
    data = zlib.compress(bytes(64 * 64))
    strip = {273: (3, 1, 8), 278: (3, 1, 64), 279: (4, 1, len(data))}
    missing = {tag: (3, 50 + tag, 1 << 30) for tag in range(50_900, 54_900)}  # beyond the end of the file
    (tmp_path / "x.tif").write_bytes(tiff(strip | missing, data))
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        read(tmp_path / "x.tif")
    assert capfd.readouterr().err == ""


def test_what_pillow_logs_is_not_printed(tmp_path):
    """In a process of its own, as pytest handles what is logged."""
    (tmp_path / "x.tif").write_bytes(
        tiff({277: (3, 1, 64), 273: (3, 1, 8), 278: (3, 1, 64), 279: (4, 1, 64)}, bytes(64))
    )
    code = (
        "import sys\nfrom danet.data.images.read import read_image\nfrom danet.errors import InputError\n"
        "try: read_image(sys.argv[1])\nexcept InputError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x.tif")], capture_output=True, text=True)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


@pytest.fixture
def failing_disk(tmp_path) -> Path:
    """Return a file whose first bytes cannot be read: an address without memory."""
    (tmp_path / "b.png").symlink_to("/proc/self/mem")
    return tmp_path / "b.png"


@needs_proc
@pytest.mark.parametrize("read", [read_image, read_mask, read_header, image_size])
def test_an_error_of_the_disk_is_reported_with_the_file(failing_disk, read):
    with pytest.raises(InputError, match=r"b\.png: cannot be read \(Input/output error\); check the disk, and copy it"):
        read(failing_disk)


@needs_proc
def test_a_sample_on_a_failing_disk_raises_an_error_that_training_can_skip(failing_disk, tmp_path):
    Image.new("L", (8, 8)).save(tmp_path / "good.png")
    for pair in (Pair("b", failing_disk, tmp_path / "good.png"), Pair("b", tmp_path / "good.png", failing_disk)):
        samples = PairedFiles(Classes.named(("a",)), [pair], LabelMap.identity(1))
        with pytest.raises(InputError, match="Input/output error"):
            samples[0]


def test_too_little_memory_for_one_image_is_an_error_of_its_file(tmp_path, monkeypatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "large.png")

    def exhausted(*_):
        raise MemoryError

    monkeypatch.setattr(Image.Image, "convert", exhausted)
    monkeypatch.setattr(Image.Image, "load", exhausted)
    with pytest.raises(InputError, match=r"large\.png: not enough memory for it; free some memory, or make it smaller"):
        read_image(tmp_path / "large.png")


def test_threads_that_read_images_leave_the_warning_filters_as_they_were(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    before = list(warnings.filters)
    inside, leave = threading.Barrier(2), threading.Event()

    def first() -> None:
        with regular_file(tmp_path / "a.png"):
            inside.wait(20)
            inside.wait(20)

    def second() -> None:
        inside.wait(20)
        with regular_file(tmp_path / "a.png"):
            inside.wait(20)  # the first one ends before
            leave.wait(20)

    threads = [threading.Thread(target=target) for target in (first, second)]
    for thread in threads:
        thread.start()
    threads[0].join(20)
    with pytest.warns(UserWarning, match="of the user"):
        warnings.warn("of the user", UserWarning, stacklevel=1)
    leave.set()
    threads[1].join(20)
    assert list(warnings.filters) == before


def test_a_pipe_that_replaces_an_image_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(InputError, match="is not a regular file"):
        read_image(tmp_path / "a.png")
