"""Images too large to load: no seams, no pixel twice, coordinates kept, memory bounded."""

import copy
import json
import os
import re
import resource
import subprocess
import sys
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image

from danet import InputError
from danet.cli import main
from danet.data.images.channels import RGB, resize_long_side
from danet.data.images.geotiff import open_raster, window_reader
from danet.data.images.pillow import regular_file
from danet.data.images.read import read_image, read_mask
from danet.predict import large_image
from danet.predict.predictor import load
from danet.predict.protocols import find_protocol
from danet.weights.card import Card

rasterio = pytest.importorskip("rasterio")
pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")  # of the tests' own reading


@pytest.fixture
def predictor(tiny_weights):
    """A predictor whose classes depend on each pixel's color alone."""
    predictor = load(tiny_weights)
    weights = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    predictor.logits = lambda images: torch.einsum("kc,bchw->bkhw", weights, images)
    return predictor


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (130, 170, 3), np.uint8)


def write(path, image: np.ndarray, **form):
    image = image if image.ndim == 3 else image[..., None]
    shape = {"height": image.shape[0], "width": image.shape[1], "count": image.shape[2]}
    with rasterio.open(path, "w", **({"driver": "GTiff", "dtype": image.dtype} | shape | form)) as target:
        target.write(image.transpose(2, 0, 1))
        if image.shape[2] == 4 and "alpha" not in form:
            target.colorinterp = [*target.colorinterp[:3], rasterio.enums.ColorInterp.alpha]
    return path


@pytest.mark.parametrize("orientation", [1, 3])
def test_rotated_tiffs_are_refused(orientation, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "a.tif", tiffinfo={274: orientation})
    with regular_file(tmp_path / "a.tif") as file, open_raster(file, tmp_path / "a.tif") as source:
        refused = pytest.raises(InputError, match="is rotated by its EXIF orientation; save it upright")
        with refused if orientation > 1 else nullcontext():
            window_reader(source, RGB, tmp_path / "a.tif")


@pytest.mark.parametrize("way", ["blocks", "shrunk"])
def test_nan_of_the_network_is_an_error(way, predictor, image):
    predictor.logits = lambda images: torch.full((1, 6, *images.shape[2:]), torch.nan)
    segment = {
        "blocks": partial(large_image.segment_blocks, window=64, overlap=16),
        "shrunk": partial(large_image.segment_shrunk, long_side=64),
    }[way]
    with pytest.raises(InputError, match=r"^weights: the network returned values that are not numbers \(NaN\)"):
        list(segment(predictor, lambda rows, columns: image[rows, columns], image.shape[:2]))


def blended(predictor, image: np.ndarray, window: int, overlap: int) -> tuple[np.ndarray, np.ndarray]:
    labels, confidence = np.full(image.shape[:2], 255, np.uint8), np.zeros(image.shape[:2], np.float32)
    read = lambda rows, columns: image[rows, columns]  # noqa: E731
    for block in large_image.segment_blocks(predictor, read, image.shape[:2], window, overlap):
        assert (labels[block.rows, block.columns] == 255).all()
        assert np.array_equal(block.pixels, image[block.rows, block.columns])
        labels[block.rows, block.columns], confidence[block.rows, block.columns] = block.labels, block.confidence
    return labels, confidence


@pytest.mark.parametrize(("window", "overlap"), [(64, 16), (64, 0), (50, 49), (130, 20), (200, 50), (7, 3)])
def test_windows_change_nothing_for_a_pixelwise_network(predictor, image, window, overlap):
    result = image[:40, :60] if window < 10 or overlap == 49 else image
    whole = predictor(result, size=max(result.shape))
    labels, confidence = blended(predictor, result, window, overlap)
    assert np.abs(confidence - whole.confidence).max() < 1e-5
    assert (labels != whole.labels).mean() < 1e-3  # ties


def test_overlapping_windows_leave_no_seams(predictor, image):
    """The network's class depends on the distance from the window's right border, so that it jumps between windows."""
    ramp = torch.linspace(-4, 4, 64).repeat(64, 1)
    predictor.logits = lambda images: torch.stack([ramp, -ramp, *[ramp - 99] * 4])[None, :, : images.shape[2]]

    def largest_step(overlap: int) -> float:
        signed = np.where((result := blended(predictor, image[:64], 64, overlap))[0] == 0, result[1], 1 - result[1])
        return float(np.abs(np.diff(signed, axis=1)).max())

    assert largest_step(0) > 0.95
    assert largest_step(16) < 0.13


def test_weights_of_windows_sum_to_one():
    for side, window, overlap in [(1000, 480, 120), (481, 480, 120), (100, 480, 120), (1000, 64, 63), (999, 64, 0)]:
        total = torch.zeros(side)
        for cover, weights in large_image._weighted(side, window, overlap):
            total[cover.start : cover.stop] += torch.from_numpy(weights)
        assert (total - 1).abs().max() < 1e-6


def test_stripes_do_not_change_the_result(predictor, monkeypatch):
    """The network sees a neighborhood, so that a stripe without its neighbors' windows would differ."""
    image = np.random.default_rng(1).integers(0, 256, (90, 900, 3), np.uint8)
    predictor.logits = lambda images: (
        torch.nn.functional.avg_pool2d(images, 9, stride=1, padding=4).repeat(1, 2, 1, 1)
        * torch.arange(1, 7)[:, None, None]
    )
    labels, confidence = blended(predictor, image, 64, 16)
    monkeypatch.setattr(large_image, "_HELD", 0)
    assert len(large_image._stripes(900, 64, 16, 6)) == 4
    striped = blended(predictor, image, 64, 16)
    assert np.array_equal(labels, striped[0])
    assert np.abs(confidence - striped[1]).max() < 1e-6


def test_labels_have_the_coordinates_of_the_image(predictor, image, tmp_path):
    where = rasterio.Affine(0.05, 0, 500_000, 0, -0.05, 5_400_000)
    source = write(tmp_path / "town.tif", image, crs="EPSG:25832", transform=where, tiled=True)
    steps = []
    saved = large_image.segment_file(
        predictor, source, tmp_path / "out", size=64, overlap=16, advance=lambda *numbers: steps.append(numbers)
    )
    names = ["town_overlay.png", "town_labels.tif", "town.json"]
    assert [path.name for path in saved.paths] == names
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(names)
    whole = predictor(image, size=170)
    with rasterio.open(saved.paths[1]) as labels:
        assert (labels.crs, labels.transform, labels.dtypes) == (rasterio.CRS.from_epsg(25832), where, ("uint8",))
        assert labels.block_shapes == [(256, 256)]
        assert labels.compression.value == "DEFLATE"
        assert labels.colormap(1)[2][:3] == predictor.classes.palette[2]
        assert (labels.read(1) != whole.labels).mean() < 1e-3
    assert np.array_equal(read_mask(saved.paths[1]), rasterio.open(saved.paths[1]).read(1))
    summary = json.loads(saved.paths[2].read_text())
    assert (summary["width"], summary["height"], summary["window"], summary["overlap"]) == (170, 130, 64, 16)
    for entry, other in zip(summary["classes"], whole.summary()["classes"], strict=True):
        assert entry["id"] == other["id"]
        assert entry["share"] == pytest.approx(other["share"], abs=1e-3)
        assert entry["mean_confidence"] == pytest.approx(other["mean_confidence"], abs=1e-3)
    assert steps == [(i, 12) for i in range(1, 13)]
    assert read_image(saved.paths[0])[:130, :170].shape == (130, 170, 3)


@pytest.mark.parametrize("kind", ["gray", "alpha", "deep", "palette", "png", "jpeg"])
def test_every_file_kind_is_segmented_like_a_small_image(predictor, image, tmp_path, kind):
    result, name = image, "town.tif"
    if kind == "gray":
        write(tmp_path / name, image[..., 0])
        result = image[..., :1].repeat(3, 2)
    elif kind == "alpha":
        write(tmp_path / name, np.dstack([image, image[..., 0]]))
        result = read_image(tmp_path / name)
    elif kind == "deep":
        write(tmp_path / name, image.astype(np.uint16) * 257)
    elif kind == "palette":
        paletted = Image.fromarray(image).quantize(256)
        paletted.save(tmp_path / name)
        result = np.asarray(paletted.convert("RGB"))
    else:
        name = f"town.{kind}"
        Image.fromarray(image).save(tmp_path / name, **({"subsampling": 0} if kind == "jpeg" else {}))
        result = read_image(tmp_path / name)
    saved = large_image.segment_file(predictor, tmp_path / name, tmp_path / "out", size=64, overlap=16)
    with rasterio.open(saved.paths[1]) as labels:
        assert (labels.read(1) != predictor(result, size=170).labels).mean() < (0.02 if kind == "jpeg" else 1e-3)


def by_rows(path) -> np.ndarray:
    with regular_file(path) as file, open_raster(file, path) as source:
        return window_reader(source, RGB, path)(slice(0, source.height), slice(0, source.width))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_is_composited_over_black(tmp_path, image, mode, suffix):
    file = tmp_path / f"a{suffix}"
    white = np.full_like(image[:2], 255)
    alpha = np.vstack([np.repeat([[0], [128]], 170, 1), image[..., 1]]).astype(np.uint8)
    result = Image.fromarray(np.dstack([np.vstack([white, image]), alpha]))
    if mode == "P":
        paletted = result.convert("RGB").quantize(64)
        if suffix == ".png":  # a TIFF's palette has none
            paletted.info["transparency"] = bytes(range(64))
        paletted.save(file)
    else:
        result.convert(mode).save(file)
    whole, rows = read_image(file), by_rows(file)
    assert rows.dtype == np.uint8
    assert np.abs(rows.astype(int) - whole).max() <= 1
    if mode != "P":
        assert (rows[:2, 0] == [[0] * 3, [128] * 3]).all()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_transparent_color_of_a_png_becomes_black(tmp_path, mode):
    pixels = np.random.default_rng(0).integers(1, 3, (40, 50, 3), np.uint8) * 60
    color = (60, 120, 60) if mode == "RGB" else 60
    image = Image.fromarray(pixels if mode == "RGB" else pixels[..., 0])
    image.save(tmp_path / "a.png", transparency=color)
    rows = by_rows(tmp_path / "a.png")
    assert (rows == 0).any()
    assert np.array_equal(rows, read_image(tmp_path / "a.png"))


def test_the_nodata_color_of_a_palette_is_kept(tmp_path):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    file, colors = tmp_path / "a.tif", {i: (i, 255 - i, 9, 255) for i in range(256)}
    form = {"driver": "GTiff", "dtype": "uint8", "height": 16, "width": 16, "count": 1, "photometric": "palette"}
    with rasterio.open(file, "w", nodata=3, **form) as made:
        made.write(stored[None])
        made.write_colormap(1, colors)
    assert np.array_equal(by_rows(file), read_image(file))
    assert by_rows(file)[0, 3].tolist() == [3, 252, 9]


def test_16_bit_transparency_is_composited_over_black(tmp_path):
    stored = np.random.default_rng(0).integers(0, 1 << 16, (20, 24, 4), np.uint16)
    stored[0] = 65535, 65535, 65535, 0
    stored[1] = 65535
    for name, driver in (("a.png", "PNG"), ("a.tif", "GTiff")):
        rows = by_rows(write(tmp_path / name, stored, driver=driver, **ALPHA[driver]))
        assert np.abs(rows - read_image(tmp_path / "a.png")).max() <= 1 / 257 + 1e-4


ALPHA = {"PNG": {}, "GTiff": {"photometric": "RGB", "alpha": "NON-PREMULTIPLIED"}}


def test_premultiplied_colors_are_kept(tmp_path):
    alpha = np.arange(256, dtype=np.uint8).reshape(16, 16)
    stored = np.dstack([alpha // 2, alpha // 3, alpha, alpha])
    file = write(tmp_path / "a.tif", stored, photometric="RGB", alpha="PREMULTIPLIED")
    assert np.array_equal(by_rows(file), stored[..., :3])
    assert np.abs(read_image(file).astype(int) - stored[..., :3]).max() <= 1


def test_a_fourth_band_other_than_alpha_is_ignored(tmp_path, image):
    stored = np.dstack([image, image[..., 0]])
    file = write(tmp_path / "a.tif", stored, photometric="RGB", alpha="UNSPECIFIED")
    assert np.array_equal(by_rows(file), image)
    assert np.array_equal(read_image(file), image)


def test_unsupported_large_images_are_rejected(predictor, image, tmp_path, monkeypatch):
    cases = {
        "float.tif": (write(tmp_path / "float.tif", image.astype(np.float32)), "holds float32 values"),
        "five.tif": (write(tmp_path / "five.tif", np.dstack([image, image[..., :2]])), "has 5 bands of 8 bits"),
    }
    (tmp_path / "vrt.tif").write_text("<VRTDataset rasterXSize='9' rasterYSize='9'/>")
    cases["vrt.tif"] = (tmp_path / "vrt.tif", "not a TIFF, PNG or JPEG")
    cut = write(tmp_path / "cut.tif", image)
    cut.write_bytes(cut.read_bytes()[:30_000])
    cases["cut.tif"] = (cut, "truncated or damaged")
    os.mkfifo(tmp_path / "pipe.tif")
    cases["pipe.tif"] = (tmp_path / "pipe.tif", "is not a regular file")
    cases["absent.tif"] = (tmp_path / "absent.tif", "no such file")
    for path, what in cases.values():
        with pytest.raises(InputError, match=what):
            large_image.segment_file(predictor, path, tmp_path / "out", size=64)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(image).save(tmp_path / "side.jpg", exif=exif)
    with pytest.raises(InputError, match="is rotated by its EXIF orientation"):
        large_image.segment_file(predictor, tmp_path / "side.jpg", tmp_path / "out")
    good = write(tmp_path / "good.tif", image)
    with pytest.raises(InputError, match="protocol: only whole is supported"):
        large_image.segment_file(predictor, good, tmp_path / "out", protocol=find_protocol("paper-multi"))
    with pytest.raises(InputError, match="overlap: must be below the window's 64 pixels, got 64"):
        large_image.segment_file(predictor, good, tmp_path / "out", size=64, overlap=64)
    monkeypatch.setattr("danet.data.images.geotiff._MAX_STORED", 1000)
    with pytest.raises(InputError, match=r"decoded as a whole; write it tiled"):
        large_image.segment_file(predictor, good, tmp_path / "out")
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_an_interruption_leaves_no_files(predictor, image, tmp_path):
    source = write(tmp_path / "town.tif", image)

    def interrupt(done: int, total: int) -> None:
        if done == 7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        large_image.segment_file(predictor, source, tmp_path / "out", size=64, overlap=16, advance=interrupt)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("limit", [2_000, 9_000])
def test_a_full_disk_is_reported(predictor, image, tmp_path, limit):
    """GDAL closes such a file without an error."""
    source, before = write(tmp_path / "town.tif", image), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(InputError, match=r"town_labels\.tif: cannot be written.*free some space"):
            large_image.segment_file(predictor, source, tmp_path / "out", size=64)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((tmp_path / "out").iterdir()) == []


def test_predict_segments_images_above_the_pixel_limit(tiny_weights, image, tmp_path, capsys, monkeypatch):
    source = write(tmp_path / "town.tif", image)
    monkeypatch.setattr("danet.predict.inputs.MAX_PIXELS", 130 * 170 - 1)
    args = ["predict", str(source), "--weights", str(tiny_weights), "--out", str(tmp_path / "out"), "--size", "64"]
    assert main(args) == 0
    printed = capsys.readouterr()
    assert printed.out.startswith(str(tmp_path / "out/town_overlay.png"))
    assert re.fullmatch(r"(hint: low confidence in .*town\.tif, .*\n)?", printed.err)
    assert json.loads((tmp_path / "out/town.json").read_text())["window"] == 64
    assert main(args) == 2
    assert "already exists" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "rasterio", None)
    assert main([*args, "--overwrite"]) == 2
    assert "is not installed; in a clone of danet, run: uv sync --extra geo" in capsys.readouterr().err


MEASURED = """
import sys
from pathlib import Path
import numpy as np, torch
from danet.predict import large_image
from danet.predict.predictor import load
predictor = load(sys.argv[1])
predictor.logits = lambda images: torch.nn.functional.avg_pool2d(images, 16, ceil_mode=True).repeat(1, 2, 1, 1)
large_image.segment_file(predictor, Path(sys.argv[2]), Path(sys.argv[3]), size=512)
print(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])  # ru_maxrss begins with the parent's peak
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("name", ["big.tif", "big.png", "big.jpg"])
def test_108_million_pixels_need_less_than_1_5_gb(tiny_weights, tmp_path, name):
    rows = np.random.default_rng(0).integers(0, 256, (90, 120, 3), np.uint8).repeat(100, 1)
    image = Image.fromarray(rows).resize((12_000, 9_000), Image.Resampling.NEAREST)
    image.save(tmp_path / name, **({"compression": "tiff_lzw"} if name.endswith("tif") else {}))
    call = [sys.executable, "-c", MEASURED, str(tiny_weights), str(tmp_path / name), str(tmp_path / "out")]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    peak = 1024 * int(done.stdout)
    print(f"{peak:,} bytes")
    assert peak < 1.5e9, f"{peak:,} bytes"
    assert json.loads((tmp_path / "out/big.json").read_text())["width"] == 12_000


@pytest.fixture
def resizing(predictor):
    """The predictor with weights of the present version, whose rule is one for images of all sizes."""
    predictor.card = replace(predictor.card, scale_rule="size", size=64)
    return predictor


@pytest.mark.parametrize("read", [1 << 23, 3000, 200])
def test_large_image_is_resized_as_a_small_one(resizing, tmp_path, monkeypatch, read):
    """Means of squares and then a resize, against one resize: nearly the same pixels."""
    monkeypatch.setattr(large_image, "_READ", read)
    smooth = np.random.default_rng(0).integers(0, 256, (13, 17, 3), np.uint8)
    image = np.asarray(Image.fromarray(smooth).resize((850, 640), Image.Resampling.BICUBIC))
    path = write(tmp_path / "photo.tif", image)
    saved = large_image.segment_file(resizing, path, tmp_path / "out")
    whole = resizing(image)
    with rasterio.open(saved.paths[1]) as source:
        labels = source.read(1)
    assert (labels == whole.labels).mean() > 0.98
    assert saved.summary["long_side"] == 64
    assert saved.summary["classes"][0]["mean_confidence"] == pytest.approx(
        whole.summary()["classes"][0]["mean_confidence"], abs=0.02
    )


@pytest.mark.parametrize(("long_side", "factor"), [(64, 13), (128, 6), (300, 2)])
def test_pixels_at_the_networks_input_are_those_of_one_resize(resizing, image, long_side, factor):
    large = np.asarray(Image.fromarray(image[:13, :17]).resize((1777, 1187), Image.Resampling.BICUBIC))
    own, seen = resizing.logits, []
    resizing.logits = lambda images: seen.append(images) or own(images)
    read = lambda rows, columns: large[rows, columns]  # noqa: E731
    list(large_image.segment_shrunk(resizing, read, large.shape[:2], long_side))
    pixels = 127.5 * (seen[0][0].permute(1, 2, 0).numpy() + 1)  # the card's mean and standard deviation are 0.5
    assert np.abs(pixels - resize_long_side(large, long_side)).mean() < 1
    assert large_image._reduced(read, large.shape[:2], factor, lambda _: None).shape[1] == -(-1777 // factor)


def test_reduced_pixels_are_means_of_squares(image, monkeypatch):
    seen = []
    monkeypatch.setattr(large_image, "_READ", 400)
    reduced = large_image._reduced(lambda rows, columns: image[rows, columns], (130, 170), 8, seen.append)
    assert reduced.shape == (17, 22, 3)
    assert np.array_equal(reduced[3, 4], image[24:32, 32:40].mean((0, 1)).round())
    assert np.array_equal(reduced[16, 21], image[128:, 168:].mean((0, 1)).round())
    assert seen[-1] == 130


def test_rule_of_the_weights_decides(resizing, image, tmp_path):
    path = write(tmp_path / "town.tif", image)
    native = {"window": 64, "overlap": 16}
    for name, predictor, expected in (
        ("new", resizing, {"long_side": 64}),
        ("windows", resizing.in_windows(), native),
        ("old", _with(resizing, scale_rule=Card.from_json(_old(resizing.card)).scale_rule), native),
        ("any size", _with(resizing, size=None), {"window": 512, "overlap": 128}),
    ):
        summary = large_image.segment_file(predictor, path, tmp_path / name).summary
        assert {key: summary[key] for key in summary if key in ("long_side", *native)} == expected, name


def _with(predictor, **changes):
    other = copy.copy(predictor)
    other.card = replace(predictor.card, **changes)
    return other


def _old(card: Card) -> str:
    """A card as danet 0.1.0 wrote it."""
    return json.dumps({key: value for key, value in json.loads(card.json()).items() if key != "scale_rule"})


def test_unknown_rules_are_refused(resizing):
    with pytest.raises(ValueError, match="scale_rule: must be one of native, size, got 'both'"):
        Card.from_json(replace(resizing.card, scale_rule="both").json())


def test_command_says_that_an_image_was_resized(tiny_weights, image, tmp_path, monkeypatch, capsys):
    from danet.weights import file as weights_file

    network, card = weights_file.load(tiny_weights)
    weights_file.save(tmp_path / "new.safetensors", network, replace(card, scale_rule="size"))
    monkeypatch.setattr("danet.predict.inputs.MAX_PIXELS", 1000)
    path = str(write(tmp_path / "town.tif", image))
    words = ["predict", path, "--weights", str(tmp_path / "new.safetensors"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert "resized to a long side of 128, as smaller images; see --windows" in capsys.readouterr().err
    assert main([*words, "--windows", "--overwrite", "--size", "64"]) == 0
    assert json.loads((tmp_path / "out/town.json").read_text())["window"] == 64
