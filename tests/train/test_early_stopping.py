"""Early stopping is a function of the recorded validations, so an interrupted run stops where the whole one does."""

from dataclasses import replace
from pathlib import Path

import pytest
from run_states import assert_equal, state_of

from danet import recipes
from danet.data.datasets import synthetic
from danet.train import checkpoint, loop
from danet.train.checkpoint import TrainingState
from danet.train.loop import iterate, train
from danet.train.run_folder import RunOptions


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 4, "val": 1})
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)


def recipe_of(patience: int | None) -> recipes.Recipe:
    """Return a recipe whose weights do not change, so that the first validation is the best one."""
    data = replace(recipes.TOY.data, batch=2, crop=(32, 32))
    network = replace(recipes.TOY.network, width=8)
    optim = replace(recipes.TOY.optim, lr=1e-30, weight_decay=0.0, epochs=6, ema=0.0, patience=patience)
    return replace(recipes.TOY, data=data, network=network, optim=replace(optim, freeze="features"))


def test_run_stops_after_its_patience_and_says_so(tmp_path, capsys):
    result = train(recipe_of(2), RunOptions(tmp_path / "run", workers=0))
    assert result.stopped_by is None
    state = state_of(tmp_path / "run")
    assert state["step"] == 6
    assert len(state["history"]) == 3
    said = f"stopped at step 6 of 12: no better mIoU than {result.miou:.1%} in 2 validations\n"
    assert capsys.readouterr().err.endswith(said)
    train(recipe_of(2), RunOptions(tmp_path / "run", workers=0), resume=True)
    assert_equal(state_of(tmp_path / "run"), state)


def test_interrupted_run_stops_at_the_same_step(tmp_path):
    train(recipe_of(2), RunOptions(tmp_path / "whole", workers=0))
    validations = iterate(recipe_of(2), RunOptions(tmp_path / "parts", workers=0))
    assert [next(validations)["step"] for _ in range(2)] == [2, 4]
    validations.close()
    assert checkpoint.load(tmp_path / "parts/last.ckpt")["step"] == 4
    rows = iterate(recipe_of(2), RunOptions(tmp_path / "parts", workers=0), resume=True)
    assert [row["step"] for row in rows] == [6]
    assert_equal(state_of(tmp_path / "parts"), state_of(tmp_path / "whole"))


def test_without_patience_a_run_ends_at_its_last_step(tmp_path):
    assert [row["step"] for row in iterate(recipe_of(None), RunOptions(Path(tmp_path / "run"), workers=0))][-1] == 12


@pytest.mark.parametrize(("scores", "count"), [([], 0), ([0.1], 0), ([0.1, 0.3, 0.2, 0.3], 2), ([0.1, 0.2], 0)])
def test_only_a_higher_score_is_a_better_one(scores, count):
    state = TrainingState(best=max(scores, default=float("nan")), history=[{"miou": score} for score in scores])
    assert state.validations_since_best() == count
