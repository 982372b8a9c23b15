"""The learning rate range test: growing rates on the training data, a suggestion, and no run."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from danet import InputError, recipes
from danet.cli import main
from danet.data.datasets import synthetic
from danet.train import find_lr
from danet.train.find_lr import RANGES, STEPS, find_learning_rate, steps_for, suggest
from danet.visualize.lr_png import learning_rate_png

SETTINGS = {"data.batch": 2, "data.crop": (32, 32), "network.width": 8}
FLAGS = ["--data.batch", "2", "--data.crop", "32", "32", "--network.width", "8", "--workers", "0"]


@pytest.fixture
def small(monkeypatch, tmp_path):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 4, "val": 1})
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def losses(small, monkeypatch) -> list:
    """Replace training by losses that fall until a rate of 0.1 and diverge above 1; record each step."""
    steps = []

    def begin_step(run, _network, parts, step):
        steps.append((step, [group["lr"] for group in run.optimizer.param_groups], [len(part.names) for part in parts]))
        rate = steps[-1][1][0]
        return {"total": 2.0 - 1.5 / (1 + (0.01 / rate) ** 2) + (100 * rate if rate > 1 else 0)}

    monkeypatch.setattr(find_lr, "begin_step", begin_step)
    return steps


def curve(rates, place: float) -> list[float]:
    """A loss of 3 that falls to 1 over a decade below `place`, and rises a decade above it."""
    logs = np.log10(rates) - math.log10(place)
    return [3 + 2 * min(max(-1 - x, -1), 0) + 20 * max(x - 1, 0) for x in logs]


@pytest.mark.parametrize("place", [1e-3, 0.2])
def test_suggestion_is_a_third_of_where_the_curve_becomes_flat(place):
    rates = np.logspace(-6, 1, 200).tolist()
    suggestion, flat_from = suggest(rates, curve(rates, place))
    assert flat_from == pytest.approx(place, rel=0.2)
    assert suggestion == float(f"{flat_from / 3:.2g}")


@pytest.mark.parametrize("noise", [-0.4, 0.4])
def test_single_batches_at_the_start_do_not_move_the_suggestion(noise):
    rates = np.logspace(-6, 1, 100).tolist()
    values = curve(rates, 1e-3)
    assert suggest(rates, [values[0] + noise, values[1] + noise / 2, *values[2:]]) == suggest(rates, values)


def test_a_loss_that_diverges_at_once_gives_no_suggestion():
    assert suggest([1e-6, 1e-5], [1.0, 9.0]) == (None, 1e-5)


def test_divergence_and_nan_do_not_move_the_suggestion():
    rates = np.logspace(-6, 1, 100).tolist()
    values = curve(rates, 1e-3)
    assert suggest(rates[:90], [*values[:80], 1e9, *[math.nan] * 9]) == suggest(rates, values)


def test_loss_that_does_not_fall_gives_no_suggestion():
    assert suggest([0.1, 0.2, 0.4, 0.8, 1.6], [2.0, 2.0, 1.99, 2.0, math.inf])[0] is None


@pytest.mark.parametrize(("step", "seconds", "count"), [(0.1, 600, 100), (12, 600, 50), (100, 600, 30), (0.0, 1, 100)])
def test_number_of_steps_fits_into_the_time(step, seconds, count):
    assert steps_for(step, seconds) == count


def test_rates_grow_by_a_constant_factor_in_all_groups(losses):
    settings = SETTINGS | {"optim.head_lr_factor": 4.0, "data.batch": 4, "optim.accumulate": 2}
    found = find_learning_rate("toy", settings=settings, workers=0, out="lr")
    base = np.array([rates[0] for _, rates, _ in losses])
    assert base == pytest.approx(found.rates)
    assert base[0] == base[2] == RANGES["sgd"][0]
    assert np.diff(np.log(base[2:])) == pytest.approx(np.full(len(base) - 3, np.log(1e6) / 97))
    assert [rates[1] / rates[0] for _, rates, _ in losses] == pytest.approx([4.0] * len(losses))
    assert {tuple(parts) for *_, parts in losses} == {(2, 2)}


def test_test_ends_when_the_loss_diverges(losses):
    found = find_learning_rate("toy", settings=SETTINGS, workers=0, out="lr")
    assert found.diverged
    assert 30 < len(found.rates) < STEPS[1]
    assert found.rates[-2] <= 1.5 < found.rates[-1] * 1.5
    assert 0.01 < (found.suggestion or 0) < 0.3
    assert repr(found).startswith(f"RangeTest(suggestion={found.suggestion}, flat_from=")


def test_only_the_plot_and_the_numbers_are_left(losses):
    found = find_learning_rate("toy", settings=SETTINGS, workers=0)
    files = sorted(path.as_posix() for path in Path().rglob("*") if path.is_file())
    assert files == ["runs/toy-find-lr/find_lr.json", "runs/toy-find-lr/find_lr.png"]
    table = json.loads(Path(files[0]).read_text())
    assert table["suggestion"] == found.suggestion
    assert table["losses"] == list(found.losses)
    assert set(table) == {"suggestion", "flat_from", "diverged", "rates", "losses", "smoothed"}


def test_real_steps_of_a_network_find_a_rate_that_trains_it(small, monkeypatch):
    monkeypatch.setattr(find_lr, "STEPS", (30, 30))
    found = find_learning_rate("toy", settings=SETTINGS, workers=0, out="lr")
    assert found.smoothed[0] == found.losses[0]
    assert 1e-4 < (found.suggestion or 0) < 3


def test_files_of_an_earlier_test_are_kept(small):
    Path("lr").mkdir()
    Path("lr/find_lr.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"^lr/find_lr.png: already exists; choose another `out`"):
        find_learning_rate("toy", out="lr")


def test_command_prints_the_option_and_the_next_command(losses, capsys):
    assert main(["train", "toy", "--find-lr", *FLAGS, "--optim.lr", "0.5"]) == 0
    first, last = capsys.readouterr().out.splitlines()
    rate = first.rpartition("suggested: ")[2]
    assert first.startswith("runs/toy-find-lr/find_lr.png: the loss falls until 0.")
    assert last == f"next: danet train toy {' '.join(FLAGS)} --optim.lr {rate}"
    assert 0.01 < float(rate) < 0.3


def test_command_says_that_there_is_no_suggestion(small, monkeypatch, capsys):
    monkeypatch.setattr(find_lr, "begin_step", lambda *_: {"total": 2.0})
    assert main(["train", "toy", "--find-lr", "--out", "lr", *FLAGS]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        "error: --find-lr: no learning rate from 1e-05 on makes the loss fall; see lr/find_lr.png; check the data with "
        "danet check, or try other initial weights"
    )
    assert Path("lr/find_lr.png").exists()


def test_batches_without_labels_do_not_count(losses, monkeypatch):
    begin = find_lr.begin_step
    monkeypatch.setattr(find_lr, "begin_step", lambda *args: begin(*args) if args[-1] % 5 else {"total": 0.0})
    found = find_learning_rate("toy", settings=SETTINGS, workers=0, out="lr")
    assert 0.01 < (found.suggestion or 0) < 0.3
    assert min(found.losses) > 0


def test_a_loss_that_rises_in_the_warm_up_does_not_end_the_test(losses, monkeypatch):
    begin = find_lr.begin_step
    monkeypatch.setattr(find_lr, "begin_step", lambda *args: begin(*args) if args[-1] else {"total": 0.1})
    assert len(find_learning_rate("toy", settings=SETTINGS, workers=0, out="lr").rates) > 30


@pytest.mark.parametrize(
    ("losses", "what"),
    [
        ({0: math.nan}, "the loss is not finite at the lowest learning rate"),
        ({}, "too few batches have labels"),
        ({5: 1.0, 20: 0.9}, "too few batches have labels"),
    ],
)
def test_losses_that_say_nothing_are_an_error(small, monkeypatch, losses, what):
    monkeypatch.setattr(find_lr, "begin_step", lambda *args: {"total": losses.get(args[-1], 0.0)})
    with pytest.raises(InputError, match=rf"^find_lr: {what}.*; check the data with danet check"):
        find_learning_rate("toy", settings=SETTINGS, workers=0, out="lr")
    assert not Path("lr").exists()


@pytest.mark.parametrize("option", ["--dry-run", "--tensorboard", "--tracker=wandb", "--deterministic", "--auto"])
def test_options_of_runs_are_refused(small, option, capsys):
    assert main(["train", "toy", "--find-lr", option]) == 2
    name = option.partition("=")[0]
    assert capsys.readouterr().err.startswith(f"error: {name}: is not for --find-lr, which keeps no run; leave out one")


def test_plot_marks_the_suggestion():
    rates = [1e-4, 1e-3, 1e-2, 1e-1, 1.0]
    content = learning_rate_png(rates, [3, 2, math.nan, 1, math.inf], [3, 2.5, 2, 1.5, math.inf], 1e-2)
    pixels = np.asarray(Image.open(io.BytesIO(content)))
    marked = np.flatnonzero((pixels[100] == (213, 94, 0)).all(-1))
    middle = (110 + 1200 - 40) / 2
    assert abs(marked.mean() - middle) < 3
    unmarked = learning_rate_png(rates, [3] * 5, [3] * 5, None)
    assert not (np.asarray(Image.open(io.BytesIO(unmarked))) == (213, 94, 0)).all(-1).any()


def test_recipes_of_both_algorithms_have_a_range():
    assert {recipe.optim.algorithm for recipe in recipes.RECIPES.values()} <= RANGES.keys()
