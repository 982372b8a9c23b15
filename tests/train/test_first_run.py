"""What a first run says: offline starts, lines of progress without a terminal, and the table at its end."""

import csv
import json
import math
import re
from dataclasses import replace

import huggingface_hub
import miniature
import numpy as np
import pytest
from huggingface_hub.errors import RemoteEntryNotFoundError
from PIL import Image

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.data.datasets import synthetic
from danet.recipes import Recipe
from danet.train import dry_run, logging, loop, pretrained
from danet.train.loop import exhaust, iterate, train
from danet.train.run_folder import RunOptions
from danet.weights import file as weights_file
from danet.weights.card import DEFAULT


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})


@pytest.fixture
def recipe() -> Recipe:
    """Return a recipe of four steps, two per epoch."""
    small = replace(recipes.TOY.data, batch=4, crop=(32, 32))
    network = replace(recipes.TOY.network, backbone="test_resnet", width=16)
    return replace(recipes.TOY, data=small, network=network, optim=replace(recipes.TOY.optim, epochs=2))


@pytest.fixture
def offline(monkeypatch) -> list[str]:
    """Answer like a machine without a connection and with an empty cache; return the requests."""
    requests: list[str] = []

    def ask(url: str, **_):
        requests.append(url)
        raise ConnectionError("[Errno -3] Temporary failure in name resolution")

    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    return requests


def of_imagenet(recipe: Recipe) -> Recipe:
    return replace(recipe, network=replace(recipe.network, backbone="resnet18", pretrained=True))


def test_offline_start_asks_once_and_leaves_no_folder(recipe, offline, tmp_path):
    with pytest.raises(InputError) as raised:
        train(of_imagenet(recipe), RunOptions(tmp_path / "runs/toy", workers=0))
    assert len(offline) == 1
    assert re.fullmatch(
        r"network\.pretrained: cannot download the pretrained weights of 'resnet18' \(ConnectionError: .*resolution\); "
        r"download https://\S+/model\.safetensors, and set `backbone_weights` to that file; "
        r"or set `initial_weights` to default",
        str(raised.value),
    )
    assert list(tmp_path.iterdir()) == []


def test_dry_run_fails_where_the_run_would(recipe, offline, tmp_path):
    with pytest.raises(InputError, match="cannot download the pretrained weights of 'resnet18'"):
        dry_run.describe(of_imagenet(recipe), RunOptions(tmp_path / "run"))
    options = RunOptions(tmp_path / "run")
    assert dry_run.describe(recipe, options).endswith("\nweights        random")
    options = replace(options, initial_weights=train(recipe, RunOptions(tmp_path / "toy", workers=0)).weights)
    assert dry_run.describe(recipe, options).endswith(f"\nweights        all from {options.initial_weights}")
    assert len(offline) == 1


def test_dry_run_without_data_says_that_the_weights_are_missing_too(offline, capsys):
    command = ["train", "camvid", "--dry-run", "--data.crop", "64", "64"]
    assert main(command) == 0
    assert "weights        missing: cannot download the pretrained weights of" in capsys.readouterr().out
    assert len(offline) == 1


def own_images(root) -> Recipe:
    """Return a recipe of two steps on two images, with the network of the bundled weights."""
    miniature.build(root, [miniature.stripes(0, 1)] * 4)
    (root / "dataset.yaml").write_text("classes: [road, ball]\nval: 0.5\n")
    network = weights_file.read(DEFAULT)[1].recipe["network"]
    data = replace(recipes.find("folder").data, root=root, batch=2, crop=(64, 64), scale=(1.0, 1.0), size=64)
    optim = replace(recipes.find("folder").optim, epochs=1, warmup=0)
    return replace(recipes.find("folder"), network=recipes.Network(**network), data=data, optim=optim)


def test_own_images_start_from_the_bundled_weights_without_a_connection(offline, tmp_path, capsys):
    recipe = own_images(tmp_path / "mine")
    options = RunOptions(tmp_path / "run", workers=0)
    assert "weights        bundled, because cannot download" in dry_run.describe(recipe, options)
    train(recipe, options)
    lines = [line for line in capsys.readouterr().err.splitlines() if "weights" in line]
    assert re.match(
        r"warning: cannot download .*; starting from the bundled weights instead; download https://\S+", lines[0]
    )
    assert "the outputs of ball are new" in lines[1]
    assert len(offline) == 2
    bundled = weights_file.read(DEFAULT)[1]
    recorded = json.loads((tmp_path / "run/environment.json").read_text())["initial_weights"]
    assert recorded == {"file": "default", "sha256": bundled.sha256, "license": bundled.license}
    assert danet.load(tmp_path / "run/best.safetensors").card.license.startswith("that of the initial weights: for res")


def test_the_recipe_folder_itself_starts_from_the_bundled_weights_without_a_connection(offline, tmp_path, capsys):
    mine = own_images(tmp_path / "mine").data
    recipe = replace(recipes.find("folder"), data=replace(recipes.find("folder").data, root=mine.root))
    text = dry_run.describe(recipe, RunOptions(tmp_path / "run"))
    assert "weights        bundled, because cannot download" in text
    assert "  decoder_width: 128\n" in text, "it describes the network that is trained"


@pytest.mark.parametrize("architecture", ["fcn8s", "ocrnet"])
def test_dry_run_says_that_some_networks_are_not_calibrated(recipe, tmp_path, architecture):
    network = replace(recipe.network, architecture=architecture, output_stride=32 if architecture == "fcn8s" else 16)
    text = dry_run.describe(replace(recipe, network=network, calibrate=True), RunOptions(tmp_path / "run"))
    assert "\ncalibrate: false\n" in text


def test_initial_weights_and_those_of_the_backbone_exclude_each_other(tmp_path, capsys):
    command = ["train", "toy", "--initial-weights", "default", "--backbone-weights", "b.safetensors", "--out"]
    assert main([*command, str(tmp_path / "run")]) == 2
    what = "has no effect beside --initial-weights, which contain a backbone; leave out one of the two"
    assert capsys.readouterr().err == f"error: --backbone-weights: {what}\n"


def test_validation_images_without_labels_end_a_run_before_its_first_step(tmp_path):
    recipe = own_images(tmp_path / "mine")
    for mask in (tmp_path / "mine/masks").iterdir():
        Image.fromarray(np.full((12, 16), 255, np.uint8)).save(mask)
    with pytest.raises(InputError, match=r"masks: no labeled pixel in any of 2 validation images, so there is nothing"):
        train(recipe, RunOptions(tmp_path / "run", workers=0))
    assert not (tmp_path / "run").exists()


def test_time_of_the_caller_between_validations_does_not_count(recipe, tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(logging.time, "monotonic", lambda: now[0])
    with logging.TrainingProgress(10, 0, 4, visible=False) as progress:
        now[0] = 8.0
        with progress.paused():
            now[0] = 108.0
        progress.advance(1.0)
        assert progress.speed()["images_per_second"] == 4 / 8


def test_a_run_that_fails_before_its_first_step_can_be_repeated(recipe, tmp_path):
    """A mask with an unknown value is found when it is read: after the folder was made, and the first checkpoint."""
    root = tmp_path / "mine"
    miniature.build(root, [miniature.stripes(0, 1)] * 4)
    (root / "dataset.yaml").write_text("classes: [road, ball]\nval: 0.5\n")
    (masks,) = {path.parent for path in root.glob("masks/*.png")}
    right = {path: path.read_bytes() for path in masks.iterdir()}
    for path in right:
        Image.fromarray(np.full_like(np.asarray(Image.open(path)), 7)).save(path)
    data = replace(recipe.data, dataset="folder", root=root, batch=2, size=None)
    own = replace(recipe, data=data, optim=replace(recipe.optim, epochs=1))
    with pytest.raises(InputError, match=r"value 7 is not .*; write ignore: \[255, 7\] in dataset.yaml to ignore it"):
        train(own, RunOptions(tmp_path / "run", workers=0))
    assert not (tmp_path / "run").exists()
    for path, content in right.items():
        path.write_bytes(content)
    train(own, RunOptions(tmp_path / "run", workers=0))


def test_own_images_with_another_network_need_its_weights(offline, tmp_path):
    recipe = own_images(tmp_path / "mine")
    recipe = replace(recipe, network=replace(recipe.network, width=64))
    with pytest.raises(InputError, match="cannot download the pretrained weights"):
        train(recipe, RunOptions(tmp_path / "run", workers=0))
    assert not (tmp_path / "run").exists()


def test_dry_run_says_where_the_weights_come_from(recipe, monkeypatch, tmp_path):
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _, file: str(file))
    text = dry_run.describe(of_imagenet(recipe), RunOptions(tmp_path / "run"))
    assert "weights        of ImageNet, in the cache of the Hugging Face Hub" in text


def test_weights_under_another_name_on_the_hub_are_left_to_timm(monkeypatch):
    class MissingError(RemoteEntryNotFoundError):
        def __init__(self):
            Exception.__init__(self, "404")

    def ask(_url):
        raise MissingError

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(huggingface_hub, "get_hf_file_metadata", ask)
    assert pretrained.find_pretrained("resnet18") == "downloaded from the Hugging Face Hub"
    assert "timm" in pretrained.find_pretrained("test_model_that_timm_lacks")


@pytest.mark.parametrize("existing", [False, True])
def test_failed_starts_remove_only_folders_that_they_created(recipe, existing, tmp_path):
    folder = tmp_path / "runs/toy"
    if existing:
        folder.mkdir(parents=True)
    with pytest.raises(InputError, match="val_split"):
        train(replace(recipe, data=replace(recipe.data, val_split="absent")), RunOptions(folder, workers=0))
    assert folder.exists() == existing


def test_failed_start_leaves_an_existing_folder_empty(recipe, monkeypatch, tmp_path):
    def refuse(_):
        raise InputError("time_budget", "too short", "give it more")

    with monkeypatch.context() as patched:
        patched.setattr(loop, "check_labeled", refuse)
        with pytest.raises(InputError, match="too short"):
            train(recipe, RunOptions(tmp_path, workers=0))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="too short"):
        exhaust(iterate(recipe, RunOptions(tmp_path, workers=0), fit=refuse))
    assert list(tmp_path.iterdir()) == []


def test_without_a_terminal_a_run_prints_lines_and_ends_with_its_classes(recipe, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(logging, "SECONDS_PER_LINE", 0.0)
    monkeypatch.setattr("danet.recipes.RECIPES", {"toy": recipe})
    assert main(["train", "toy", "--out", str(tmp_path / "a run"), "--workers", "0"]) == 0
    output = capsys.readouterr()
    validation = r"epoch \d, step \d: mIoU \d+\.\d% \(best \d+\.\d%\), validation loss \d+\.\d{3}"
    assert len(re.findall(rf"^{validation}$", output.err, re.MULTILINE)) == 2
    step = r"step \d of 4: loss \d\.\d{3}  \d+\.\d images/s, \d+% waiting for data, about 0 min left"
    assert len(re.findall(rf"^{step}$", output.err, re.MULTILINE)) == 4
    assert re.search(r"warning: never predicted, IoU 0: .*set --class-weights to auto", output.err)
    *table, weights, following = output.out.splitlines()
    assert all(any(name in line for line in table) for name in ("road", "building", "pixels, %"))
    assert re.search(r"best\.safetensors: best validation mIoU \d+\.\d%; report: ", weights)
    assert following == f"next: danet predict IMAGE --weights '{tmp_path}/a run/best.safetensors' --out results"
    assert "<h2>Warnings</h2>" in (tmp_path / "a run/report.html").read_text()
    rows = list(csv.DictReader((tmp_path / "a run/metrics.csv").read_text().splitlines()))
    assert all(0 < float(row["validation_loss"]) < math.inf for row in rows)
