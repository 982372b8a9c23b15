"""Runs on folds, and the dataset that weights were trained on."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danet import recipes
from danet.cli import main
from danet.train import run_folder
from danet.weights.card import peek


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """Return a folder of 12 images, 8 of which are in its train split, and make the recipe small."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, numbers in (("train", range(8)), ("val", range(8, 12))):
        for kind, values in (("images", 256), ("masks", 2)):
            (tmp_path / "mine" / kind / split).mkdir(parents=True)
            for i in numbers:
                size = (40, 48, 3) if kind == "images" else (40, 48)
                file = tmp_path / "mine" / kind / split / f"{i}.png"
                Image.fromarray(rng.integers(0, values, size, np.uint8)).save(file)
    (tmp_path / "mine/dataset.yaml").write_text("classes: [a, b]\n")
    recipe = recipes.RECIPES["folder"]
    network = replace(recipe.network, backbone="test_resnet", width=16, pretrained=False)
    small = replace(recipe.data, crop=(64, 64), size=48, scale_from="size", batch=2)
    recipe = replace(recipe, network=network, data=small, optim=replace(recipe.optim, epochs=1))
    monkeypatch.setitem(recipes.RECIPES, "folder", recipe)
    return tmp_path / "mine"


def evaluated(capsys, *args: object) -> tuple[dict, str]:
    assert main(["evaluate", *map(str, args), "--json", "-"]) == 0
    printed = capsys.readouterr()
    return json.loads(printed.out), printed.err


def test_a_run_on_a_fold_says_so_and_can_be_evaluated(folder, capsys):
    assert main(["train", "folder", "--root", str(folder), "--fold", "2/4", "--workers", "0", "--dry-run"]) == 0
    assert "6 training images, 2 validation images" in capsys.readouterr().out
    assert main(["train", "folder", "--root", str(folder), "--fold", "2/4", "--workers", "0"]) == 0
    run = Path("runs/folder-fold2of4")
    assert run_folder.read_recipe(run).data.fold == "2/4"
    weights = run / "best.safetensors"
    assert peek(weights).recipe["data"]["fold"] == "2/4"
    assert "on the 2 images of the split train, fold 2/4 of mine" in (run / "report.html").read_text()
    capsys.readouterr()
    scores, note = evaluated(capsys, weights, "--fold", "2/4")
    assert (scores["images"], scores["split"], scores["fold"]) == (2, "train", "2/4")
    assert main(["evaluate", str(weights), "--fold", "2/4", "--report", "fold.html"]) == 0
    assert "on the 2 images of the split train, fold 2/4 of" in Path("fold.html").read_text()
    capsys.readouterr()
    assert note == f"note: evaluating on {folder}, the dataset folder of the run that made the weights\n"
    assert f"{run_folder.read(run).history[-1]['miou']:.6f}" == f"{scores['miou']:.6f}"
    other = f"note: {weights} was trained for fold 2/4, so its scores on the images of fold 1/4 are too high if it was "
    assert other in evaluated(capsys, weights, "--fold", "1/4")[1]
    assert evaluated(capsys, weights)[0]["images"] == 4  # the val split, which no fold uses
    assert main(["evaluate", str(weights), "--fold", "1/4", "--engine", "ray", "--counts", "c"]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == "error: --fold: is for the local engine; leave out --engine"


def test_weights_are_evaluated_on_the_folder_that_they_were_trained_on(folder, tmp_path, monkeypatch, capsys):
    assert main(["train", "folder", "--data.root", "mine", "--workers", "0"]) == 0
    weights = tmp_path / "runs/folder/best.safetensors"
    capsys.readouterr()
    monkeypatch.chdir("runs")  # environment.json has the absolute path
    scores, note = evaluated(capsys, weights)
    assert note == f"note: evaluating on {folder}, the dataset folder of the run that made the weights\n"
    assert (scores["images"], scores["dataset"], scores["split"]) == (4, "folder", "val")
    advice = "evaluate the weights that were trained with --fold 1/4"
    assert advice in evaluated(capsys, weights, "--fold", "1/4")[1]
    for flag in ("--root", "--data.root"):
        other, note = evaluated(capsys, weights, flag, folder)
        assert (other["miou"], note) == (scores["miou"], "")
    monkeypatch.chdir(tmp_path)
    alone = tmp_path / "alone.safetensors"
    alone.write_bytes(weights.read_bytes())  # without environment.json, the path is as it was given
    assert (
        evaluated(capsys, alone)[1] == "note: evaluating on mine, the dataset folder of the run that made the weights\n"
    )
    folder.rename(tmp_path / "elsewhere")
    assert main(["evaluate", str(weights)]) == 2
    what = f"missing, and the folder that the weights were trained on is not on this machine: {folder}"
    assert capsys.readouterr().err == f"error: --root: {what}; specify the folder of the dataset\n"
    assert evaluated(capsys, weights, "--root", tmp_path / "elsewhere")[0]["miou"] == scores["miou"]
    assert main(["evaluate", str(weights), "--dataset", "camvid"]) == 2
    assert capsys.readouterr().err == "error: --root: missing; specify the folder of the camvid dataset\n"


def test_weights_of_generated_scenes_need_no_folder(tiny_weights, monkeypatch, capsys):
    monkeypatch.setattr("danet.data.datasets.synthetic.COUNTS", {"train": 4, "val": 3})
    scores, note = evaluated(capsys, tiny_weights)
    assert (scores["dataset"], scores["images"], note) == ("toy", 3, "")


def test_bundled_weights_do_not_name_a_folder(capsys):
    assert main(["evaluate", "default"]) == 2
    assert capsys.readouterr().err == "error: --root: missing; specify the folder of the camvid dataset\n"
