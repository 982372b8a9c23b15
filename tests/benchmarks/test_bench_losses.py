"""The benchmark of losses: which runs it makes, and its table."""

import json

import pytest

from benchmarks import accuracy_tables, losses
from benchmarks.accuracy_tables import SCORES_OF_LOSSES
from benchmarks.losses import LOSSES, Options, rare_iou
from danet.cli import main
from danet.errors import InputError


@pytest.fixture
def trained(monkeypatch) -> list[tuple[str, int]]:
    """Train nothing; return the runs that were asked for."""
    runs: list[tuple[str, int]] = []
    monkeypatch.setattr(losses, "train_danet", lambda _, out, seed, *__: runs.append((out.name, seed)))
    monkeypatch.setattr(losses, "_scores", lambda *_: dict.fromkeys(SCORES_OF_LOSSES, 0.5))
    return runs


def test_each_loss_is_trained_once(few_streets, tmp_path, trained):
    file = tmp_path / "losses.json"
    options = Options(few_streets.parent, ("streets",), images=4, validation=2, out=tmp_path / "out", json=file)
    assert len(losses.run(options)["rows"]) == len(LOSSES) == len(set(trained))
    again = losses.run(Options(**vars(options) | {"seeds": 2, "only": ("focal", "with Dice")}))
    assert trained[len(LOSSES) :] == [("streets-4-3-2", 2), ("streets-4-2-2", 2)]
    assert json.loads(file.read_text())["rows"] == again["rows"]
    assert [line.split(" | ")[2:4] for line in accuracy_tables.losses(again).splitlines()[5:7]] == [
        ["with Dice", "2"],
        ["focal", "2"],
    ]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_options_of_each_loss_exist(loss):
    arguments = [word for name, value in LOSSES[loss].items() for word in (f"--{name}", value)]
    assert main(["train", "toy", "--dry-run", *arguments]) == 0


def test_unknown_losses_and_too_few_images_are_refused(few_streets, tmp_path, trained):
    options = {"data": few_streets.parent, "datasets": ("streets",), "out": tmp_path / "out"}
    with pytest.raises(InputError, match=r"^only: unknown loss 'hinge'; use 'cross-entropy', "):
        losses.run(Options(**options, only=("focal", "hinge")))
    with pytest.raises(InputError, match=r"^images: streets has fewer than 50 training images; choose fewer"):
        losses.run(Options(**options))
    assert trained == []


def test_runs_on_other_numbers_of_images_have_lines_of_their_own():
    scores = {"dataset": "a", "loss": "focal", "seed": 1}
    rows = [{**scores, "images": n, **dict.fromkeys(SCORES_OF_LOSSES, n / 100)} for n in (20, 50)]
    assert accuracy_tables.losses({"rows": rows}).splitlines()[3:5] == [
        "| a | 20 | focal | 1 | 20.0 | 20.0 | 20.0 | 20.0 |",
        "| a | 50 | focal | 1 | 50.0 | 50.0 | 50.0 | 50.0 |",
    ]


def test_rare_classes_are_the_rarer_half_of_those_that_occur():
    assert rare_iou([50, 0, 10, 5, 30], [1.0, 0.0, 0.4, 0.2, 0.9]) == pytest.approx(0.3)
    assert rare_iou([5], [0.7]) == 0.7
