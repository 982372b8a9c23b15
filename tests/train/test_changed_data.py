"""Resuming a run whose data or recipe has changed is refused with one line that says what has changed."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from miniature import save, stripes
from run_states import assert_equal, state_of

from danet import recipes
from danet.cli import main
from danet.data.custom import dataset_yaml
from danet.train import checkpoint, loop
from danet.train.fingerprint import describe_changes, fingerprint

OPTIONS = (
    *("--network.backbone", "test_resnet", "--network.no-pretrained", "--network.width", "8", "--data.size", "32"),
    *("--data.crop", "32", "32", "--data.batch", "2", "--optim.steps", "2", "--device", "cpu", "--workers", "0"),
)


def write_data(root: Path) -> None:
    root.mkdir()
    (root / "dataset.yaml").write_text("classes: [road, car, tree]\nval: 0.25\n")
    for i in range(8):
        save(root / f"images/im{i}.png", np.full((24, 32, 3), 20 * i, np.uint8))
        save(root / f"masks/im{i}.png", stripes(*range(3), width=32, height=24))


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A folder with a dataset, `data`, and a finished run, `run`, that was started there."""
    folder = tmp_path_factory.mktemp("whole")
    write_data(folder / "data")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(loop.report, "finish", lambda *_: None)
        assert main(["train", "folder", "--data.root", "data", *OPTIONS, "--out", "run"]) == 0
    return folder


@pytest.fixture
def place(whole, tmp_path, monkeypatch) -> Path:
    """A copy of it, as the working directory."""
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    shutil.copytree(whole, tmp_path / "place")
    environment = tmp_path / "place/run/environment.json"
    environment.write_text(environment.read_text().replace(str(whole), str(tmp_path / "place")))
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


def resume(*options: str) -> int:
    return main(["train", "--resume", "run", *options, "--device", "cpu", "--workers", "0"])


def rewrite(file: str, old: str, new: str) -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def swap_masks() -> None:
    """Replace masks by others of the same size: files without compression."""
    for file in sorted(Path("data/masks").iterdir()):
        before = file.stat().st_size
        content = bytearray(file.read_bytes())
        content[-20] ^= 1
        file.write_bytes(bytes(content))
        assert file.stat().st_size == before


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "classes reordered": (
        lambda: rewrite("data/dataset.yaml", "[road, car, tree]", "[car, road, tree]"),
        "the classes were reordered: class 0 was road and is now car",
    ),
    "class added": (lambda: rewrite("data/dataset.yaml", "tree]", "tree, sky]"), "classes were added: sky"),
    "class removed": (lambda: rewrite("data/dataset.yaml", ", tree]", "]"), "classes were removed: tree"),
    "class renamed": (lambda: rewrite("data/dataset.yaml", "tree", "bush"), "classes were renamed: tree is now bush"),
    "label map": (
        lambda: rewrite("data/dataset.yaml", "val:", "label_map: {0: 0, 1: 2, 2: 2}\nval:"),
        "mask value 1 was car and is now tree",
    ),
    "bands": (
        lambda: rewrite("data/dataset.yaml", "val:", "white: 200\nval:"),
        "white in dataset.yaml was not set and",
    ),
    "orientation": (
        lambda: rewrite("data/dataset.yaml", "val:", "exif: ignore\nval:"),
        "exif in dataset.yaml was apply and is now ignore",
    ),
    "masks replaced": (swap_masks, "6 of 6 training masks have other contents (im0, im1, im2 ...)"),
    "split": (lambda: rewrite("data/dataset.yaml", "0.25", "0.5"), "2 of 6 training images are now in val ("),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_each_change_of_the_data_is_refused_and_named(place, kind, capsys):
    before = (place / "run/last.ckpt").read_bytes()
    change, message = CHANGES[kind]
    change()
    assert resume() == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"error: run: the data of the run has changed: {message}")
    assert "restore the data, or start a new run from the weights in best.safetensors" in error
    assert (place / "run/last.ckpt").read_bytes() == before


def test_missing_and_renamed_files_are_named(place, capsys):
    names = list(state_of(place / "run")["data"]["files"]["train"])
    for folder in ("images", "masks"):
        (place / f"data/{folder}/{names[1]}.png").rename(place / f"data/{folder}/zz.png")
    rewrite("data/dataset.yaml", "val: 0.25", "splits: {train: train.txt, val: val.txt}")
    (place / "data/val.txt").write_text("\n".join(state_of(place / "run")["data"]["files"]["val"]))
    (place / "data/train.txt").write_text("\n".join([names[0], "zz", *names[2:]]))
    assert resume() == 2
    assert f"1 of 6 training images were renamed ({names[1]} is now zz)" in capsys.readouterr().err
    (place / "data/train.txt").write_text("\n".join([names[0], *names[2:]]))
    assert resume() == 2
    assert f"1 of 6 training images are missing ({names[1]})" in capsys.readouterr().err


def test_order_of_the_images_is_part_of_the_data(place):
    train, val = (dataset_yaml.load(place / "data", split) for split in ("train", "val"))
    data = fingerprint(train, val)
    other = {**data, "files": {**data["files"], "train": dict(reversed(data["files"]["train"].items()))}}
    assert describe_changes(data, data) == []
    assert describe_changes(data, other) == ["the order of the training images has changed"]


def test_moved_data_can_be_named_and_is_remembered(place, capsys):
    (place / "data").rename(place / "elsewhere")
    assert resume() == 2
    assert capsys.readouterr().err == (
        f"error: {place}/data: no such folder; if the data of the run has moved, set --data.root to its folder\n"
    )
    before = state_of(place / "run")
    assert resume("--data.root", "elsewhere") == 0
    assert_equal(state_of(place / "run"), before)
    assert json.loads((place / "run/environment.json").read_text())["data_root"] == str(place / "elsewhere")
    assert resume() == 0


def test_an_edited_root_of_the_recipe_is_used(place, capsys):
    shutil.copytree(place / "data", place / "copy")
    recipe = place / "run/recipe.yaml"
    recipe.write_text(recipe.read_text().replace("  root: data\n", "  root: copy\n"))
    assert resume() == 0
    assert json.loads((place / "run/environment.json").read_text())["data_root"] == str(place / "copy")
    recipe.write_text(recipe.read_text().replace("  root: copy\n", "  root: missing\n"))
    assert resume() == 2
    assert capsys.readouterr().err.endswith(
        "error: missing: no such folder; if the data of the run has moved, set --data.root to its folder\n"
    )
    assert resume("--data.root", "data") == 0
    assert resume() == 0
    assert json.loads((place / "run/environment.json").read_text())["data_root"] == str(place / "data")


def test_run_can_be_resumed_from_another_working_directory(place, tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    assert main(["train", "--resume", str(place / "run"), "--device", "cpu", "--workers", "0"]) == 0


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "  lr: 0.0003",
            "  lr: 0.02",
            "optim.lr is 0.02, but the run started with 0.0003; restore it, or start a new run",
        ),
        ("seed: 1", "seed: 7", "seed is 7, but the run started with 1"),
        ("  batch: 2", "  batch: 3", "data.batch is 3, but the run started with 2"),
        ("  ema: 0.99", "  ema: 0.0", "optim.ema is 0.0, but the run started with 0.99"),
        ("  steps: 2", "  steps: null", "optim.steps is not set, but the run started with 2"),
        ("  - 32\n  - 32", "  - 64\n  - 32", "data.crop is 64 32, but the run started with 32 32"),
    ],
)
def test_edited_recipe_is_refused_with_the_field_and_both_values(place, old, new, message, capsys):
    rewrite("run/recipe.yaml", old, new)
    assert resume() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: run/recipe.yaml: {message}")
    assert error.count("\n") == 1


def test_edits_that_cannot_change_the_result_are_honored(place):
    rewrite("run/recipe.yaml", "skip_bad: 0", "skip_bad: 3")
    rewrite("run/recipe.yaml", "about: your own folder of images", "about: mine")
    assert resume() == 0
    assert state_of(place / "run")["recipe"]["skip_bad"] == 3


def test_checkpoint_without_a_fingerprint_is_resumed_and_gets_one(place, capsys):
    entries = state_of(place / "run")
    checkpoint.save(place / "run", {key: value for key, value in entries.items() if key not in ("data", "recipe")})
    (place / "run/environment.json").unlink()
    assert resume() == 0
    assert_equal(state_of(place / "run"), entries)


def test_checkpoint_without_a_fingerprint_and_other_classes_is_one_line(place, capsys):
    entries = state_of(place / "run")
    checkpoint.save(place / "run", {key: value for key, value in entries.items() if key not in ("data", "recipe")})
    rewrite("data/dataset.yaml", "tree]", "tree, sky]")
    assert resume() == 2
    error = capsys.readouterr().err
    assert re.search(r"of shape \(3, 64, 1, 1\) in the checkpoint, but of shape \(4, 64, 1, 1\) in the network", error)
    assert error.count("\n") == 1


def test_recipe_in_the_checkpoint_is_that_of_the_run_folder(place):
    stored = yaml.safe_load((place / "run/recipe.yaml").read_text())
    assert recipes.from_dict(state_of(place / "run")["recipe"], "last.ckpt") == recipes.from_dict(stored, "recipe.yaml")
