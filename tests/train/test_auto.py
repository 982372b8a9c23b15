"""Settings that are chosen from the images, the memory and the speed; what the user has set is kept."""

import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.recipes import Network
from danet.train import auto, loop
from danet.train.auto import LONGEST, choose, crop_of
from danet.train.run_folder import RunOptions, read_recipe
from danet.train.scale import ObjectScale
from danet.train.time_budget import Speed

RECIPE = replace(
    recipes.find("folder"),
    network=Network("test_resnet", output_stride=16, width=8, align_corners=False, pretrained=False),
)


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Return a folder of six images, 64 x 128, with a thin class; the speed of the machine is fixed."""
    for split, count in (("train", 6), ("val", 2)):
        for i in range(count):
            mask = np.zeros((64, 128), np.uint8)
            mask[:, 10 + i : 14 + i] = 1
            for kind, pixels in (("images", np.stack([mask * 200] * 3, 2)), ("masks", mask)):
                (tmp_path / kind / split).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / kind / split / f"{i}.png")
    (tmp_path / "dataset.yaml").write_text("classes: [background, pole]\n")
    monkeypatch.setattr(auto, "measure_speed", lambda _: Speed(2.0, 4.0, 8.0))
    monkeypatch.setattr(auto, "free_memory", lambda _: 8 << 30)
    monkeypatch.setattr(auto, "_workers", lambda _: (3, "loading a batch takes long"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(recipes.RECIPES, "folder", RECIPE)
    return tmp_path


def chosen(images: Path, given: frozenset[str] = frozenset(), seconds: float | None = None, **settings):
    recipe = recipes.with_settings(RECIPE, {"data.root": images, **settings})
    return choose(recipe, RunOptions(images / "run"), given | settings.keys(), seconds)


def test_choices_follow_images_memory_and_speed(images):
    found = chosen(images)
    assert found.settings == {
        "data.size": 512,
        "data.batch": 4,
        "data.crop": (256, 512),
        "optim.accumulate": 1,
        "workers": 3,
        "validate_every": 8,  # epochs of one step, so that 8 steps of 2 s take 4 times as long as a validation
        "optim.steps": 2000,
    }
    assert found.recipe.data.crop == (256, 512)
    assert found.options.workers == 3
    assert found.recipe.optim.steps == 2000
    assert found.recipe.validate_every == 8
    lines = found.lines()
    assert lines[0] == (
        "`data.size` 512: images of about 128 x 64; the thinnest class, pole, is then about 16 pixels wide"
    )
    assert lines[-1] == (
        "`optim.steps` 2000: fewer do not suffice for a small dataset; 2000 epochs in about 83 min, 2 s per step"
    )


def test_what_the_user_has_set_is_kept(images):
    settings = {"data.size": 256, "data.crop": (64, 96), "data.batch": 2, "optim.accumulate": 2, "validate_every": 3}
    settings |= {"optim.epochs": 5}
    found = chosen(images, frozenset({"workers"}), **settings)
    assert found.settings == {"optim.warmup": 1}  # a tenth of 5 epochs of 3 steps
    assert found.recipe == recipes.with_settings(RECIPE, {"data.root": images, **settings, **found.settings})
    assert found.options.workers == 1


def test_accumulation_and_then_the_crop_fit_into_the_memory(images, monkeypatch):
    cost = auto.estimate(chosen(images).recipe, 2, 3)
    for fitting, accumulate, crop in ((4, 1, (256, 512)), (3, 2, (256, 512)), (2, 2, (256, 512)), (1.5, 2, None)):
        free = round((cost.fixed + fitting * cost.per_image) / auto.USABLE) + 1
        monkeypatch.setattr(auto, "free_memory", lambda _, free=free: free)
        found = chosen(images)
        assert found.recipe.optim.accumulate == accumulate
        assert found.recipe.data.crop == crop or (crop is None and found.recipe.data.crop < (256, 512))
    assert ", reduced to fit into the memory" in found.reasons["data.crop"]
    assert auto.estimate(found.recipe, 2, 3).bytes(2) <= auto.USABLE * free


def test_too_little_memory_is_an_error(images, monkeypatch):
    monkeypatch.setattr(auto, "free_memory", lambda _: 1 << 20)
    with pytest.raises(InputError, match=r"^auto: one image of 224 x 96 needs .* may be used; free some memory"):
        chosen(images)


def test_memory_that_does_not_suffice_after_all_is_an_error(images, monkeypatch):
    def fail(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(auto, "_workers", fail)
    with pytest.raises(InputError, match=r"^data\.crop: out of memory: 4 crops of 256 x 512 need about"):
        chosen(images)


def test_unknown_memory_limits_nothing(images, monkeypatch):
    monkeypatch.setattr(auto, "free_memory", lambda _: None)
    assert chosen(images).settings["data.crop"] == (256, 512)


def test_memory_is_that_of_the_network_of_the_initial_weights(images, tiny_weights):
    small, other = chosen(images), RunOptions(images / "run", initial_weights=tiny_weights)
    recipe = recipes.with_settings(RECIPE, {"data.root": images, "network.width": 1024})
    found = {options.initial_weights: choose(recipe, options) for options in (RunOptions(images / "run"), other)}
    assert found[tiny_weights].reasons["optim.accumulate"] != found[None].reasons["optim.accumulate"]
    assert found[tiny_weights].recipe.network == recipe.network  # the start changes it, and says so
    assert small.settings["data.crop"] == found[tiny_weights].settings["data.crop"]


def test_time_budget_determines_the_steps(images):
    found = chosen(images, seconds=1000)
    steps = found.settings["optim.steps"]
    assert 900 < steps * 2 + steps // 8 * 4 + 8 < 960
    assert found.reasons["optim.steps"].startswith("as many as fit into the time; ")


@pytest.mark.parametrize("name", ["optim.steps", "optim.epochs"])
def test_a_time_and_a_number_of_steps_exclude_each_other(images, name):
    with pytest.raises(InputError, match=rf"^time_budget: chooses the number of steps, which `{name}` sets too"):
        chosen(images, seconds=1000, **{name: 5})


@pytest.mark.parametrize(("accumulate", "batch"), [(2, 6), (4, 4), (5, 5)])
def test_batch_of_few_images_is_a_multiple_of_the_accumulation(images, accumulate, batch):
    recipe = recipes.with_settings(RECIPE, {"data.root": images, "data.batch": 40, "optim.accumulate": accumulate})
    found = choose(recipe, RunOptions(images / "run"), frozenset({"optim.accumulate"}))
    assert (found.recipe.data.batch, found.recipe.optim.accumulate) == (batch, accumulate)


def test_steps_are_limited_to_a_night(images, monkeypatch):
    monkeypatch.setattr(auto, "measure_speed", lambda _: Speed(60.0, 4.0, 8.0))
    steps = chosen(images).settings["optim.steps"]
    assert LONGEST * 0.9 < steps * (60 + 4) < LONGEST


@pytest.mark.parametrize(
    ("height", "width", "area", "crop"),
    [
        (600, 800, 384 * 384, (320, 448)),
        (600, 800, 10**6, (384, 512)),  # never larger than the image at its size
        (100, 1000, 384 * 384, (96, 512)),
        (3000, 1500, 200 * 100, (192, 96)),
    ],
)
def test_crops_have_the_shape_of_the_images(height, width, area, crop):
    recipe = recipes.with_settings(RECIPE, {"data.size": 512})
    assert crop_of(recipe, ObjectScale(height, width, None, 1.0), area) == crop


def test_size_auto_is_chosen_and_no_size_is_that_of_the_images(images):
    recipe = recipes.with_settings(RECIPE, {"data.root": images, "data.size": "auto"})
    found = choose(recipe, RunOptions(images / "run"), {"data.size"})
    assert (found.settings["data.size"], found.settings["data.crop"]) == (512, (256, 512))
    found = chosen(images, **{"data.size": None, "data.scale_from": "image", "data.scale": (1.0, 1.0)})
    assert found.recipe.data.size is None
    assert found.settings["data.crop"] == (96, 128)
    assert crop_of(found.recipe, None, 10**6) == (512, 512)


@pytest.mark.parametrize(("loading", "computing", "workers"), [(0.1, 1.0, 1), (2.5, 1.0, 3), (9.0, 1.0, 7)])
def test_workers_load_as_fast_as_the_network_computes(monkeypatch, images, loading, computing, workers):
    monkeypatch.undo()
    now = [0.0]
    monkeypatch.setattr(auto.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(auto.os, "cpu_count", lambda: 8)

    def spend(seconds: float):
        now[0] += seconds

    def load(*_):
        while True:
            spend(loading)
            yield None

    monkeypatch.setattr(auto, "batches", load)
    monkeypatch.setattr(auto, "begin_step", lambda *_: spend(computing))
    run = loop.Run.__new__(loop.Run)
    for name in ("samples", "process", "skipped", "network", "transform"):
        setattr(run, name, None)
    run.recipe, run.state = RECIPE, loop.TrainingState()
    assert auto._workers(run)[0] == workers


def test_a_folder_in_use_is_refused_before_anything_is_measured(images, monkeypatch):
    monkeypatch.setattr(auto, "measure", lambda _: pytest.fail("something was measured"))
    (images / "run").mkdir()
    (images / "run" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"run: is not empty: it contains notes\.txt; choose another `folder`"):
        chosen(images)


def test_other_data_sets_are_refused():
    with pytest.raises(InputError, match=r"^auto: is for your own images, and this recipe is for toy; use the recipe"):
        choose(recipes.TOY, RunOptions(Path("run")))


def test_command_prints_a_command_that_gives_the_same_run(images, capsys, monkeypatch):
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    words = ["train", "folder", "--root", ".", "--data.crop", "64", "64", "--optim.steps", "1", "--workers", "0"]
    assert main([*words, "--auto", "--out", "a"]) == 0
    line = next(line for line in capsys.readouterr().err.splitlines() if line.startswith("command: danet "))
    command = shlex.split(line.removeprefix("command: danet "))
    assert command[: len(words) + 2] == [*words, "--out", "a"]
    chosen_options = "--data.size 512 --data.batch 4 --optim.accumulate 1 --validate-every 8 --optim.warmup 0"
    assert " ".join(command[len(words) + 2 :]) == chosen_options
    command[command.index("a")] = "b"
    assert main(command) == 0
    assert read_recipe(Path("a")) == read_recipe(Path("b"))
    assert read_recipe(Path("a")).data.size == 512


def test_dry_run_trains_nothing(images, capsys):
    assert main(["train", "folder", "--root", ".", "--auto", "--dry-run", "--time-budget", "2000s"]) == 0
    text = capsys.readouterr()
    assert "--optim.steps: " not in text.err
    assert "--data.crop 256 512: the shape of the images" in text.err
    assert "crop:\n  - 256\n  - 512" in text.out
    assert not Path("runs").exists()


def test_function_chooses_too(images, monkeypatch, capsys):
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    settings = {"optim.steps": 1, "data.crop": (64, 64)}
    result = danet.train("folder", images, settings=settings, auto=True, out="run", workers=0)
    recipe = read_recipe(result.folder)
    assert (recipe.data.size, recipe.data.crop, recipe.optim.steps) == (512, (64, 64), 1)
    assert "`data.size` 512: images of about 128 x 64" in capsys.readouterr().err
