"""Several processes as one: training, resuming with fewer and more of them, validation, and what torchrun starts again
when one was killed.
"""

import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import killed
import pytest
import torch
from killed import Program, Warm, elastic, training, validation
from run_states import assert_equal, state_of

from danet import InputError, recipes
from danet.data.datasets import synthetic
from danet.recipes import Recipe
from danet.train.loop import Where, train


def recipe_of(epochs: int) -> Recipe:
    """Two steps an epoch, without dropout, which is another in each process."""
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64), jitter=0.2)
    network = replace(recipes.TOY.network, width=16, dropout=0.0)
    optim = replace(recipes.TOY.optim, epochs=epochs, ema=0.8)
    return replace(recipes.TOY, data=small, network=network, optim=optim, validate_every=2)


def start(warm: Warm, errors: Path, world: int, program: Callable, *args: Any) -> list[Program]:
    """So many processes of one program, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
    return [
        warm.start(program, *args, errors=errors.with_suffix(f".{rank}"), RANK=str(rank), **shared)
        for rank in range(world)
    ]


def end(programs: list[Program]) -> None:
    for program in programs:
        assert program.wait() == 0, program.said()


def assert_close(a: Path, b: Path) -> None:
    """The float64 weights of two runs."""
    one, other = state_of(a), state_of(b)
    assert one["step"] == other["step"]
    for key in ("network", "average"):
        for name, tensor in one[key].items():
            torch.testing.assert_close(
                other[key][name], tensor, rtol=0, atol=1e-10, msg=lambda m, name=name: f"{name}: {m}"
            )
    for row, same in zip(one["history"], other["history"], strict=True):
        assert row["miou"] == same["miou"]
        assert row["loss_total"] == pytest.approx(same["loss_total"], rel=1e-10)


@pytest.fixture(scope="module")
def one_process(warm, tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("one") / "run"
    end(start(warm, run, 1, training, recipes.to_dict(recipe_of(6)), str(run), 0, False, True))
    return run


def sights(run: Path) -> list[list[str]]:
    """The names of the samples of each step, of all its processes, the last time that it was computed."""
    seen: dict[int, dict[str, list[str]]] = defaultdict(dict)
    worlds = {}
    for line in run.with_suffix(".order").read_text().splitlines():
        step, process, names, _ = line.split(" ")
        seen[int(step)][process] = names.split(",")
        if process.startswith("0/"):
            worlds[int(step)] = process.split("/")[1]
    assert sorted(seen) == list(range(len(seen)))
    return [
        [name for process, names in seen[step].items() if process.endswith(f"/{worlds[step]}") for name in names]
        for step in sorted(seen)
    ]


def test_two_processes_train_as_one_with_the_whole_batch(warm, one_process, tmp_path):
    """DDP and synchronized batch normalization over gloo, unequal numbers of valid pixels included."""
    run = tmp_path / "run"
    end(start(warm, run, 2, training, recipes.to_dict(recipe_of(6)), str(run), 0, False, True))
    assert_close(one_process, run)


def test_a_run_resumed_by_fewer_and_more_processes_sees_every_sample_once_an_epoch(warm, one_process, tmp_path):
    run, settings = tmp_path / "run", recipes.to_dict(recipe_of(6))
    two = start(warm, run, 2, training, settings, str(run), 0, False, True)
    assert two[0].reaches("part", 4)
    assert [program.kill() for program in two] == [-signal.SIGKILL] * 2
    (one,) = start(warm, run, 1, training, settings, str(run), 0, True, True)
    assert one.reaches("part", 4)
    assert one.kill(signal.SIGTERM) == 128 + signal.SIGTERM
    step = state_of(run)["step"]
    assert 5 < step < 12
    end(start(warm, run, 2, training, settings, str(run), 2, True, True))
    assert_close(one_process, run)

    in_order, seen = sights(one_process), sights(run)
    assert [sorted(names) for names in seen] == [sorted(names) for names in in_order]
    stream = [name for names in in_order for name in names]
    assert len(stream) == 12 * 4
    for first in range(0, 40, 10):  # of ten samples; a step of four may be the end of one epoch and the next one's head
        assert len(set(stream[first : first + 10])) == 10


@pytest.mark.parametrize("images", [7, 2])
def test_the_confusion_matrix_is_the_same_integers_for_any_number_of_processes(warm, tmp_path, images):
    matrices = []
    for world in (1, 2, 3):
        programs = start(warm, tmp_path / "run", world, validation, images)
        matrices += [json.loads(program.read()) for program in programs]
        end(programs)
    assert len(matrices) == 6
    assert sum(map(sum, matrices[0])) == images * 144 * 192
    assert all(matrix == matrices[0] for matrix in matrices)


def test_when_one_process_is_lost_the_other_says_so_in_one_line(warm, tmp_path):
    run = tmp_path / "run"
    one, other = start(warm, run, 2, training, recipes.to_dict(recipe_of(50)), str(run), 0, False)
    assert one.reaches("part", 3)
    lost = time.monotonic()
    assert other.kill() == -signal.SIGKILL
    assert one.wait() == 1
    assert time.monotonic() - lost < 60
    assert "InputError: 2 processes: one was lost" in one.said().splitlines()[-1]
    assert state_of(run)["step"] >= 2


def test_what_torchrun_starts_again_goes_on_with_its_own_run_only(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})
    recipe, run = recipe_of(2), tmp_path / "run"
    train(recipe, Where(run, workers=0))
    ended = state_of(run)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(recipe, Where(run, workers=0))
    assert_equal(state_of(run), ended)
    with pytest.raises(InputError, match="is not empty"):
        train(replace(recipe, seed=9), Where(run, workers=0))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", [*sys.argv, "--initial-weights", "w.safetensors"])
        with pytest.raises(InputError, match="is not empty"):
            train(recipe, Where(run, workers=0))
    train(recipe, Where(tmp_path / "fresh", workers=0))  # killed before its first checkpoint
    assert state_of(tmp_path / "fresh")["step"] == 4


def test_torchruns_processes_are_told_to_name_their_folder(monkeypatch, capsys):
    from danet.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "toy"]) == 2
    assert capsys.readouterr().err == "error: --out: missing: torchrun's processes share one folder; give it\n"


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.stress)])
def test_torchrun_brings_a_run_to_its_end_though_its_processes_are_killed(warm, tmp_path, kills):
    epochs = 4 * kills
    words = ["train", "toy", "--data.batch", "4", "--data.crop", "64", "64", "--network.width", "16"]
    words += ["--optim.epochs", str(epochs), "--optim.ema", "0.8", "--device", "cpu", "--workers", "1", "--out"]
    end(start(warm, tmp_path / "errors", 2, elastic, *words, str(tmp_path / "whole")))

    run, draw, longest = tmp_path / "run", random.Random(kills), 0.0
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--max-restarts", str(kills)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*torchrun, killed.__file__, *words, str(run)]
    with (
        (tmp_path / "torchrun").open("wb") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment) as process,
    ):
        assert process.stdout is not None
        last, done, until_next, current = time.monotonic(), 0, draw.randint(2, 8), set()
        try:
            for pid, told in killed.lines(process.stdout, killed.SECONDS):
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
                if told == f"begun {done}":
                    current.add(pid)
                until_next -= told in ("part", "validation") and pid in current
                if until_next == 0 and done < kills:
                    os.kill(pid, signal.SIGKILL)
                    done, until_next, current = done + 1, draw.randint(2, 8), set()
        except AssertionError:
            process.terminate()
            raise
    said = (tmp_path / "torchrun").read_text()
    assert process.returncode == 0, said[-3000:]
    assert done == kills
    print(f"longest silence {longest:.1f} s")
    assert longest < 60
    assert_equal(state_of(run), state_of(tmp_path / "whole"))
    lines = run.with_suffix(".order").read_text().splitlines()
    assert 2 * 2 * epochs <= len(lines) <= 2 * (2 * epochs + 2 * kills)  # a restart repeats two steps at the most
