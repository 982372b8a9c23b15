"""The size that is chosen for a folder of images, and the comparison of the scales of training and prediction."""

import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.data import registry
from danet.data.augment import Augmentation
from danet.train import scale
from danet.train.run_folder import read_recipe


def make_folder(root, size: tuple[int, int], pole: int, count: int = 4):
    """Write images of `size` (height, width) with a vertical pole of that width on a background."""
    height, width = size
    for split, images in (("train", count), ("val", 2)):
        for kind in ("images", "masks"):
            (root / kind / split).mkdir(parents=True)
        for i in range(images):
            mask = np.zeros(size, np.uint8)
            left = width // 4 + i
            mask[height // 4 :, left : left + pole] = 1
            Image.fromarray(mask).save(root / f"masks/{split}/{i}.png")
            Image.fromarray(np.stack([mask * 200] * 3, 2)).save(root / f"images/{split}/{i}.png")
    (root / "dataset.yaml").write_text("classes: [background, pole]\n")
    return root


FOLDER = recipes.find("folder")


def with_data(**changes):
    return replace(FOLDER, data=replace(FOLDER.data, **changes))


@pytest.mark.parametrize(
    ("size", "pole", "chosen"),
    [
        ((600, 800), 40, 512),  # thick: as small as it gets
        ((600, 800), 9, 736),  # 8 pixels at 711, rounded up to a multiple of 32
        ((600, 800), 2, 800),  # never larger than the images
        ((1200, 1600), 3, 1024),  # nor than the limit
        ((100, 120), 1, 512),  # small images are enlarged
    ],
)
def test_size_makes_the_thinnest_class_visible(tmp_path, size, pole, chosen):
    found = scale.measure(registry.load("folder", make_folder(tmp_path, size, pole), "train"))
    assert found
    assert (found.height, found.width, found.thinnest) == (*size, "pole")
    assert found.thickness == pytest.approx(pole / max(size))
    recipe = scale.with_size(FOLDER, found)
    assert recipe.data.size == chosen
    scale.check_scales(recipe, found)
    assert scale.with_size(with_data(size=300), found).data.size == 300


def test_init_says_the_size_and_what_is_seen_at_it(tmp_path, capsys):
    root = make_folder(tmp_path, (600, 800), 9)
    (root / "dataset.yaml").unlink()
    assert main(["init", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    expected = (
        r"size: images of about 800 x 600, resized to a long side of 736: the thinnest class, .*, is then about 8.3 "
    )
    assert re.match(expected, lines[-2])
    assert lines[-1].startswith("next: edit ")


def test_thickness_is_the_shorter_mean_run():
    mask = np.zeros((20, 30), bool)
    mask[5:15, 3] = mask[5:15, 9:12] = True
    assert scale.thickness(mask) == 2  # runs of 1 and 3 along rows
    assert scale.thickness(mask.T) == 2
    assert scale.thickness(np.ones((4, 7), bool)) == 4


def test_masks_that_cannot_be_read_or_have_one_class_are_left_out(tmp_path):
    root = make_folder(tmp_path, (600, 800), 9)
    Image.fromarray(np.ones((600, 800), np.uint8)).save(root / "masks/train/0.png")
    (root / "masks/train/1.png").write_bytes(b"no image")
    found = scale.measure(registry.load("folder", root, "train"))
    assert found
    assert found.thickness == pytest.approx(9 / 800)


@pytest.mark.parametrize(
    ("changes", "wrong"),
    [
        ({"scale_from": "image", "scale": (0.5, 2.0), "size": 800}, "trained at 0.5 to 2 times .* predicted at 0.25 "),
        ({"scale_from": "image", "scale": (0.5, 2.0), "size": 1600}, None),
        ({"scale_from": "image", "scale": (0.5, 2.0), "size": None}, None),
        ({"scale_from": "size", "scale": (0.5, 2.0), "size": 800}, None),
        ({"scale_from": "size", "scale": (2.0, 4.0), "size": 800}, "trained at 0.5 to 1 times .* predicted at 0.25 "),
        ({"scale_from": "image", "short_side": 600, "scale": (0.5, 2.0), "size": 800}, None),
    ],
)
def test_prediction_at_a_scale_that_is_not_trained_is_refused(changes, wrong):
    found = scale.ObjectScale(2400, 3200, None, 1.0)
    if wrong is None:
        scale.check_scales(with_data(**changes), found)
    else:
        with pytest.raises(InputError, match=f"data.scale: images of 3200 x 2400 are {wrong}"):
            scale.check_scales(with_data(**changes), found)


def test_scale_relative_to_size_does_not_depend_on_the_images_own_size():
    """A disc of a quarter of the image's width has the same size in crops of small and large images."""
    areas = []
    for side in (100, 400):
        y, x = np.mgrid[:side, :side] / side
        labels = (np.hypot(x - 0.5, y - 0.5) < 0.125).astype(np.uint8)
        image = np.repeat(labels[..., None] * 200, 3, 2).astype(np.uint8)
        _, crop = Augmentation((200, 200), flip=0.0, long_side=200)(image, labels, np.random.default_rng(0))
        areas.append(np.count_nonzero(crop == 1))
    assert areas[0] == pytest.approx(np.pi * 25**2, rel=0.05)
    assert areas[1] == pytest.approx(areas[0], rel=0.05)


@pytest.mark.parametrize(
    ("width", "text"),
    [(0.31, "0.31 pixels"), (1.0, "1 pixel"), (7.94, "7.9 pixels"), (38.4, "38 pixels"), (113.0, "113 pixels")],
)
def test_widths_of_objects_are_readable_numbers(width, text):
    assert scale.pixels_wide(width) == f"{text} wide"


def test_training_says_the_chosen_size_and_stores_it(tmp_path, capsys):
    root, run = make_folder(tmp_path / "data", (60, 80), 6), tmp_path / "run"
    words = (
        "--network.backbone test_resnet --network.width 16 --network.no-pretrained --optim.steps 1 --data.crop 64 64"
    )
    command = ["train", "folder", "--data.root", str(root), *words.split(), "--device", "cpu", "--workers", "0"]
    assert main([*command, "--dry-run", "--out", str(run)]) == 0
    line = (
        "images of about 80 x 60, resized to a long side of 512: the thinnest class, pole, is then about 38 pixels wide"
    )
    assert line in capsys.readouterr().out
    assert main([*command, "--out", str(run)]) == 0
    notes = capsys.readouterr().err
    assert f"size: 512 ({line}); set --data.size to change it" in notes
    assert "note: warmup takes 20 of 1 steps; train longer, or set --optim.warmup to 0" in notes
    assert read_recipe(run).data.size == danet.load(run / "best.safetensors").card.size == 512
    refused = [*command, "--data.scale-from", "image", "--data.size", "512", "--out", str(tmp_path / "other")]
    assert main(refused) == 2
    assert "error: --data.scale: images of 80 x 60 are trained at 0.5 to 2 times" in capsys.readouterr().err
    assert not (tmp_path / "other").exists() or not any((tmp_path / "other").iterdir())


def test_evaluation_at_another_size_is_that_of_such_weights(tmp_path, tiny_weights, capsys):
    predictor = danet.load(tiny_weights)
    samples = registry.load("toy", None, "val")
    first = next(predictor.with_size(64).predictions(samples, indices=[0]))
    assert np.array_equal(first.labels, predictor(samples[0].image, size=64).labels)
    assert predictor.card.size == 128
    with pytest.raises(InputError, match="size: the `protocol` already resizes images, to 608 pixels"):
        predictor.with_size(64, danet.predict.protocols.PROTOCOLS["released-multi"])
