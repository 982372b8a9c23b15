"""A user's folder and its dataset.yaml, and CamVid."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danet import InputError
from danet.data import registry
from danet.data.custom.check import check_folder
from danet.data.datasets import camvid


def write_pair(root, name: str, value: int = 1, split: str = "", masks: str = "masks", size=(20, 30)) -> None:
    for kind, array in (
        ("images", np.full((*size, 3), 7, np.uint8)),
        (masks, np.full(size, value, np.uint8)),
    ):
        folder = root / kind / split
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(folder / f"{name}.png")


@pytest.fixture
def folder(tmp_path):
    """Ten images of two classes, without train and val folders."""
    for i in range(10):
        write_pair(tmp_path, f"p{i}", i % 2)
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    return tmp_path


def test_a_folder_is_divided_by_hashes_of_names(folder):
    train, val = (registry.load("folder", folder, split) for split in ("train", "val"))
    names = [[samples[i].name for i in range(len(samples))] for samples in (train, val)]
    assert len(names[0]) == 8
    assert len(names[1]) == 2
    assert not set(names[0]) & set(names[1])
    write_pair(folder, "another")
    assert set(names[1]) <= {pair.name for pair in registry.load("folder", folder, "val").pairs} | {"another"}


def test_train_and_val_folders_are_used_if_present(tmp_path):
    write_pair(tmp_path, "a", 0, "train")
    write_pair(tmp_path, "b", 1, "val")
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    sample = registry.load("folder", tmp_path, "val")[0]
    assert sample.name == "b"
    assert sample.image.shape == (20, 30, 3)
    assert sample.labels.tolist() == np.ones((20, 30)).tolist()


def test_settings_map_mask_values_to_classes(tmp_path):
    write_pair(tmp_path, "a", 255, "train", masks="gt")
    (tmp_path / "dataset.yaml").write_text(
        "classes: [ground, crack]\nmasks: gt\nlabel_map: {0: 0, 255: 1, 128: 255}\nignore: [9, 128]\n"
        "palette: [[0, 0, 0], [255, 0, 0]]\n"
    )
    samples = registry.load("folder", tmp_path, "train")
    assert set(samples[0].labels.ravel().tolist()) == {1}
    assert samples.classes.palette == ((0, 0, 0), (255, 0, 0))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("clases: [a]", "unknown key 'clases'; did you mean classes?"),
        ("classes: crack", "classes: must be a list of names, got 'crack'"),
        ("classes: []", "classes: must be a list of names, got []"),
        ("classes: [a, a]", "dataset.yaml: classes: duplicate names: a"),
        (
            "classes: [yes, no]",
            "got True; write classes: [background, crack], with quotes around words that YAML converts",
        ),
        ("classes: [a, b]\npalette: [[0, 0, 300], [1, 2, 3]]", "palette: must be a list of colors"),
        ("classes: [a, b]\nlabel_map: {a: b}", "label_map: must map mask values to class ids, got"),
        ("classes: [a, b]\nlabel_map: {3: 2}", "dataset.yaml: label_map: 3: 2 is not a class"),
        (
            "classes: [a, b]\nlabel_map: {0: 0, 7: 1}\nignore: [9, 7]",
            "ignore and label_map disagree about the mask value 7; remove it from one of them",
        ),
        ("classes: [a, b]\nval: 2", "val: must be a number between 0 and 1, got 2"),
        ("classes: [a, b]\nimages: 3", "images: must be a folder name, got 3"),
        ("classes: [a, b]\nimages: nowhere", "no such folder"),
        ("classes: [a", "invalid YAML at line 1: expected ',' or ']'; correct it"),
        ("!!python/object/apply:os.system ['true']", "invalid YAML at line 1"),
        ("- a", "contains no lines of the form KEY: VALUE"),
    ],
)
def test_an_invalid_dataset_yaml_is_reported_on_one_line(folder, text, message):
    (folder / "dataset.yaml").unlink() if text is None else (folder / "dataset.yaml").write_text(text)
    with pytest.raises(InputError) as error:
        registry.load("folder", folder, "train")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_masks_are_listed(folder):
    for i in (3, 4):
        (folder / "masks" / f"p{i}.png").unlink()
    with pytest.raises(InputError, match=r"masks: 2 of 10 masks are missing: p3\.png, p4\.png"):
        registry.load("folder", folder, "train")


def test_a_size_mismatch_is_reported_with_both_sizes(tmp_path):
    write_pair(tmp_path, "a", split="train")
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / "masks" / "train" / "a.png")
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    with pytest.raises(InputError, match=r"a\.png: mask of 20 x 30 pixels for an image of 30 x 20"):
        registry.load("folder", tmp_path, "train")[0]


def test_two_images_with_the_same_stem_are_an_error(folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "p0.jpg")
    with pytest.raises(InputError, match=r"has the same stem as p0"):
        registry.load("folder", folder, "train")


def test_a_small_camvid_is_loaded(tmp_path):
    write_pair(tmp_path, "0001", 11, "train", masks="labels")
    write_pair(tmp_path, "0002", 10, "val", masks="labels")
    assert set(registry.load("camvid", tmp_path, "train")[0].labels.ravel().tolist()) == {255}
    assert set(registry.load("camvid", tmp_path, "val")[0].labels.ravel().tolist()) == {10}
    write_pair(tmp_path, "0003", 12, "val", masks="labels")
    with pytest.raises(InputError, match="value 12 is not one of the 11 classes: 600 pixels, the first at x=0, y=0"):
        registry.load("camvid", tmp_path, "val")[1]
    with pytest.raises(InputError, match="no such folder"):
        registry.load("camvid", tmp_path / "elsewhere", "val")


def test_two_images_with_the_same_mask_are_an_error(folder):
    (folder / "dataset.yaml").write_text("classes: [a, b]\nimage_suffix: _sat\n")
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "p0_sat.jpg")
    with pytest.raises(InputError, match=r"p0_sat\.jpg: has the same mask as p0\.png; rename one of them"):
        registry.load("folder", folder, "train")
    assert "p0_sat.jpg: has the same mask as p0.png" in str(check_folder(folder).problems[0])


def test_camvid_as_distributed(camvid_folder):
    names = (camvid_folder / "classes.txt").read_text().lower()
    assert all(name in names for name in camvid.CLASSES.names)
    train, val = (registry.load("camvid", camvid_folder, split) for split in ("train", "val"))
    assert (len(train), len(val)) == (367, 101)
    counts = np.bincount(np.concatenate([val[i].labels.ravel() for i in range(101)]), minlength=256)
    shares = 100 * counts / counts.sum()
    assert shares[:11].round(2).tolist() == [9.18, 25.96, 0.56, 28.95, 8.72, 16.34, 0.89, 3.08, 1.75, 0.65, 2.22]
    assert shares[255].round(2) == 1.70


@pytest.mark.parametrize(
    ("name", "root", "message"),
    [("camvidd", None, "unknown"), ("camvid", None, "missing; specify the folder of the camvid dataset")],
)
def test_unknown_datasets_and_missing_roots_are_errors(name, root, message):
    with pytest.raises(InputError, match=message):
        registry.load(name, root, "val")


def test_a_dataset_yaml_of_version_0_1_0_still_loads(tmp_path):
    colors = np.array([[0, 0, 0], [0, 128, 255], [255, 0, 0]], np.uint8)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for i in range(5):
        for kind in ("images", "masks"):
            Image.fromarray(np.tile(np.roll(colors, i, axis=0), (2, 1, 1))).save(tmp_path / kind / f"p{i}.png")
    old = (Path(__file__).parents[1] / "version_0_1_0" / "dataset.yaml").read_text()
    (tmp_path / "dataset.yaml").write_text(old)
    with pytest.warns(FutureWarning, match=r"dataset\.yaml: 'colours' is now 'colors'"):  # vocabulary: old name
        train = registry.load("folder", tmp_path, "train")
    with pytest.warns(FutureWarning):
        val = registry.load("folder", tmp_path, "val")
    assert train.classes.palette == tuple(map(tuple, colors.tolist()))
    assert (len(train), len(val)) == (4, 1)
    for sample in (*train, *val):
        i = int(sample.name[1:])
        assert sample.labels.tolist() == [np.roll([0, 1, 2], i).tolist()] * 2
    with pytest.warns(FutureWarning):
        assert check_folder(tmp_path).problems == ()
    (tmp_path / "dataset.yaml").write_text(f"{old}\ncolors: [[0, 0, 0], [0, 128, 255], [255, 0, 0]]\n")
    with pytest.raises(InputError, match="and colors are the same setting; remove"):
        registry.load("folder", tmp_path, "train")
