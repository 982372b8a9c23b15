"""`danet.train` and `danet.iterate_training` do what `danet train` does."""

import inspect
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from run_states import assert_equal, state_of

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.data.datasets import synthetic
from danet.train import loop, start, user_transform
from danet.train.run_folder import read

SETTINGS = {"data.batch": 2, "data.crop": (32, 32), "optim.epochs": 2, "network.width": 8}
FLAGS = ["--data.batch", "2", "--data.crop", "32", "32", "--optim.epochs", "2", "--network.width", "8"]


@pytest.fixture(autouse=True)
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 4, "val": 1})
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    monkeypatch.chdir(tmp_path)


def darker(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image // 2, "mask": mask}


def failing(image: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    return {"image": image[0, 0, 7], "mask": mask}


def test_function_trains_as_the_command_does():
    result = danet.train("toy", settings=SETTINGS, out="a", workers=0)
    assert main(["train", "toy", "--out", "b", "--workers", "0", *FLAGS]) == 0
    assert_equal(state_of(result.folder), state_of(Path("b")))
    assert result.stopped_by is None
    assert result.miou == max(row["miou"] for row in read(result.folder).history)
    assert danet.load(result.weights).classes == synthetic.CLASSES
    assert repr(result) == f"Result('a', complete, best mIoU {result.miou:.1%})"


def test_closed_iterator_can_be_resumed_to_the_same_weights():
    danet.train("toy", settings=SETTINGS, out="whole", workers=0, transform=darker)
    rows = danet.iterate_training("toy", settings=SETTINGS, out="parts", workers=0, transform=darker)
    assert next(rows)["epoch"] == 1
    rows.close()
    with pytest.raises(InputError, match=r"^transform: the run was started with .*darker, but is resumed with none"):
        danet.train(resume="parts")
    danet.train(resume="parts", workers=0, transform=darker)
    assert_equal(state_of(Path("parts")), state_of(Path("whole")))


def test_nested_settings_change_only_what_they_name():
    flat = {"optim.epochs": 5, "data.crop": (32, 32), "optim.lr": 0.001, "seed": 3}
    nested = {"optim": {"epochs": 5}, "data": {"crop": (32, 32)}, "optim.lr": 0.001, "seed": 3}
    assert start.resolve("folder", "b", nested) == start.resolve("folder", None, flat | {"data.root": "b"})
    with pytest.raises(InputError, match=r"^data: is also given as `data\.root` in `settings`"):
        start.resolve("folder", "b", {"data": {"root": "a"}})
    with pytest.raises(InputError, match=r"unknown key optim.epoch; did you mean optim.epochs"):
        start.resolve("folder", None, {"optim": {"epoch": 5}})
    with pytest.raises(InputError, match=r"^time_budget: .* `optim.epochs` sets too"):
        danet.train("toy", settings={"optim": {"epochs": 5}}, time_budget="1m")


def test_run_folders_are_numbered_and_recipes_may_be_objects():
    data = replace(recipes.TOY.data, batch=2, crop=(32, 32))
    recipe = replace(recipes.TOY, data=data, optim=replace(recipes.TOY.optim, steps=1))
    folders = [danet.train(recipe, workers=0).folder.as_posix() for _ in range(2)]
    assert folders == ["runs/run", "runs/run-2"]


def test_run_in_another_thread_needs_no_signals():
    results = []
    thread = threading.Thread(target=lambda: results.append(danet.train("toy", settings=SETTINGS, workers=0)))
    thread.start()
    thread.join()
    assert len(results) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "^recipe: missing"),
        ({"recipe": "toi"}, "^toi: unknown recipe; did you mean toy"),
        ({"recipe": "toy", "settings": {"optim.epoch": 1}}, "optim.epoch; did you mean optim.epochs"),
        ({"recipe": "toy", "settings": {"optimizer.epochs": 1}}, "'optimizer.epochs' is unknown"),
        ({"recipe": "toy", "settings": {"optim.epochs": "many"}}, "must be an integer, got 'many'"),
        ({"resume": "run", "settings": {"optim.epochs": 1}}, "^settings: is determined by the run in run"),
        ({"resume": "run", "recipe": "toy"}, "^recipe: is determined by the run in run"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        danet.train(**arguments)


@pytest.mark.parametrize("workers", [0, 1])
def test_exception_of_a_transform_is_one_line_with_its_place(workers):
    with pytest.raises(InputError) as caught:
        danet.train("toy", settings=SETTINGS, workers=workers, transform=failing)
    line = inspect.getsourcelines(failing)[1] + 1
    assert "failing raised IndexError (index 7 is out of bounds" in caught.value.what
    assert caught.value.what.endswith(f"test_train_function.py:{line}")
    assert isinstance(caught.value.__cause__, IndexError) == (workers == 0)


def test_transform_that_cannot_be_sent_to_processes_is_refused(monkeypatch):
    monkeypatch.setattr(user_transform.multiprocessing, "get_start_method", lambda: "spawn")
    with pytest.raises(InputError, match=r"^transform: .*<lambda> cannot be sent .* top level of a module"):
        danet.train("toy", settings=SETTINGS, transform=lambda image, mask: {"image": image, "mask": mask})
    user_transform.check_sendable(darker, 1)


def test_packages_are_called_like_their_functions():
    assert list(inspect.signature(danet.train).parameters)[:3] == ["recipe", "data", "out"]
    assert list(inspect.signature(danet.evaluate).parameters)[:2] == ["weights", "root"]
    assert inspect.ismodule(danet.train)
