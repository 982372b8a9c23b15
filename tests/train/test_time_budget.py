"""A run with a time budget is a run of the recipe that was fitted to it, and ends in time."""

import json
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from run_states import assert_equal, state_of

import danet
from danet import InputError, recipes
from danet.cli import main
from danet.data.datasets import synthetic
from danet.train import checkpoint, loop, run_folder, time_budget
from danet.train.run_folder import RunOptions, read_recipe
from danet.train.time_budget import Speed, parse_seconds, plan

SETTINGS = {"data.batch": 2, "data.crop": (32, 32), "network.width": 8}


@pytest.fixture
def run(monkeypatch, tmp_path) -> Path:
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 4, "val": 1})
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    monkeypatch.chdir(tmp_path)
    return Path("run")


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("30m", 1800), ("1.5h", 5400), ("1h30m", 5400)])
def test_times_are_read(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "30", "m", "-3m", "3 m", "30min", "0s"])
def test_other_texts_are_refused(text):
    with pytest.raises(InputError, match=r"^time_budget: .* is not a time; for example, use 30m"):
        parse_seconds(text)


@pytest.mark.parametrize(
    ("speed", "per_epoch", "every"), [(Speed(0.5, 2.0, 10.0), 40, 1), (Speed(0.1, 8.0, 10.0), 10, 32)]
)
def test_planned_steps_and_validations_fill_the_time(speed, per_epoch, every):
    recipe = replace(recipes.TOY, optim=replace(recipes.TOY.optim, warmup=10_000), validate_every=1)
    fitted = plan(recipe, speed, per_epoch, 600)
    steps = fitted.optim.steps
    assert fitted.validate_every == every
    assert fitted.optim.warmup == steps // 10
    validations = steps // (per_epoch * every) + 1
    planned = steps * speed.step + validations * speed.validation + speed.final
    assert 570 - speed.step - speed.validation <= planned <= 570
    assert speed.validation * validations <= 0.21 * 600


def test_too_short_a_time_is_refused_with_what_is_needed():
    with pytest.raises(InputError, match=r"a step takes 2 s, a validation 10 s, the end 20 s; allow at least 34 s"):
        plan(recipes.TOY, Speed(2.0, 10.0, 20.0), 10, 33)


def test_run_equals_one_of_its_recorded_recipe(run, monkeypatch):
    measure = time_budget.measure_speed
    found = []

    def measured(started: loop.Run) -> Speed:
        found.append(measure(started))
        return Speed(200.0, 1.0, 1.0)

    monkeypatch.setattr(time_budget, "measure_speed", measured)
    rows = danet.iterate_training("toy", settings=SETTINGS, out=run, workers=0, time_budget="1000s")
    assert next(rows)["step"] == 2
    rows.close()
    danet.train(resume=run, workers=0)
    recipe = read_recipe(run)
    assert recipe.optim.steps == state_of(run)["step"] == 4
    danet.train(recipe, out="plain", workers=0)
    assert_equal(state_of(run), state_of(Path("plain")))
    assert danet.load(run / "best.safetensors").card.recipe["optim"]["steps"] == 4
    assert min(found[0].step, found[0].validation, found[0].final) > 0
    facts = json.loads((run / "environment.json").read_text())["time_budget"]
    assert facts == {"seconds": 1000.0, "step": 200.0, "validation": 1.0, "final": 1.0}


def test_time_of_checkpoints_is_part_of_validations(run, monkeypatch):
    speeds = []

    def fit(started: loop.Run):
        speeds.append(time_budget.measure_speed(started))
        raise InputError("run", "stops", "here")

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda *args: (time.sleep(1), save(*args)))
    with pytest.raises(InputError, match="stops"):
        loop.exhaust(loop.iterate(recipes.with_settings(recipes.TOY, SETTINGS), RunOptions(run, workers=0), fit=fit))
    assert 1 < speeds[0].validation < 10
    (run / ".danet-scratch").mkdir(parents=True)  # as after a kill
    with run_folder.lock(run):
        assert not (run / ".danet-scratch").exists()


def test_run_on_a_machine_that_becomes_slower_ends_in_time(run, monkeypatch, capsys):
    monkeypatch.setattr(time_budget, "measure_speed", lambda _: Speed(1e-4, 0.5, 0.0))
    begun = time.monotonic()
    result = danet.train("toy", settings=SETTINGS, out=run, workers=0, time_budget="3s")
    assert 2 < time.monotonic() - begun < 30
    state = state_of(run)
    assert result.stopped_by is None
    assert state["history"][-1]["step"] == state["step"] < read_recipe(run).optim.steps
    assert f"stopped at step {state['step']} of " in (said := capsys.readouterr().err)
    assert said.endswith(": the time budget is used up\n")


def test_torchrun_continues_a_run_that_was_fitted_to_the_time(run, monkeypatch):
    monkeypatch.setattr(time_budget, "measure_speed", lambda _: Speed(200.0, 1.0, 1.0))
    again = partial(danet.iterate_training, "toy", settings=SETTINGS, out=run, workers=0, time_budget="1000s")
    rows = again()
    assert next(rows)["step"] == 2
    rows.close()
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert [row["step"] for row in again()] == [4]
    for file in run.iterdir():
        if file.name not in (run_folder.RECIPE, run_folder.ENVIRONMENT):
            file.unlink()
    assert [row["step"] for row in again()] == [2, 4]  # killed before its first checkpoint


class PassesBetween(float):
    """A deadline that is not over when a step is validated or not, but right afterwards."""

    asked = 0

    def __lt__(self, now) -> bool:
        self.asked += 1
        return self.asked > 1


def test_a_run_out_of_time_ends_with_a_validation(run):
    def fit(started: loop.Run):
        started.deadline = PassesBetween()

    recipe = recipes.with_settings(recipes.TOY, {**SETTINGS, "optim.steps": 10, "validate_every": 10})
    loop.exhaust(loop.iterate(recipe, RunOptions(run, workers=0), fit=fit))
    state = state_of(run)
    assert state["history"][-1]["step"] == state["step"] == 2


def test_failures_while_measuring_are_one_line_and_leave_nothing(run, monkeypatch):
    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(time_budget, "begin_step", fail)
    with pytest.raises(InputError, match=r"^data\.crop: out of memory: 2 crops of 32 x 32 need about"):
        danet.train("toy", settings=SETTINGS, out=run, workers=0, time_budget="1000s")
    assert not run.exists()


@pytest.mark.parametrize("name", ["optim.steps", "optim.epochs"])
def test_a_time_and_a_number_of_steps_are_refused(run, name, capsys):
    refused = r"time_budget: chooses the number of steps, which `optim\.\w+` sets too; leave out one of the two"
    with pytest.raises(InputError, match=f"^{refused}"):
        danet.train("toy", settings={name: 5}, out=run, time_budget="1m")
    assert main(["train", "toy", f"--{name}", "5", "--time-budget", "1m", "--out", str(run)]) == 2
    expected = f"error: --time-budget: chooses the number of steps, which --{name} sets too; leave out one of the two\n"
    assert capsys.readouterr().err == expected
    assert not run.exists()


def test_resumed_run_has_no_time_budget(run):
    with pytest.raises(InputError, match=r"^time_budget: is determined by the run in run"):
        danet.train(resume=run, time_budget="1m")
