"""EXIF orientation: danet init and check compare it with the masks, name what they cannot decide, and follow `exif`."""

from pathlib import Path

import numpy as np
import pytest
from miniature import image, save
from PIL import Image, ImageOps

from danet import InputError
from danet.cli import main
from danet.data.cache import open_cache
from danet.data.custom import dataset_yaml
from danet.data.custom.check import check_folder
from danet.data.custom.proposal import write
from danet.data.custom.propose import propose
from danet.data.images.read import image_size, read_header, read_image


def oriented(root: Path, orientations: list[int], size: tuple[int, int] = (12, 16), upright: bool = False) -> Path:
    """Images with EXIF orientations, and masks whose class 1 is the white corner, stored or upright."""
    for i, orientation in enumerate(orientations):
        exif = Image.Exif()
        exif[0x0112] = orientation
        pixels = np.zeros((*size, 3), np.uint8)
        pixels[0, :5] = 255
        (root / "images").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(root / f"images/{'abcdefghij'[i]}.png", exif=exif)
        mask = Image.fromarray((pixels[..., 0] > 0).astype(np.uint8))
        mask.getexif()[0x0112] = orientation
        save(root / f"masks/{'abcdefghij'[i]}.png", np.asarray(ImageOps.exif_transpose(mask) if upright else mask))
    return root


def initialize(root: Path):
    proposal = propose(root)
    write(root, proposal)
    return proposal


def agrees(root: Path) -> bool:
    """Whether the white corner of every image is that of class 1 in its mask."""
    parts = [dataset_yaml.load(root, split) for split in ("train", "val")]
    samples = [part[i] for part in parts for i in range(len(part))]
    return all(np.array_equal(sample.image[..., 0] > 127, sample.labels == 1) for sample in samples)


@pytest.mark.parametrize("orientation", [2, 3, 4])
def test_turns_that_keep_the_size_are_named(tmp_path, orientation, capsys):
    oriented(tmp_path, [1, orientation, 1, orientation, 1])
    assert main(["init", str(tmp_path)]) == 0
    text = "2 of 5 images have an EXIF orientation, and no mask shows whether it was drawn with it (b.png, d.png)"
    assert text in capsys.readouterr().out
    assert main(["check", str(tmp_path)]) == 0
    warned = "images that an EXIF orientation turns or mirrors: 2 (b.png, d.png); compare them with their masks, and"
    assert warned in capsys.readouterr().out
    assert not agrees(tmp_path)
    with (tmp_path / "dataset.yaml").open("a") as file:
        file.write("exif: ignore\n")
    assert agrees(tmp_path)
    assert not any("EXIF" in warning.what for warning in check_folder(tmp_path).warnings)


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_square_images_that_are_turned_are_named(tmp_path, orientation):
    oriented(tmp_path, [orientation] + [1] * 4, size=(12, 12))
    initialize(tmp_path)
    (warning,) = (w for w in check_folder(tmp_path).warnings if "EXIF" in w.what)
    assert "1 (a.png)" in warning.what


@pytest.mark.parametrize(("upright", "key"), [(False, "ignore"), (True, "apply")])
def test_the_sizes_of_masks_show_whether_they_were_drawn_upright(tmp_path, upright, key):
    oriented(tmp_path, [1, 6, 3, 8, 1], upright=upright)
    proposal = initialize(tmp_path)
    assert proposal.exif == key
    assert (
        f"exif: {key}   # the EXIF orientation of images, to fit the masks\n" in (tmp_path / "dataset.yaml").read_text()
    )
    assert agrees(tmp_path)
    report = check_folder(tmp_path)
    assert report.problems == ()
    assert not any("EXIF" in warning.what for warning in report.warnings)


def test_masks_that_disagree_are_left_to_check(tmp_path):
    oriented(tmp_path, [6, 1, 1])
    oriented(tmp_path / "more", [1, 1, 1, 8], upright=True)
    for kind in ("images", "masks"):
        (tmp_path / f"more/{kind}/d.png").rename(tmp_path / f"{kind}/d.png")
    initialize(tmp_path)
    (problem,) = check_folder(tmp_path).problems
    assert str(problem).endswith(
        "a.png: mask of 16 x 12 pixels for an image of 12 x 16 (the image has EXIF orientation 6); "
        "turn the mask, or set exif in dataset.yaml to apply or ignore"
    )


def test_a_transposed_mask_without_an_orientation_is_not_blamed_on_exif(tmp_path):
    image(tmp_path / "images/a.jpg")
    image(tmp_path / "images/b.jpg")
    for name in "ab":
        save(tmp_path / f"masks/{name}.png", np.zeros((16, 12), np.uint8))
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\n")
    assert all("EXIF" not in str(problem) for problem in check_folder(tmp_path).problems)


def test_an_invalid_exif_setting_is_an_error(tmp_path):
    oriented(tmp_path, [1, 1])
    (tmp_path / "dataset.yaml").write_text("classes: [x, y]\nexif: maybe\n")
    with pytest.raises(InputError, match="exif: must be apply or ignore, got 'maybe'"):
        dataset_yaml.read_settings(tmp_path)


def test_a_cache_distinguishes_the_orientations(tmp_path):
    oriented(tmp_path / "data", [3, 3])
    text = "classes: [x, y]\nsplit_by: image\n"
    for setting, row in (("", -1), ("exif: ignore\n", 0)):
        (tmp_path / "data/dataset.yaml").write_text(text + setting)
        samples = open_cache(dataset_yaml.load(tmp_path / "data", "train"), tmp_path / "cache")
        for _ in range(2):
            assert samples[0].image[row].max() == 255


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp", "a.avif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_header_size_and_pixels_agree_in_every_format(tmp_path, name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / name, exif=exif)
    header = read_header(tmp_path / name)
    assert (header.height, header.width, header.orientation) == (4, 6, orientation)
    assert read_image(tmp_path / name, upright=False).shape == (4, 6, 3)
    for upright in (False, True):
        assert image_size(tmp_path / name, upright=upright) == read_image(tmp_path / name, upright=upright).shape[:2]


def test_the_orientation_after_the_pixels_of_a_png_is_found(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(tmp_path / "a.png", exif=exif)
    content = (tmp_path / "a.png").read_bytes()
    start = content.index(b"eXIf") - 4
    chunk = content[start : start + 12 + int.from_bytes(content[start : start + 4], "big")]
    (tmp_path / "a.png").write_bytes(content.replace(chunk, b"")[:-12] + chunk + content[-12:])
    assert read_header(tmp_path / "a.png").orientation == 6
    assert image_size(tmp_path / "a.png") == (6, 4) == read_image(tmp_path / "a.png").shape[:2]
