"""74 numbered bad inputs: each is read correctly, or rejected in one line that names the file and the remedy.

`ELSEWHERE` lists the inputs that other files test; `SERVER` lists bad requests to the server. The last tests check that
both tables are complete.
"""

import ast
import io
import os
import re
import socket
import struct
import subprocess
import sys
import tarfile
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from danet import InputError, recipes
from danet.cli import main
from danet.data import registry
from danet.data.images.color_masks import read_colored_mask
from danet.data.images.read import image_size, list_images, read_image, read_mask
from danet.predict.folder import segment_images
from danet.predict.inputs import find_jobs
from danet.predict.predictor import load
from danet.train import run_folder

TESTS, PACKAGE = Path(__file__).parents[1], Path(__file__).parents[2] / "danet"

ELSEWHERE = {
    "6-empty-file": ["data/test_images.py::test_files_that_are_not_images_are_refused_with_a_remedy"],
    "7-text-as-jpg": ["data/test_images.py::test_files_that_are_not_images_are_refused_with_a_remedy"],
    "8-web-page-as-png": ["data/test_images.py::test_files_that_are_not_images_are_refused_with_a_remedy"],
    "9-svg-pdf-heic": ["data/test_images.py::test_files_that_are_not_images_are_refused_with_a_remedy"],
    "10-jpeg-named-png": ["data/test_images.py::test_formats_are_recognized_by_content"],
    "11-no-extension": ["data/test_images.py::test_formats_are_recognized_by_content"],
    "12-upper-case-JPG": ["data/test_images.py::test_formats_are_recognized_by_content"],
    "13-cmyk": ["data/test_images.py::test_every_mode_becomes_rgb"],
    "19-16-bit-gray": ["data/test_images.py::test_16_bit_gray_is_scaled_not_clipped"],
    "20-16-bit-rgb": ["data/test_channels.py::test_every_band_and_bit_of_a_file_is_read"],
    "21-float-tiff": ["data/test_images.py::test_files_that_are_not_images_are_refused_with_a_remedy"],
    "24-broken-exif": ["data/test_images.py::test_a_damaged_exif_block_is_ignored"],  # circular EXIF: below
    "27-one-pixel": ["predict/test_predict.py::test_images_of_any_size_are_segmented_at_their_own_size"],
    "28-1-x-4000": [
        "predict/test_predict.py::test_images_of_any_size_are_segmented_at_their_own_size",
        "serve/test_serve_bodies.py::test_unusual_but_valid_images_are_accepted",
    ],
    "29-7-x-7": ["predict/test_predict.py::test_images_of_any_size_are_segmented_at_their_own_size"],
    "30-30,000-x-30,000": [
        "predict/test_large_image.py::test_108_million_pixels_need_less_than_1_5_gb"
    ],  # rejection: below
    "36-broken-links": ["data/test_images.py::test_paths_that_are_not_regular_files_are_refused"],
    "37-folder-named-jpg": ["data/test_images.py::test_paths_that_are_not_regular_files_are_refused"],
    "40-name-of-255-bytes": [
        "predict/test_predict.py::test_conflicting_outputs_are_found_before_work_begins",
        "predict/test_predict_folder.py::test_a_name_of_255_bytes_can_be_written",
    ],
    "44-two-files-of-one-stem": [
        "predict/test_predict.py::test_conflicting_outputs_are_found_before_work_begins",
        "data/test_custom_layouts.py::test_two_images_with_the_same_stem_are_an_error",
    ],
    "45-class-id-too-large": ["data/test_classes.py::test_an_unknown_value_is_reported_with_count_and_position"],
    "46-negative-ids": ["data/test_classes.py::test_unknown_values_of_32_bit_masks_are_reported"],
    "47-mask-with-0-and-255": [
        "data/test_classes.py::test_a_0_255_mask_of_two_classes_is_recognized",
        "data/test_init.py::test_0_255_masks",
    ],
    "48-color-mask": [
        "data/test_init.py::test_colored_masks",
        "data/test_color_masks.py::test_an_unknown_color_is_reported_with_count_and_position",
    ],
    "49-palette-mask": ["data/test_images.py::test_palette_masks_give_indices_not_colors"],
    "51-jpeg-mask": ["data/test_images.py::test_gray_rgb_masks_are_read_and_color_masks_refused"],
    "52-mask-of-another-size": ["data/test_custom_layouts.py::test_a_size_mismatch_is_reported_with_both_sizes"],
    "53-rotated-mask": ["data/test_check.py::test_one_run_reports_every_bad_file_and_no_good_one"],
    "54-missing-and-extra-masks": [
        "data/test_custom_layouts.py::test_missing_masks_are_listed",
        "data/test_check.py::test_one_run_reports_every_bad_file_and_no_good_one",
    ],
    "55-no-labels": [
        "model/test_loss.py::test_batch_without_labels_has_zero_loss_and_gradient",
        "train/test_train.py::test_crop_without_labels_changes_only_moments",
        "data/test_check.py::test_ignored_masks_and_absent_classes_are_warnings",
    ],
    "56-absent-class": ["evaluate/test_metrics.py::test_absent_classes_are_excluded_and_false_ones_count_as_zero"],
    "57-antialiased-edges": [
        "data/test_init.py::test_0_255_masks_with_smoothed_edges_are_recognized",
        "data/test_init.py::test_smoothed_colors_are_an_error",
    ],
    "58-cityscapes-label-ids": [
        "data/test_init.py::test_cityscapes_label_ids_become_train_ids"
    ],  # handled by danet init
    "59-ids-from-1": [
        "data/test_datasets.py::test_ade20k_ids_begin_with_one",
        "data/test_init.py::test_labels_from_one",
    ],
    "61-truncated-checkpoint": [
        "train/test_failures.py::test_damaged_checkpoint_falls_back_to_the_previous_one",
        "weights/test_weights.py::test_truncated_file_is_an_error",
    ],
    "62-weights-with-a-flipped-bit": ["weights/test_weights.py::test_flipped_bit_anywhere_is_an_error"],
    "63-malicious-pickle": ["weights/test_untrusted.py::test_malicious_pickle_runs_nothing"],
    "64-other-number-of-classes": [  # there is no --reset-head
        "weights/test_weights.py::test_card_that_does_not_match_is_an_error",
        "evaluate/test_evaluate.py::test_other_classes_are_rejected_naming_the_first_difference",
    ],
    "65-other-architecture": [
        "weights/test_convert.py::test_module_prefix_is_removed",
        "weights/test_convert.py::test_every_key_must_be_used",
    ],
    "66-safetensors-header-of-2^60": [
        "weights/test_weights.py::test_other_files_are_errors",
        "weights/test_untrusted.py::test_invalid_safetensors_header_is_an_error",
    ],
    "67-misspelled-setting": ["train/test_train.py::test_invalid_recipe_yaml_is_an_error_that_names_the_key"],
    "68-invalid-values": ["train/test_train.py::test_invalid_values_are_named_by_their_parameter"],
    "70-disk-full": ["train/test_failures.py::test_full_disk_is_one_line_and_keeps_the_checkpoints"],
    "71-no-gpu": ["cli/test_cli.py::test_user_errors_are_one_line_and_exit_status_2"],
    "73-two-runs-in-one-folder": ["train/test_failures.py::test_second_process_in_a_folder_names_the_first_ones_id"],
}

SERVER = {
    "no file field": "serve/test_serve_bodies.py::test_bodies_that_are_not_images_are_rejected",
    "two files": "serve/test_serve_bodies.py::test_bodies_that_are_not_images_are_rejected",
    "10,000 parts": "serve/test_serve_bodies.py::test_bodies_that_are_not_images_are_rejected",
    "URL instead of bytes": "serve/test_serve_bodies.py::test_bodies_that_are_not_images_are_rejected",
    "JSON of depth 10,000": "serve/test_serve_bodies.py::test_bodies_that_are_not_images_are_rejected",
    "21 MB": "serve/test_serve_bodies.py::test_a_large_body_gets_413_even_if_its_headers_lie",
    "wrong Content-Length": "serve/test_serve_abuse.py::test_false_lengths_disconnects_and_slow_clients",
    "chunked": "serve/test_serve_abuse.py::test_requests_at_the_edge_of_http",
    "HEAD and OPTIONS": "serve/test_serve_abuse.py::test_requests_at_the_edge_of_http",
    "file names ../../x, NUL, 4 kB": "serve/test_serve_bodies.py::test_file_names_are_ignored",
    "wrong Content-Type": "serve/test_serve_bodies.py::test_unusual_but_valid_images_are_accepted",
    "animated images": "serve/test_serve_bodies.py::test_damaged_and_unsupported_files_get_422_with_a_remedy",
    "clients that disconnect": "serve/test_serve_abuse.py::test_false_lengths_disconnects_and_slow_clients",
    "200 simultaneous uploads": "serve/test_serve_abuse.py::test_200_uploads_at_once_get_200_or_503_in_bounded_memory",
    "50 slow clients": "serve/test_serve_abuse.py::test_slow_clients_during_uploads_delay_nobody",
    "wrong Host header": "serve/test_serve_access.py::test_host_header_must_name_this_server",
    "60 path traversals": "serve/test_serve_abuse.py::test_no_path_leads_out_of_the_page",
    "100,000 requests": "serve/test_serve_abuse.py::test_memory_and_descriptors_stay_flat",
}

# images


def gradient(scale: int = 1) -> np.ndarray:
    """Return a smooth image of 24 x 32 times `scale` pixels whose corners all differ."""
    y, x = np.mgrid[:24, :32]
    return np.kron(np.stack([8 * x, 10 * y, 255 - 8 * x], -1), np.ones((scale, scale, 1))).astype(np.uint8)


def encode(array: np.ndarray | Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    (array if isinstance(array, Image.Image) else Image.fromarray(array)).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, depth: int, color: int, rows: bytes | None) -> bytes:
    """Build a PNG from compressed rows; None: a file that ends after its header."""
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0))
    return head if rows is None else head + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def compressed_zeros(count: int) -> bytes:
    """Return `count` zero bytes, compressed without holding them all."""
    packer, piece = zlib.compressobj(9), bytes(1 << 20)
    return (
        b"".join(packer.compress(piece[: min(len(piece), count - i)]) for i in range(0, count, 1 << 20))
        + packer.flush()
    )


def jpeg_of_size(width: int, height: int) -> bytes:
    """Return a small JPEG whose frame header claims another size."""
    content = encode(gradient(4), "JPEG")
    at = content.index(b"\xff\xc0")
    return content[: at + 5] + struct.pack(">HH", height, width) + content[at + 9 :]


def with_flipped_bit(content: bytes, position: int) -> bytes:
    changed = bytearray(content)
    changed[position] ^= 1
    return bytes(changed)


def with_large_text() -> bytes:
    content = encode(gradient(), "PNG")
    return content[:33] + chunk(b"zTXt", b"note\0\0" + compressed_zeros(80_000_000)) + content[33:]


REJECTED: dict[str, tuple[Callable[[], bytes], str]] = {
    "1-truncated-jpeg": (lambda: encode(gradient(4), "JPEG")[:1000], "truncated or damaged; copy it again"),
    "2-jpeg-without-end-marker": (lambda: encode(gradient(4), "JPEG")[:-2], "truncated or damaged; copy it again"),
    "4-png-with-wrong-header-checksum": (
        lambda: with_flipped_bit(encode(gradient(4), "PNG"), 32),
        "truncated or damaged; copy it again",
    ),
    "4-png-with-a-wrong-byte": (
        lambda: with_flipped_bit(encode(gradient(4), "PNG"), 150),
        "truncated or damaged; copy it again",
    ),
    "4-png-with-a-wrong-checksum": (
        lambda: with_flipped_bit(encode(gradient(4), "PNG"), -13),
        "truncated or damaged; copy it again",
    ),
    "4-16-bit-png-with-a-wrong-checksum": (
        lambda: with_flipped_bit(png_16_bit([[0, 257, 40_000], [65_535, 1, 514]]), -13),
        "truncated or damaged; copy it again",
    ),
    "5-truncated-png": (lambda: encode(gradient(4), "PNG")[:160], "truncated or damaged; copy it again"),
    "32-png-header-of-60,000-x-60,000": (lambda: png(60_000, 60_000, 8, 2, None), "damaged|more pixels .*; make it"),
    "33-jpeg-header-of-65,500-x-65,500": (lambda: jpeg_of_size(65_500, 65_500), "damaged|more pixels"),
    "34-png-text-of-80-MB": (with_large_text, "contains text that .*; save it without"),
}


def expect_error(capsys, *args: object) -> str:
    """Run a command that must fail, and return its one-line error."""
    assert main([str(arg) for arg in args]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert re.fullmatch(r"error: .+: .+; .+\n", captured.err)
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize("case", REJECTED)
def test_unreadable_image_is_a_one_line_error(case, tiny_weights, tmp_path, capsys):
    content, message = REJECTED[case]
    file = tmp_path / ("bad.png" if "png" in case or "text" in case else "bad.jpg")
    file.write_bytes(content())
    start = time.process_time()
    error = expect_error(capsys, "predict", file, "--weights", tiny_weights, "--out", tmp_path / "out")
    assert time.process_time() - start < 2  # mostly loading the weights
    assert error.startswith(f"error: {file}: ")
    assert re.search(message, error)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())
    with pytest.raises(InputError, match=message):
        read_image(file)


def half_transparent(mode: str) -> np.ndarray:
    """Return an image of one half-transparent color."""
    color = {"LA": (200, 128), "RGBA": (200, 100, 50, 128)}[mode]
    return np.full((5, 7, len(color)), color, np.uint8)


def palette_image(**options) -> bytes:
    image = Image.frombytes("P", (3, 1), bytes([0, 1, 2]))
    image.putpalette([250, 0, 0, 0, 240, 0, 0, 0, 230])
    return encode(image, "PNG", **options)


def png_16_bit(values: list[list[int]]) -> bytes:
    """Return a PNG of one row of 16-bit RGB pixels."""
    row = b"\0" + np.array(values, ">u2").tobytes()
    return png(len(values), 1, 16, 2, zlib.compress(row))


def cmyk() -> np.ndarray:
    """Return the RGB color (200, 50, 100) as CMYK pixels."""
    return np.full((16, 16, 4), (55, 205, 155, 0), np.uint8)


ACCEPTED: dict[str, tuple[Callable[[], bytes], np.ndarray, float]] = {
    "14-inverted-cmyk-jpeg": (
        lambda: encode(Image.fromarray(cmyk(), "CMYK"), "JPEG", quality=95),
        np.full((16, 16, 3), (200, 50, 100), np.uint8),
        3,
    ),
    "15-gray": (lambda: encode(gradient()[..., 0], "PNG"), np.repeat(gradient()[..., :1], 3, 2), 0),
    "16-gray-and-alpha": (lambda: encode(half_transparent("LA"), "PNG"), np.full((5, 7, 3), 100, np.uint8), 1),
    "16-rgba": (lambda: encode(half_transparent("RGBA"), "PNG"), np.full((5, 7, 3), (100, 50, 25), np.uint8), 1),
    "17-palette": (palette_image, np.array([[[250, 0, 0], [0, 240, 0], [0, 0, 230]]], np.uint8), 0),
    "17-palette-with-transparency": (
        lambda: palette_image(transparency=1),
        np.array([[[250, 0, 0], [0, 0, 0], [0, 0, 230]]], np.uint8),
        0,
    ),
    "18-1-bit": (
        lambda: encode(Image.fromarray(np.array([[0, 255, 255]], np.uint8)).convert("1"), "PNG"),
        np.array([[[0] * 3, [255] * 3, [255] * 3]], np.uint8),
        0,
    ),
    "20-16-bit-rgb": (
        lambda: png_16_bit([[0, 257, 40_000], [65_535, 1, 514]]),
        np.array([[[0, 257, 40_000], [65_535, 1, 514]]]) / 257,
        1e-3,
    ),
}


@pytest.mark.parametrize("case", ACCEPTED)
def test_unusual_image_is_read_correctly(case, tmp_path):
    content, expected, tolerance = ACCEPTED[case]
    (tmp_path / "odd").write_bytes(content())
    image = read_image(tmp_path / "odd")
    assert image.shape == expected.shape
    assert np.abs(image.astype(float) - expected).max() <= tolerance
    assert image_size(tmp_path / "odd") == expected.shape[:2]


def test_14_cmyk_jpeg_stores_inverted_inks():
    content = ACCEPTED["14-inverted-cmyk-jpeg"][0]()
    assert b"Adobe" in content[:100]


def make_dataset(root: Path, mask: np.ndarray | bytes, classes: str = "[a, b, c]") -> Path:
    """Write a dataset folder with one image and its mask."""
    for name in ("images/train", "masks/train"):
        (root / name).mkdir(parents=True)
    Image.fromarray(gradient()).save(root / "images/train/p.png")
    content = mask if isinstance(mask, bytes) else encode(mask, "PNG")
    (root / "masks/train/p.png").write_bytes(content)
    (root / "dataset.yaml").write_text(f"classes: {classes}\n")
    return root


def test_3_manifest_detects_a_flipped_bit_that_still_decodes(tmp_path, capsys):
    make_dataset(tmp_path, np.zeros((24, 32), np.uint8))
    file, hashes = tmp_path / "images/train/q.jpg", tmp_path / "hashes.json"
    content = bytearray(encode(gradient(), "JPEG"))
    file.write_bytes(content)
    main(["check", str(tmp_path), "--manifest", str(hashes)])
    content[-9] ^= 4
    file.write_bytes(content)
    assert read_image(file).shape == (24, 32, 3)
    capsys.readouterr()
    assert main(["check", str(tmp_path), "--manifest", str(hashes)]) == 2
    assert f"error: {file}: has changed: its SHA-256 is not the manifest's; copy it again" in capsys.readouterr().out


UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, -1),
    7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),
    8: lambda p: np.rot90(p, 1),
    99: lambda p: p,
}


@pytest.mark.parametrize("orientation", UPRIGHT, ids=lambda o: f"{23 if o == 99 else 22}-{o}")
def test_22_and_23_exif_orientation_is_applied_if_valid(orientation, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(gradient()).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_image(tmp_path / "a.png"), UPRIGHT[orientation](gradient()))


@pytest.mark.parametrize("tag", [0x8769, 0x8825, 0xA005, 0x014A])
def test_24_circular_exif_is_read_within_a_second(tag, tmp_path):
    entry = struct.pack(">HHII", tag, 4, 1, 8)
    looping = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, 1) + entry + struct.pack(">I", 8)
    (tmp_path / "a.jpg").write_bytes(encode(gradient(), "JPEG", exif=looping, quality=95))
    start = time.process_time()
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - gradient()).max() < 20
    assert time.process_time() - start < 1


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"], ids=lambda k: f"{26 if k == 'TIFF' else 25}-{k}")
def test_25_and_26_several_frames_are_refused_and_each_can_be_read(kind, tmp_path):
    """The server rejects such files; see serve/test_serve_bodies.py."""
    frames = [Image.new("RGB", (9, 8), color) for color in ("red", "blue", "lime")]
    frames[0].save(tmp_path / "a", kind, save_all=True, append_images=frames[1:])
    with Image.open(tmp_path / "a") as file:
        assert file.n_frames == 3
    with pytest.raises(InputError, match="a: a stack or animation of 3 pages; save the pages as images of their own"):
        read_image(tmp_path / "a")
    for page, color in enumerate(((255, 0, 0), (0, 0, 255), (0, 255, 0))):
        image = read_image(tmp_path / "a", page=page)
        assert image.shape == (8, 9, 3)
        assert np.abs(image.astype(int) - color).max() <= 5


def test_30_900_megapixels_are_rejected_by_read_image(tmp_path):
    """`danet predict` processes it in parts; see predict/test_large_image.py."""
    (tmp_path / "a.png").write_bytes(png(30_000, 30_000, 1, 0, compressed_zeros(30_000 * 3751)))
    start = time.process_time()
    with pytest.raises(InputError, match=r"a\.png: .*more pixels than the limit of .*; make it smaller"):
        read_image(tmp_path / "a.png")
    assert time.process_time() - start < 1


def test_30_900_megapixels_are_processed_in_parts(tmp_path):
    from danet.predict.inputs import kind_of

    (tmp_path / "a.png").write_bytes(png(30_000, 30_000, 1, 0, b""))
    assert kind_of(tmp_path / "a.png") == "large"


PEAK = """
import sys
from pathlib import Path
from danet.data.images.read import InputError, read_image
try:
    read_image(sys.argv[1])
except InputError as error:
    print(error)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_31_100_megapixels_are_rejected_before_decoding(tmp_path):
    (tmp_path / "a.png").write_bytes(png(10_000, 10_000, 8, 0, compressed_zeros(100_010_000)))
    call = [sys.executable, "-c", PEAK, str(tmp_path / "a.png")]
    message, peak = subprocess.run(call, capture_output=True, text=True, check=True).stdout.splitlines()
    assert message == f"{tmp_path}/a.png: 10000 x 10000: more pixels than the limit of 64,000,000; make it smaller"
    assert 1024 * int(peak) < 300e6


@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_35_special_files_are_rejected_at_once(kind, tiny_weights, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the path of a socket must be short
    with socket.socket(socket.AF_UNIX) as listening:
        if kind == "fifo":
            os.mkfifo("a.jpg")
        elif kind == "socket":
            listening.bind("a.jpg")
        else:
            Path("a.jpg").symlink_to("/dev/zero")
        error = expect_error(capsys, "predict", "a.jpg", "--weights", tiny_weights)
    assert error == "error: a.jpg: is not a regular file; specify an image\n"


@pytest.fixture
def unprivileged():
    """Drop root's privileges during a test; root can read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.fixture
def unreadable_folder():
    """Return a folder, readable by all, with a file and a folder that nobody can read."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        root.chmod(0o755)
        (root / "shut").mkdir()
        (root / "a.jpg").write_bytes(encode(gradient(), "JPEG"))
        for path in root.iterdir():
            path.chmod(0)
        yield root
        (root / "shut").chmod(0o755)


def test_38_missing_permission_is_reported(unreadable_folder, unprivileged):
    with pytest.raises(InputError, match=r"a\.jpg: no permission to read it; change its permissions"):
        read_image(unreadable_folder / "a.jpg")
    with pytest.raises(InputError, match=r"shut: cannot be read \(Permission denied\)"):
        list_images(unreadable_folder / "shut")


NAMES = [
    "été 🎉.png",
    "two  spaces.png",
    "-rf.png",
    "a\nb.png",
    "\udcff\udcfe.png",
    "\x1b[31m.png",
    "$(id).png",
    "%s%n.png",
]


@pytest.mark.skipif(os.name == "nt", reason="needs POSIX file names")
def test_39_unusual_file_names_are_read_and_escaped(tiny_weights, tmp_path, capsys):
    (tmp_path / "in").mkdir()
    for name in NAMES:
        (tmp_path / "in" / name).write_bytes(encode(gradient(), "PNG"))
    out = tmp_path / "out"
    assert main(["predict", str(tmp_path / "in"), "--weights", str(tiny_weights), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("\n") == len(NAMES)
    assert all(line.isprintable() for line in printed.splitlines())
    assert {path.name for path in out.iterdir()} == {
        name.removesuffix(".png") + end for name in NAMES for end in ("_overlay.png", "_labels.png", ".json")
    }


@pytest.mark.parametrize("option", ["IMAGE", "--weights"])
def test_40_too_long_file_name_is_a_one_line_error(option, tiny_weights, tmp_path, capsys):
    name = tmp_path / ("x" * 300)
    args = [name, "--weights", tiny_weights] if option == "IMAGE" else [tmp_path, "--weights", name]
    assert re.search("name too long|no such file", expect_error(capsys, "predict", *args))  # by Python version


def test_41_deleted_file_is_reported_and_the_rest_segmented(tiny_weights, tmp_path):
    for name in "abc":
        (tmp_path / f"{name}.png").write_bytes(encode(gradient(), "PNG"))
    jobs = find_jobs([tmp_path], tmp_path / "out").jobs
    jobs[1].file.unlink()
    first, second, third = segment_images(load(tiny_weights, "cpu"), jobs)
    assert str(second) == f"{jobs[1].file}: no such file; check the path"
    assert [saved.summary["name"] for saved in (first, third)] == ["a", "c"]


@pytest.mark.parametrize("place", ["read-only", "inside a file"])
def test_42_unwritable_folder_is_reported_before_any_image(place, tiny_weights, tmp_path, capsys, monkeypatch):
    (tmp_path / "a.png").write_bytes(encode(gradient(), "PNG"))
    out = tmp_path / "a.png/out"
    if place == "read-only":
        out = tmp_path / "out"
        out.mkdir()
        monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)  # as on a read-only disk
    monkeypatch.setattr("danet.predict.folder.segment_images", lambda *_: pytest.fail("an image was read"))
    error = expect_error(capsys, "predict", tmp_path / "a.png", "--weights", tiny_weights, "--out", out)
    assert error.startswith(f"error: {out}: cannot write there (")
    assert "; choose another folder" in error


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_43_arrays_with_nan_or_infinity_are_rejected(value, tiny_weights, tmp_path, capsys):
    array = np.zeros((4, 5, 3), np.float32)
    array[2, 3, 1] = value
    np.save(tmp_path / "a.npy", array)
    error = expect_error(capsys, "predict", tmp_path / "a.npy", "--weights", tiny_weights, "--out", tmp_path / "out")
    assert (
        error == f"error: {tmp_path}/a.npy: holds float32 values; convert it to 8 or 16 bits (uint8 or uint16) first\n"
    )


def test_50_instance_mask_error_names_the_file_to_use(tmp_path):
    samples = registry.load("folder", make_dataset(tmp_path, np.full((24, 32), 26_001, np.uint16)), "train")
    with pytest.raises(InputError, match=r"p\.png: value 26001 is not one of the 3 .* the class map .*_labelIds\.png"):
        _ = samples[0]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_60_alpha_of_a_mask_must_be_constant(mode, tmp_path):
    values = np.array([[0, 1, 2]], np.uint8)
    layers = [values] * (len(mode) - 1)
    for alpha in (255, 0):
        Image.fromarray(np.stack([*layers, np.full_like(values, alpha)], -1), mode).save(tmp_path / "m.png")
        assert read_mask(tmp_path / "m.png").tolist() == values.tolist()
    Image.fromarray(np.stack([*layers, np.array([[255, 0, 255]], np.uint8)], -1), mode).save(tmp_path / "m.png")
    for read in (read_mask, lambda file: read_colored_mask(file, {(i,) * 3: i for i in range(3)})):
        with pytest.raises(InputError, match=r"m\.png: a mask with transparent and opaque pixels; save it without"):
            read(tmp_path / "m.png")


# settings, archives, clocks

BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)
MALICIOUS_YAML = {
    "alias-bomb": BOMB + "classes: *i\noptim: *i\n",
    "alias-bomb-as-key": BOMB + "? *i\n: 1\n",
    "python-object": "classes: !!python/object/apply:os.mkdir [evil]\n",
    "python-name": "classes: !!python/name:os.system\n",
    "python-module": "!!python/module:antigravity x\n",
    "nesting-of-10,000": "classes: " + "[" * 10_000,
    "invalid-date": "classes: 2001-99-99\n",
    "number-without-digits": "seed: 0x_\n",
    "wrong-tag": "classes: !!bool perhaps\n",
    "number-of-10,000-digits": "seed: " + "9" * 10_000,
    "binary": "classes: \x00\x01\n",
}


@pytest.mark.parametrize("case", MALICIOUS_YAML, ids=lambda case: f"69-{case}")
@pytest.mark.parametrize("name", ["dataset.yaml", "recipe.yaml"])
def test_69_malicious_yaml_is_rejected_fast_and_runs_nothing(case, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_text(MALICIOUS_YAML[case])
    start = time.process_time()
    with pytest.raises(InputError) as error:
        registry.load("folder", tmp_path, "train") if name == "dataset.yaml" else run_folder.read_recipe(tmp_path)
    assert time.process_time() - start < 1
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 2000
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_69_recipes_are_written_without_aliases():
    for recipe in recipes.RECIPES.values():
        assert "&" not in yaml.safe_dump(recipes.to_dict(recipe))


def test_72_package_extracts_no_archive():
    """An archive could write outside its folder. No decompression is unbounded either."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
                archives = {"tarfile", "zipfile", "zipimport", "patoolib", "py7zr"}
                if path == PACKAGE / "weights/convert.py":
                    archives.remove("zipfile")  # to read the sizes of what torch.load would unpack
                assert not archives & {n.split(".")[0] for n in names}, path
            if isinstance(node, ast.Attribute):
                assert node.attr not in {"unpack_archive", "extractall", "extract"}, path
                assert (getattr(node.value, "id", ""), node.attr) not in {
                    ("gzip", "decompress"),
                    ("zlib", "decompress"),
                    ("bz2", "decompress"),
                    ("lzma", "decompress"),
                    ("gzip", "open"),
                }, path


@pytest.mark.parametrize("name", ["a.pth.tar", "a.png", "a.safetensors"])
def test_72_malicious_archive_is_rejected(name, tiny_weights, tmp_path, capsys):
    inner, outside = tmp_path / "inner", io.BytesIO(b"evil")
    inner.mkdir()
    with tarfile.open(inner / name, "w") as archive:
        for member in ("../evil", str(tmp_path / "evil"), "pickle", "storages"):
            info = tarfile.TarInfo(member)
            info.size = 4
            archive.addfile(info, outside)
            outside.seek(0)
    if name == "a.png":
        expect_error(capsys, "predict", inner / name, "--weights", tiny_weights, "--out", tmp_path / "out")
    else:
        expect_error(capsys, "convert", inner / name, tmp_path / "w.safetensors")
    assert {path.name for path in tmp_path.rglob("*")} == {"inner", name}


def test_74_stale_lock_from_the_future_is_replaced(tmp_path):
    lock = tmp_path / run_folder.LOCK
    lock.write_text("1\n")  # a running process that never held the lock
    os.utime(lock, (4e9, 4e9))
    with run_folder.lock(tmp_path):
        assert lock.read_text() == f"{os.getpid()}\n"
    assert not lock.exists()


def test_74_training_reads_no_clock_that_can_be_set_back():
    for path in [*(PACKAGE / "train").rglob("*.py"), PACKAGE / "files.py", PACKAGE / "serve/guard.py"]:
        called = {
            (getattr(node.value, "id", ""), node.attr)
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Attribute)
        }
        assert not called & {("time", "time"), ("datetime", "now"), ("time", "ctime"), ("time", "localtime")}, path


# completeness of the tables


def function_names(file: str) -> set[str]:
    tree = ast.parse((TESTS / file).read_text())
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_all_74_inputs_are_tested():
    here = [name.removeprefix("test_") for name in function_names("cli/test_bad_inputs.py")] + [
        *REJECTED,
        *ACCEPTED,
        *ELSEWHERE,
    ]
    numbers = {int(n) for name in here for n in re.findall(r"^(\d+)", name) + re.findall(r"^\d+_and_(\d+)_", name)}
    assert numbers == set(range(1, 75))


@pytest.mark.parametrize(
    "name", sorted({name for names in ELSEWHERE.values() for name in names} | set(SERVER.values()))
)
def test_every_test_named_in_the_tables_exists(name):
    file, function = name.split("::")
    assert function in function_names(file)
