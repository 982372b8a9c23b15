"""Training in several processes equals training in one, and survives kills, restarts and changes of their number."""

import copy
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
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from danet import InputError, recipes
from danet.data.datasets import synthetic
from danet.model.baselines import build_network
from danet.recipes import Recipe
from danet.train import distributed
from danet.train.distributed import CpuSyncBatchNorm, Process
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.train.schedule import freeze_batch_norm


def recipe_of(epochs: int) -> Recipe:
    """Return a recipe of two steps per epoch, without dropout, which differs between processes."""
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64), jitter=0.2)
    network = replace(recipes.TOY.network, width=16, dropout=0.0)
    optim = replace(recipes.TOY.optim, epochs=epochs, ema=0.8)
    return replace(recipes.TOY, data=small, network=network, optim=optim, validate_every=2)


def start(warm: Warm, errors: Path, world: int, program: Callable, *args: Any) -> list[Program]:
    """Start several processes of a program, as torchrun would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
    return [
        warm.start(program, *args, errors=errors.with_suffix(f".{rank}"), RANK=str(rank), **shared)
        for rank in range(world)
    ]


def wait_for(programs: list[Program]) -> None:
    """Wait until the programs end successfully."""
    for program in programs:
        assert program.wait() == 0, program.stderr()


def assert_close(a: Path, b: Path) -> None:
    """Assert that two runs in float64 have the same weights and scores."""
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
    wait_for(start(warm, run, 1, training, recipes.to_dict(recipe_of(6)), str(run), 0, False, True))
    return run


def samples_of_steps(run: Path) -> list[list[str]]:
    """Return the names of the samples of each step over all processes, when it was computed for the last time."""
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


def test_two_processes_equal_one_with_the_whole_batch(warm, one_process, tmp_path):
    """With DDP and synchronized batch normalization over gloo, and unequal numbers of valid pixels."""
    run = tmp_path / "run"
    wait_for(start(warm, run, 2, training, recipes.to_dict(recipe_of(6)), str(run), 0, False, True))
    assert_close(one_process, run)


def test_resuming_with_other_process_counts_keeps_sample_order(warm, one_process, tmp_path):
    run, settings = tmp_path / "run", recipes.to_dict(recipe_of(6))
    two = start(warm, run, 2, training, settings, str(run), 0, False, True)
    assert two[0].reaches("part", 4)
    assert [program.kill() for program in two] == [-signal.SIGKILL] * 2
    (one,) = start(warm, run, 1, training, settings, str(run), 0, True, True)
    assert one.reaches("part", 4)
    assert one.kill(signal.SIGTERM) == 128 + signal.SIGTERM
    step = state_of(run)["step"]
    assert 5 < step < 12
    wait_for(start(warm, run, 2, training, settings, str(run), 2, True, True))
    assert_close(one_process, run)

    in_order, seen = samples_of_steps(one_process), samples_of_steps(run)
    assert [sorted(names) for names in seen] == [sorted(names) for names in in_order]
    stream = [name for names in in_order for name in names]
    assert len(stream) == 12 * 4
    for first in range(0, 40, 10):  # ten samples per epoch; a step of four may cross the border between two
        assert len(set(stream[first : first + 10])) == 10


@pytest.fixture
def two_on_a_cpu(monkeypatch) -> Process:
    """Return one of two processes whose sums are its own."""
    monkeypatch.setattr(distributed.dist, "all_reduce", lambda _: None)
    return Process(0, 2, torch.device("cpu"))


@pytest.mark.parametrize("shape", [(3, 4, 50, 50), (3, 4, 50)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_synchronized_batch_norm_equals_that_of_torch(two_on_a_cpu, shape, dtype):
    torch.manual_seed(0)
    norm = (nn.BatchNorm2d if len(shape) == 4 else nn.BatchNorm1d)(4)
    norm = norm.double() if dtype == torch.float64 else norm
    plain = copy.deepcopy(norm)
    synchronized = distributed.synchronize_batch_norm(nn.Sequential(norm), two_on_a_cpu).get_submodule("0")
    assert isinstance(synchronized, CpuSyncBatchNorm)
    x = (5 + torch.randn(shape)).to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        expected, found = plain(x), synchronized(x)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 if dtype == torch.bfloat16 else 1e-5)
    torch.testing.assert_close(synchronized.state_dict(), plain.state_dict())


@pytest.mark.parametrize("architecture", ["danet", "encnet"])
def test_all_batch_norms_are_synchronized_on_cpus(two_on_a_cpu, architecture):
    network = build_network(architecture, num_classes=3, backbone="test_resnet", width=16)
    keys = list(network.state_dict())
    network = distributed.synchronize_batch_norm(network, two_on_a_cpu)
    assert not [name for name, module in network.named_modules() if isinstance(module, _BatchNorm)]
    assert list(network.state_dict()) == keys


def test_frozen_batch_norm_of_the_backbone_may_be_synchronized(two_on_a_cpu):
    network = build_network(num_classes=3, backbone="test_resnet", width=16)
    network = distributed.synchronize_batch_norm(network, two_on_a_cpu).train()
    freeze_batch_norm(network)
    modes = defaultdict(set)
    for name, module in network.named_modules():
        if isinstance(module, CpuSyncBatchNorm):
            modes[name.split(".")[0]].add(module.training)
    assert modes == {"backbone": {False}, "position": {True}, "channel": {True}}


@pytest.mark.parametrize("images", [7, 2])
def test_confusion_matrix_is_equal_for_any_number_of_processes(warm, tmp_path, images):
    matrices = []
    for world in (1, 2, 3):
        programs = start(warm, tmp_path / "run", world, validation, images)
        matrices += [json.loads(program.read()) for program in programs]
        wait_for(programs)
    assert len(matrices) == 6
    assert sum(map(sum, matrices[0])) == images * 144 * 192
    assert all(matrix == matrices[0] for matrix in matrices)


def test_lost_process_is_reported_by_the_other_in_one_line(warm, tmp_path):
    run = tmp_path / "run"
    one, other = start(warm, run, 2, training, recipes.to_dict(recipe_of(50)), str(run), 0, False)
    assert one.reaches("part", 3)
    lost = time.monotonic()
    assert other.kill() == -signal.SIGKILL
    assert one.wait() == 1
    assert time.monotonic() - lost < 60
    assert "InputError: torchrun: one of 2 processes was lost" in one.stderr().splitlines()[-1]
    assert state_of(run)["step"] >= 2


def test_torchrun_restart_continues_only_its_own_run(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})
    recipe, run = recipe_of(2), tmp_path / "run"
    train(recipe, RunOptions(run, workers=0))
    ended = state_of(run)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    train(recipe, RunOptions(run, workers=0))
    assert_equal(state_of(run), ended)
    with pytest.raises(InputError, match="is not empty"):
        train(replace(recipe, seed=9), RunOptions(run, workers=0))
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", [*sys.argv, "--initial-weights", "w.safetensors"])
        with pytest.raises(InputError, match="is not empty"):
            train(recipe, RunOptions(run, workers=0))
    train(recipe, RunOptions(tmp_path / "fresh", workers=0))  # killed before its first checkpoint
    assert state_of(tmp_path / "fresh")["step"] == 4


def test_torchrun_without_out_is_an_error(monkeypatch, capsys):
    from danet.cli import main

    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["train", "toy"]) == 2
    assert capsys.readouterr().err == "error: --out: missing; all processes of torchrun use one folder; add --out\n"


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.stress)])
def test_torchrun_finishes_a_run_whose_processes_are_killed(warm, tmp_path, kills):
    epochs = 4 * kills
    words = ["train", "toy", "--data.batch", "4", "--data.crop", "64", "64", "--network.width", "16"]
    words += ["--optim.epochs", str(epochs), "--optim.ema", "0.8", "--device", "cpu", "--workers", "1", "--out"]
    wait_for(start(warm, tmp_path / "errors", 2, elastic, *words, str(tmp_path / "whole")))

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
            for pid, text in killed.lines(process.stdout, killed.SECONDS):
                longest, last = max(longest, time.monotonic() - last), time.monotonic()
                if text == f"started {done}":
                    current.add(pid)
                until_next -= text in ("part", "validation") and pid in current
                if until_next == 0 and done < kills:
                    os.kill(pid, signal.SIGKILL)
                    done, until_next, current = done + 1, draw.randint(2, 8), set()
        except AssertionError:
            process.terminate()
            raise
    output = (tmp_path / "torchrun").read_text()
    assert process.returncode == 0, output[-3000:]
    assert done == kills
    print(f"longest silence {longest:.1f} s")
    assert longest < 60
    assert_equal(state_of(run), state_of(tmp_path / "whole"))
    lines = run.with_suffix(".order").read_text().splitlines()
    assert 2 * 2 * epochs <= len(lines) <= 2 * (2 * epochs + 2 * kills)  # a restart repeats at most two steps
