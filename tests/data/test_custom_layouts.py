"""Datasets on disk: a user's folder and CamVid, built here in miniature."""

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
    """Ten images of two classes, not divided."""
    for i in range(10):
        write_pair(tmp_path, f"p{i}", i % 2)
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    return tmp_path


def test_a_folder_is_divided_by_name_and_always_alike(folder):
    train, val = (registry.load("folder", folder, split) for split in ("train", "val"))
    names = [[samples[i].name for i in range(len(samples))] for samples in (train, val)]
    assert len(names[0]) == 8
    assert len(names[1]) == 2
    assert not set(names[0]) & set(names[1])
    write_pair(folder, "another")
    assert set(names[1]) <= {pair.name for pair in registry.load("folder", folder, "val").pairs} | {"another"}


def test_train_and_val_folders_are_used_where_they_are(tmp_path):
    write_pair(tmp_path, "a", 0, "train")
    write_pair(tmp_path, "b", 1, "val")
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    sample = registry.load("folder", tmp_path, "val")[0]
    assert sample.name == "b"
    assert sample.image.shape == (20, 30, 3)
    assert sample.labels.tolist() == np.ones((20, 30)).tolist()


def test_settings_say_what_the_masks_hold(tmp_path):
    write_pair(tmp_path, "a", 255, "train", masks="gt")
    (tmp_path / "dataset.yaml").write_text(
        "classes: [ground, crack]\nmasks: gt\nlabel_map: {0: 0, 255: 1, 128: 255}\nignore: 9\n"
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
        ("classes: crack", "is no list of names"),
        ("classes: []", "is no list of names"),
        ("classes: [a, a]", "dataset.yaml: classes: a stands there more than once"),
        ("classes: [yes, no]", "in quotes what YAML reads as something else"),
        ("classes: [a, b]\npalette: [[0, 0, 300], [1, 2, 3]]", "palette is no list"),
        ("classes: [a, b]\nlabel_map: {a: b}", "maps no numbers to numbers"),
        ("classes: [a, b]\nlabel_map: {3: 2}", "dataset.yaml: label_map: 3: 2 is no class"),
        ("classes: [a, b]\nval: 2", "no share between 0 and 1"),
        ("classes: [a, b]\nimages: 3", "is no folder name"),
        ("classes: [a, b]\nimages: nowhere", "no such folder"),
        ("classes: [a", "cannot be read"),
        ("!!python/object/apply:os.system ['true']", "cannot be read"),
        ("- a", "no `key: value` lines"),
    ],
)
def test_a_wrong_dataset_yaml_is_told_in_one_line(folder, text, message):
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


def test_a_mask_of_another_size_is_told_with_both_sizes(tmp_path):
    write_pair(tmp_path, "a", split="train")
    Image.fromarray(np.zeros((30, 20), np.uint8)).save(tmp_path / "masks" / "train" / "a.png")
    (tmp_path / "dataset.yaml").write_text("classes: [ground, crack]\n")
    with pytest.raises(InputError, match=r"a\.png: mask of 20 x 30 pixels for an image of 30 x 20"):
        registry.load("folder", tmp_path, "train")[0]


def test_two_images_of_one_stem_are_named(folder):
    Image.fromarray(np.zeros((20, 30, 3), np.uint8)).save(folder / "images" / "p0.jpg")
    with pytest.raises(InputError, match=r"has the same stem as p0"):
        registry.load("folder", folder, "train")


def test_camvid_in_miniature(tmp_path):
    write_pair(tmp_path, "0001", 11, "train", masks="labels")
    write_pair(tmp_path, "0002", 10, "val", masks="labels")
    assert set(registry.load("camvid", tmp_path, "train")[0].labels.ravel().tolist()) == {255}
    assert set(registry.load("camvid", tmp_path, "val")[0].labels.ravel().tolist()) == {10}
    write_pair(tmp_path, "0003", 12, "val", masks="labels")
    with pytest.raises(InputError, match="value 12 is none of the 11 classes: 600 pixels, the first at x=0, y=0"):
        registry.load("camvid", tmp_path, "val")[1]
    with pytest.raises(InputError, match="no such folder"):
        registry.load("camvid", tmp_path / "elsewhere", "val")


def test_two_images_of_one_mask_are_named(folder):
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
    ("name", "root", "message"), [("camvidd", None, "unknown"), ("camvid", None, "lies in a folder")]
)
def test_unknown_data_sets_and_missing_roots(name, root, message):
    with pytest.raises(InputError, match=message):
        registry.load(name, root, "val")
