"""Runs that are repeatedly killed, interrupted or out of disk space end exactly like uninterrupted ones.

Weights, momentum, moving average, history, and order and augmentation of the samples are equal to the bit.
"""

import csv
import itertools
import os
import random
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from killed import Program, command, training
from run_states import assert_equal, state_of

from danet import InputError, recipes
from danet.data import registry
from danet.data.datasets import synthetic
from danet.data.samples import Samples
from danet.recipes import Recipe
from danet.train import checkpoint, loop, run_folder
from danet.train.loop import train
from danet.train.run_folder import LOCK, RunOptions

stress = pytest.mark.stress


def recipe_of(epochs: int, precision: str = "float32") -> Recipe:
    """Return a recipe of two steps per epoch and two parts per step, with everything random enabled."""
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64), scale=(0.5, 2.0), jitter=0.2, photometric=True)
    network = replace(recipes.TOY.network, width=16, dropout=0.3)
    optim = replace(recipes.TOY.optim, epochs=epochs, ema=0.8, accumulate=2, warmup=3, precision=precision)
    return replace(recipes.TOY, data=small, network=network, optim=optim)


@pytest.fixture(scope="module")
def uninterrupted(warm, tmp_path_factory) -> Callable[[Recipe], Path]:
    """Return a function that gives the folder of a recipe's uninterrupted run without workers."""
    runs: dict[Recipe, Path] = {}

    def run(recipe: Recipe) -> Path:
        if recipe not in runs:
            runs[recipe] = tmp_path_factory.mktemp("whole") / "run"
            errors = runs[recipe].with_suffix(".errors")
            program = warm.start(training, recipes.to_dict(recipe), str(runs[recipe]), 0, False, errors=errors)
            assert program.wait() == 0, program.stderr()
        return runs[recipe]

    return run


def order(run: Path) -> dict[int, set[str]]:
    """Return, for each step, the different sets of samples it was computed with; there must be only one."""
    seen: dict[int, set[str]] = {}
    for line in run.with_suffix(".order").read_text().splitlines():
        step, _, samples = line.partition(" ")
        seen.setdefault(int(step), set()).add(samples)
    return seen


def history(run: Path) -> list[dict[str, str]]:
    rows = csv.DictReader((run / "metrics.csv").read_text().splitlines())
    return [{key: row[key] for key in row if key not in ("images_per_second", "waiting")} for row in rows]


def assert_same_as_uninterrupted(run: Path, whole: Path) -> None:
    assert_equal(state_of(run), state_of(whole))
    assert (run / run_folder.BEST).read_bytes() == (whole / run_folder.BEST).read_bytes()
    assert history(run) == history(whole)
    seen = order(run)
    assert all(len(samples) == 1 for samples in seen.values())
    assert seen == order(whole)
    assert not list(run.glob(".*"))  # no lock, no incomplete file


def assert_gone(programs: list[Program]) -> None:
    """Assert that no process is left; workers check every five seconds whether their parent is alive."""
    end = time.monotonic() + 20
    while time.monotonic() < end and any(program.alive() for program in programs):
        time.sleep(0.2)
    assert [program.alive() for program in programs] == [[] for _ in programs]


# messages and how many of them to wait for before a kill: in an epoch (first parts of steps), in accumulation (second
# parts), in validation, in saving
MOMENTS = (("part", (1, 3, 5)), ("part", (2, 4)), ("validation", (1, 2, 3, 4)), ("saving", (1, 2, 3, 4)))


@pytest.mark.parametrize(
    ("workers", "precision", "kills"),
    [
        (0, "float32", 2),
        (2, "float32", 2),
        *(pytest.param(w, p, 25, marks=stress) for w in (0, 2) for p in ("float32", "bfloat16")),
    ],
)
def test_run_killed_at_any_moment_equals_uninterrupted(warm, uninterrupted, tmp_path, workers, precision, kills):
    recipe, run, programs = recipe_of(kills + kills // 2 + 1, precision), tmp_path / "run", []
    draw = random.Random(f"{workers} {precision}")
    for i in range(kills + 1):
        resume = checkpoint.exists(run)
        errors = tmp_path / "errors"
        program = warm.start(training, recipes.to_dict(recipe), str(run), workers, resume, errors=errors)
        if i == kills:
            break
        programs.append(program)
        moment, times = MOMENTS[(i + workers) % len(MOMENTS)]
        assert program.reaches(moment, draw.choice(times)), f"it ended before kill {i + 1}: {program.stderr()}"
        time.sleep(draw.uniform(0, 0.03))
        assert program.kill(group=draw.random() < 0.5) == -signal.SIGKILL
    assert program.wait() == 0, program.stderr()
    assert_same_as_uninterrupted(run, uninterrupted(recipe))
    assert_gone(programs)


def options(recipe: Recipe, workers: int, *last: str) -> tuple[str, ...]:
    """Return the arguments of `danet train` for `recipe_of`."""
    given = {
        "--data.batch": "4",
        "--data.crop": "64 64",
        "--data.scale": "0.5 2.0",
        "--data.jitter": "0.2",
        "--network.width": "16",
        "--network.dropout": "0.3",
        "--optim.epochs": str(recipe.optim.epochs),
        "--optim.ema": "0.8",
        "--optim.accumulate": "2",
        "--optim.warmup": "3",
    }
    words = [word for name, value in given.items() for word in (name, *value.split())]
    return ("train", "toy", *words, "--data.photometric", *execution(workers), "--out", *last)


def execution(workers: int) -> tuple[str, ...]:
    return ("--device", "cpu", "--workers", str(workers))


@pytest.mark.parametrize("signals", [2, pytest.param(50, marks=stress)])
def test_signaled_run_saves_in_seconds_and_can_be_resumed(warm, uninterrupted, tmp_path, signals):
    recipe, run, draw, slowest = recipe_of(2 * signals), tmp_path / "run", random.Random(signals), 0.0
    words = options(recipe, 2, str(run))
    for i in range(signals):
        number = (signal.SIGTERM, signal.SIGINT)[i % 2]
        program = warm.start(command, *words, errors=tmp_path / "errors")
        moment, most = draw.choice([("part", 4), ("validation", 3)])
        assert program.reaches(moment, draw.randint(1, most)), f"it ended before signal {i + 1}: {program.stderr()}"
        time.sleep(draw.uniform(0, 0.03))
        sent = time.monotonic()
        assert program.kill(number) == 128 + number, program.stderr()
        slowest = max(slowest, time.monotonic() - sent)
        assert program.stderr().splitlines()[-1] == f"stopped; continue with: danet train --resume {run}"
        assert "Traceback" not in program.stderr()
        assert program.alive() == []
        assert state_of(run)["step"] > 0
        words = ("train", *execution(workers=i % 4 // 2 * 2), "--resume", str(run))
    assert slowest < 10
    print(f"slowest of {signals}: {slowest:.2f} s")
    assert warm.start(command, *words, errors=tmp_path / "errors").wait() == 0
    assert run_folder.read_recipe(run) == recipe
    assert_same_as_uninterrupted(run, uninterrupted(recipe))


class Signalling:
    """Samples that raise a signal when first read, and count how often they are read."""

    def __init__(self, good: Samples, number: int):
        self.good, self.classes, self.bands, self.number, self.reads = good, good.classes, good.bands, number, 0

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, index: int):
        self.reads += 1
        if self.reads == 1:
            signal.raise_signal(self.number)
        return self.good[index]

    def labels(self, index: int):
        return self.good.labels(index)


@pytest.fixture
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})


def test_interrupted_validation_stops_at_once_and_is_repeated(few_scenes, tmp_path, monkeypatch):
    """A validation can take minutes, but a system that sends SIGTERM waits only seconds."""
    recipe, whole, run = recipe_of(2), tmp_path / "whole", tmp_path / "run"
    train(recipe, RunOptions(whole, workers=0))
    load, signaling = registry.load, Signalling(registry.load("toy", None, "val"), signal.SIGTERM)
    monkeypatch.setattr(registry, "load", lambda *asked: signaling if asked[2] == "val" else load(*asked))
    assert train(recipe, RunOptions(run, workers=0)).stopped_by == signal.SIGTERM
    assert signaling.reads == 1
    state = state_of(run)
    assert (state["step"], state["history"], len(state["losses"])) == (2, [], 2)
    monkeypatch.setattr(registry, "load", load)
    assert train(recipe, RunOptions(run, workers=0), resume=True).stopped_by is None
    assert_equal(state_of(run), state_of(whole))
    assert history(run) == history(whole)


def test_signal_during_the_final_page_and_resuming_writes_it(few_scenes, tmp_path, monkeypatch):
    recipe, run, finish, load = recipe_of(1), tmp_path / "run", loop.report.finish, registry.load
    signaling = Signalling(load("toy", None, "val"), signal.SIGTERM)

    def finish_under_signal(*args):
        monkeypatch.setattr(registry, "load", lambda *_: signaling)
        finish(*args)

    monkeypatch.setattr(loop.report, "finish", finish_under_signal)
    assert train(recipe, RunOptions(run, workers=0)).stopped_by == signal.SIGTERM
    assert signaling.reads == 1
    before = (run / "report.html").read_bytes()
    monkeypatch.setattr(loop.report, "finish", finish)
    monkeypatch.setattr(registry, "load", load)
    assert train(recipe, RunOptions(run, workers=0), resume=True).stopped_by is None
    assert len((run / "report.html").read_bytes()) > len(before)  # now with images


class StoppedError(Exception):
    pass


def test_run_killed_before_its_first_checkpoint_starts_again(few_scenes, tmp_path, monkeypatch):
    recipe, run = recipe_of(1), tmp_path / "run"
    run.mkdir()  # so that the error leaves it, as a kill would

    def killed(*_):
        raise StoppedError

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", killed)
        with pytest.raises(StoppedError):
            train(recipe, RunOptions(run, workers=0))
    assert {path.name for path in run.iterdir()} == {run_folder.RECIPE, run_folder.ENVIRONMENT}
    with pytest.raises(InputError, match=r"is not empty: it contains environment\.json; choose another `folder`"):
        train(replace(recipe, seed=7), RunOptions(run, workers=0))
    assert run_folder.read_recipe(run) == recipe
    train(recipe, RunOptions(run, workers=0))
    assert state_of(run)["step"] == 2


def test_lock_lasts_until_the_run_ends_but_not_its_workers(warm, uninterrupted, tmp_path):
    recipe, run = recipe_of(4), tmp_path / "run"
    first = warm.start(command, *options(recipe, 2, str(run)), errors=tmp_path / "first")
    assert first.reaches("validation", 4)
    words = ("train", *execution(2), "--resume", str(run))
    second = warm.start(command, *words, errors=tmp_path / "second")
    assert second.wait() == 2
    assert (
        second.stderr()
        == f"error: {run}: in use by process {first.pid}; wait until it ends, or choose another folder\n"
    )
    os.kill(first.pid, signal.SIGSTOP)  # so that it does not end meanwhile
    workers = first.workers()
    assert len(workers) == 2
    assert first.status is None
    assert first.kill(group=False) == -signal.SIGKILL
    assert first.workers() == workers
    third = warm.start(command, *words, errors=tmp_path / "third")
    assert third.wait() == 0, third.stderr()
    assert_same_as_uninterrupted(run, uninterrupted(recipe))
    assert_gone([first])


def test_clock_set_back_and_stale_lock_change_nothing(few_scenes, tmp_path, monkeypatch):
    recipe, run = recipe_of(2), tmp_path / "run"
    train(recipe, RunOptions(tmp_path / "whole", workers=0))
    clock = itertools.count(2_000_000_000, -3600)
    monkeypatch.setattr(time, "time", lambda: float(next(clock)))
    compute, steps = loop.compute_gradients, itertools.count()

    def stopping(*args):
        if next(steps) == 3:
            raise StoppedError
        return compute(*args)

    with monkeypatch.context() as patched:
        patched.setattr(loop, "compute_gradients", stopping)
        with pytest.raises(StoppedError):
            train(recipe, RunOptions(run, workers=0, checkpoint_seconds=0))
    (run / LOCK).write_text(f"{os.getppid()}\n")  # the id of another process
    for i, name in enumerate((checkpoint.LAST, LOCK, checkpoint.PREVIOUS)):
        os.utime(run / name, (i << 31, i << 31))
    train(recipe, RunOptions(run, workers=0), resume=True)
    assert_equal(state_of(run), state_of(tmp_path / "whole"))


@pytest.fixture
def disk(tmp_path):
    """A file system of 64 MB for a run, if the user may mount one."""
    folder = tmp_path / "run"
    folder.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", folder], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"mounting is not possible: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(folder: Path) -> Path:
    """Write a file that takes all free space, and return it."""
    filler = folder / "filler"
    with filler.open("ab", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(bytes(size))
            except OSError:
                size //= 2
    return filler


@pytest.mark.parametrize("fills", [1, pytest.param(20, marks=stress)])
def test_full_disk_in_training_is_one_line_and_loses_nothing(warm, uninterrupted, tmp_path, disk, fills):
    def filled(program: Program) -> Callable[[], None]:
        while program.alive():  # each new checkpoint frees the space of an old one
            filler = fill(disk)
        return filler.unlink

    run_out_of_space(warm, uninterrupted, tmp_path, disk, fills, filled, "No space left on device")


@pytest.mark.parametrize("fills", [1, pytest.param(20, marks=stress)])
def test_file_size_limit_is_one_line_and_loses_nothing(warm, uninterrupted, tmp_path, fills):
    run, draw = tmp_path / "run", random.Random(fills)

    def limited(program: Program) -> Callable[[], None]:
        most = (run / checkpoint.LAST).stat().st_size
        resource.prlimit(program.pid, resource.RLIMIT_FSIZE, (draw.randint(most // 4, most - 1), -1))
        return lambda: None

    run_out_of_space(warm, uninterrupted, tmp_path, run, fills, limited, "File too large")


def run_out_of_space(warm, uninterrupted, tmp_path, run, fills, take, reason) -> None:
    """Run out of space repeatedly; `take` fills the disk of a running program and returns the function to undo it."""
    recipe, draw, files = recipe_of(4 * fills), random.Random(fills), set()
    words = options(recipe, 0, str(run))
    for _ in range(fills):
        program = warm.start(command, *words, errors=tmp_path / "errors")
        moment, most = draw.choice([("part", 4), ("validation", 6)])
        assert program.reaches(moment, draw.randint(1, most)), program.stderr()
        undo = take(program)
        assert program.wait() == 2, program.stderr()
        error = re.sub("^note: warmup takes .*\n", "", program.stderr())
        assert error.startswith(f"error: {run}")
        assert re.search(rf": cannot write ([\d,]+ bytes )?\({reason}\); free some space\n$", error)
        assert error.count("\n") == 1
        files.add(error.split(": ")[1])
        assert checkpoint.load(run / checkpoint.LAST)["step"] >= 0
        undo()
        words = ("train", *execution(0), "--resume", str(run))
    print("not written:", *sorted(files))
    assert warm.start(command, *words, errors=tmp_path / "errors").wait() == 0
    assert_same_as_uninterrupted(run, uninterrupted(recipe))


@pytest.mark.parametrize("reason", ["No space left on device", "Read-only file system"])
def test_unwritable_disk_is_an_error_before_the_first_step(warm, tmp_path, disk, reason):
    fill(disk) if "space" in reason else subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    program = warm.start(command, *options(recipe_of(1), 0, str(disk)), errors=tmp_path / "errors")
    assert not program.reaches("part")
    assert program.status == 2
    assert re.fullmatch(rf"error: {disk}[\w/.-]*: cannot [\w, ]+ \({reason}\); [\w, -]+\n", program.stderr())
