"""Overlays: uncolored background, blended swatches, tiny images, rare classes, and the hint on low confidence."""

import io

import numpy as np
import pytest
from memory import needs_proc, peak_of
from PIL import Image

from danet.cli import main
from danet.data.classes import Classes
from danet.predict import overlay
from danet.predict.png import LONG_ROW
from danet.predict.segmentation import Segmentation

CELLS = Classes.named(("background", "cell"))


def segmentation(labels: np.ndarray, classes: Classes = CELLS, value: int = 100) -> Segmentation:
    image = np.full((*labels.shape, 3), value, np.uint8)
    return Segmentation("x", image, labels, np.full(labels.shape, 0.9, np.float32), classes)


def test_the_background_of_a_binary_set_is_not_colored():
    labels = np.zeros((300, 300), np.uint8)
    labels[:, 150:] = 1
    shown = np.asarray(segmentation(labels).overlay())
    assert shown[10, 10].tolist() == [100, 100, 100]
    color = [round(0.45 * 100 + 0.55 * channel) for channel in CELLS.palette[1]]
    assert shown[10, 299].tolist() == color
    assert dict(segmentation(labels).legend()) == {"background  50.0%": (100, 100, 100), "cell  50.0%": tuple(color)}


def test_swatches_have_the_mean_color_of_the_overlay():
    rng = np.random.default_rng(0)
    image, labels = rng.integers(0, 256, (500, 700, 3), np.uint8), np.zeros((500, 700), np.uint8)
    labels[:, 300:] = 2
    classes = Classes.named(("a", "b", "c"))
    shown = overlay.overlay(image, labels, classes)
    colors = overlay.class_colors(image, labels, classes)
    assert colors.keys() == {0, 2}
    assert np.abs(shown[:, :290].reshape(-1, 3).mean(0) - colors[0]).max() < 2


@pytest.mark.parametrize(
    ("size", "factor"), [((16, 12), 16), ((28, 28), 9), ((100, 128), 2), ((129, 50), 1), ((1, 400), 1)]
)
def test_overlays_of_tiny_images_are_enlarged(size, factor):
    labels = np.zeros(size, np.uint8)
    labels[:, size[1] // 2 :] = 1
    shown = segmentation(labels).overlay()
    assert shown.height >= factor * size[0]
    pixels = np.asarray(shown)[: factor * size[0], : factor * size[1]]
    assert pixels[0, 0].tolist() == [100] * 3
    assert (pixels[0, :].max(-1) > 150).sum() >= size[1] // 2 * factor // 2


@pytest.mark.parametrize(
    ("share", "digits", "text"),
    [
        (0.0, 1, "0.0%"),
        (1.0, 0, "100%"),
        (0.9996, 1, ">99.9%"),
        (0.996, 0, ">99%"),
        (0.0004, 1, "<0.1%"),
        (0.004, 0, "<1%"),
        (0.1234, 1, "12.3%"),
    ],
)
def test_only_whole_images_are_100_percent(share, digits, text):
    assert overlay.share_text(share, digits) == text


def test_classes_with_few_pixels_are_not_in_the_legend():
    entries = overlay.share_legend(Classes.named(("a", "b")), [(0, 0.9996), (1, 0.0004)])
    assert [text for text, _ in entries] == ["a  >99.9%"]


@pytest.mark.parametrize("mode", ["L", "P", "RGB"])
def test_images_with_long_rows_are_encoded_without_loss(mode):
    values = np.random.default_rng(0).integers(0, 250, (2, LONG_ROW + 7, 3), np.uint8)
    image = Image.fromarray(values if mode == "RGB" else values[..., 0])
    if mode == "P":
        image = overlay.label_image(values[..., 0], Classes.named(tuple(f"class {i}" for i in range(250))))
    assert image.mode == mode
    with Image.open(io.BytesIO(overlay.to_png(image))) as read:
        assert (read.format, read.mode) == ("PNG", mode)
        assert np.array_equal(np.asarray(read), np.asarray(image))
        assert read.getpalette() == image.getpalette()


@needs_proc
def test_a_row_of_many_pixels_is_not_copied_to_be_encoded():
    image = Image.new("RGB", (8_000_000, 1))
    assert peak_of(lambda: overlay.to_png(image)) < 24_000_000, "less than one copy of the row"


@needs_proc
def test_overlays_of_large_images_copy_neither_image_nor_labels():
    large = segmentation(np.zeros((1, 8_000_000), np.uint8))
    assert peak_of(large.overlay) < 8 * large.labels.size


def test_low_confidence_gets_a_hint(tiny_weights, tmp_path, capsys):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 48, 3), np.uint8)).save(tmp_path / name)
    args = ["predict", "--weights", str(tiny_weights), "--out", str(tmp_path / "out")]
    assert main([*args, str(tmp_path / "a.png")]) == 0
    error = capsys.readouterr().err
    assert (
        f"hint: low confidence in {tmp_path / 'a.png'}, below 75% on average: perhaps it shows what the network was not"
        in error
    )
    both = f"{tmp_path / 'a.png'}, {tmp_path / 'b.png'}"
    assert main([*args, "--overwrite", str(tmp_path / "a.png"), str(tmp_path / "b.png")]) == 0
    assert f"hint: low confidence in 2 of 2 images ({both}), below 75%" in capsys.readouterr().err
    (tmp_path / "c.png").write_bytes(b"")
    assert main([*args, "--overwrite", str(tmp_path)]) == 2
    assert f"hint: low confidence in 2 of 2 images ({both}), below 75%" in capsys.readouterr().err
