"""Failures that must not ruin a run.

Damaged checkpoints, kills while saving, full disks, two processes in one folder, lost workers, unreadable images, too
little memory, operations without a deterministic implementation.
"""

import itertools
import math
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from killed import command, command_in_little_memory, hold_lock, save_forever
from miniature import save, stripes

from danet import recipes
from danet.cli import main
from danet.data import registry
from danet.data.datasets import synthetic
from danet.data.samples import Sample
from danet.errors import InputError
from danet.recipes import Recipe
from danet.train import checkpoint, loop, run_folder
from danet.train.failures import translate_errors
from danet.train.loop import train
from danet.train.run_folder import LOCK, RunOptions
from danet.train.skipped import SkippedImages


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 2})


@pytest.fixture
def recipe() -> Recipe:
    """Return a recipe of six steps, two per epoch."""
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64))
    return replace(
        recipes.TOY,
        data=small,
        network=replace(recipes.TOY.network, width=16),
        optim=replace(recipes.TOY.optim, epochs=3, ema=0.8),
        validate_every=3,
    )


STATE = {"step": 7, "network": {"a": torch.arange(40.0)}, "history": [{"miou": 0.5}]}


def with_flipped_bits(content: bytes, count: int) -> list[bytes]:
    """Return `count` copies, each with one random bit flipped."""
    generator = random.Random(0)
    damaged = []
    for _ in range(count):
        place = generator.randrange(len(content))
        flipped = content[place] ^ 1 << generator.randrange(8)
        damaged.append(content[:place] + bytes([flipped]) + content[place + 1 :])
    return damaged


@pytest.mark.parametrize("count", [50, pytest.param(1000, marks=pytest.mark.stress)])
def test_flipped_bits_and_truncation_of_checkpoints_are_detected(tmp_path, count):
    checkpoint.save(tmp_path, STATE)
    whole = (tmp_path / checkpoint.LAST).read_bytes()
    generator = random.Random(1)
    cuts = [whole[: generator.randrange(len(whole))] for _ in range(count // 10)]
    for content in with_flipped_bits(whole, count) + cuts:
        (tmp_path / checkpoint.LAST).write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            checkpoint.load(tmp_path / checkpoint.LAST)


def test_damaged_checkpoint_does_not_replace_the_previous_one(tmp_path, capsys):
    checkpoint.save(tmp_path, STATE)
    checkpoint.save(tmp_path, STATE | {"step": 8})
    (tmp_path / checkpoint.LAST).write_bytes(b"damaged")
    checkpoint.save(tmp_path, STATE | {"step": 9})
    assert checkpoint.load(tmp_path / checkpoint.PREVIOUS)["step"] == 7
    assert checkpoint.load(tmp_path / checkpoint.LAST)["step"] == 9


@pytest.mark.parametrize("damage", ["cut", "missing"])
def test_damaged_checkpoint_falls_back_to_the_previous_one(tmp_path, capsys, damage):
    checkpoint.save(tmp_path, STATE)
    checkpoint.save(tmp_path, STATE | {"step": 8})
    last = tmp_path / checkpoint.LAST
    last.unlink() if damage == "missing" else last.write_bytes(last.read_bytes()[:-9])
    assert checkpoint.newest(tmp_path)["step"] == 7
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(last) in error
    assert f"continuing from {tmp_path / checkpoint.PREVIOUS}, step 7" in error
    (tmp_path / checkpoint.PREVIOUS).unlink()
    with pytest.raises(InputError, match=r"last\.ckpt"):
        checkpoint.newest(tmp_path)


def test_resuming_from_the_previous_checkpoint_gives_same_weights(recipe, tmp_path, capsys):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for run in (whole, broken):
        train(recipe, RunOptions(run, workers=0, checkpoint_seconds=0))
    content = bytearray((broken / checkpoint.LAST).read_bytes())
    content[-50] ^= 4
    (broken / checkpoint.LAST).write_bytes(content)
    train(recipe, RunOptions(broken, workers=0), resume=True)
    assert "damaged" in capsys.readouterr().err
    one, other = (checkpoint.newest(run) for run in (whole, broken))
    assert one["step"] == other["step"] == 6
    for name, tensor in one["network"].items():
        assert torch.equal(tensor, other["network"][name]), name


@pytest.mark.parametrize("kills", [3, pytest.param(200, marks=pytest.mark.stress)])
def test_kills_while_saving_lose_no_checkpoint_and_leave_no_files(warm, tmp_path, kills):
    run, generator, step = tmp_path / "run", random.Random(2), 0
    for _ in range(kills):
        program = warm.start(save_forever, str(run), errors=tmp_path / "errors")
        assert program.reaches("ready"), program.stderr()
        time.sleep(generator.uniform(0.02, 0.3))
        assert program.kill() == -signal.SIGKILL
        state = checkpoint.newest(run)
        assert state["step"] >= step
        assert (state["network"]["a"] == state["step"]).all()
        step = state["step"]
        with run_folder.lock(run):
            assert {path.name for path in run.iterdir()} <= {checkpoint.LAST, checkpoint.PREVIOUS, LOCK}
    assert step > 0


def test_full_disk_is_one_line_and_keeps_the_checkpoints(tmp_path):
    checkpoint.save(tmp_path, STATE)
    before = (tmp_path / checkpoint.LAST).read_bytes()
    script = (
        "import resource, sys, torch, signal\nfrom pathlib import Path\nfrom danet.train import checkpoint\n"
        "from danet.errors import InputError\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n    checkpoint.save(Path(sys.argv[1]), {'step': 8, 'a': torch.zeros(100_000)})\n"
        "except InputError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True)
    assert re.search(r"cannot write [\d,]+ bytes \(File too large\); free some space", done.stdout)
    assert done.stdout.count("\n") == 1
    assert (tmp_path / checkpoint.LAST).read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.LAST]


def test_too_little_disk_space_is_an_error_before_the_first_step(recipe, tmp_path, monkeypatch):
    class Usage:
        free = 1000

    monkeypatch.setattr(checkpoint.shutil, "disk_usage", lambda _: Usage)
    monkeypatch.setattr(loop, "compute_gradients", lambda *_: pytest.fail("a step was taken"))
    with pytest.raises(InputError, match=r"0 MB free, but the next checkpoint and weights need [1-9]"):
        train(recipe, RunOptions(tmp_path / "run", workers=0))


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_read_only_folder_is_an_error_at_once(recipe, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="Permission denied"):
        train(recipe, RunOptions(tmp_path / "run", workers=0))


def test_invalid_run_folder_is_an_error_at_once(recipe, tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match=r"cannot create the run folder \(Not a directory\)"):
        train(recipe, RunOptions(tmp_path / "file" / "run", workers=0))
    assert (tmp_path / "file").read_text() == "mine"


def test_second_process_in_a_folder_names_the_first_ones_id(warm, tmp_path, tmp_path_factory):
    first = warm.start(hold_lock, str(tmp_path), errors=tmp_path_factory.mktemp("errors") / "errors")
    assert first.reaches("locked")
    with pytest.raises(InputError, match=f"in use by process {first.pid}; wait until"), run_folder.lock(tmp_path):
        pass
    first.kill()
    (tmp_path / ".danet-123-0.ckpt").write_text("half")
    with run_folder.lock(tmp_path):  # the lock was released when its owner died
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    assert list(tmp_path.iterdir()) == []


class Killing:
    """Samples of which one kills the process that loads it."""

    def __init__(self, good):
        self.good, self.classes, self.bands = good, good.classes, good.bands

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, index: int) -> Sample:
        if index == 4:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.good[index]

    def labels(self, index: int) -> np.ndarray:
        return self.good.labels(index)


def test_killed_worker_is_one_line_within_seconds(recipe, tmp_path, monkeypatch):
    killing = Killing(registry.load("toy", None, "train"))
    monkeypatch.setattr(registry, "load", lambda *_: killing)
    start = time.monotonic()
    with pytest.raises(InputError, match=r"workers: one of 2 was killed \(Killed\): .*fewer `workers`"):
        train(recipe, RunOptions(tmp_path / "run", workers=2))
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("kills", [2, pytest.param(50, marks=pytest.mark.stress)])
def test_workers_killed_at_any_moment_are_one_line_in_seconds(warm, tmp_path, kills):
    generator, slowest = random.Random(3), 0.0
    small = ("--data.batch", "4", "--data.crop", "64", "64", "--network.width", "16", "--optim.epochs", "100")
    for i in range(kills):
        run, workers = tmp_path / str(i), str(1 + i % 3)
        words = ("train", "toy", *small, "--device", "cpu", "--workers", workers, "--out", str(run))
        program = warm.start(command, *words, errors=tmp_path / "errors")
        assert program.reaches(generator.choice(["part", "validation"]), generator.randint(1, 4)), program.stderr()
        time.sleep(generator.uniform(0, 0.05))
        sent, cause = ((signal.SIGKILL, "Killed"), (signal.SIGSEGV, "Segmentation fault"))[i % 2]
        killed = time.monotonic()
        os.kill(generator.choice(program.workers()), sent)
        assert program.wait() == 2, program.stderr()
        slowest = max(slowest, time.monotonic() - killed)
        lines = program.stderr().replace("\0", "").splitlines()  # torch's line on segmentation faults ends in a zero
        number = "the only one" if workers == "1" else f"one of {workers}"
        expected = rf"error: --workers: {number} was killed \({cause}\): .*, or run danet check to find the image"
        assert re.fullmatch(expected, lines[-1]), lines
        assert "Traceback" not in program.stderr()
        assert program.alive() == []
        assert not run.exists() or checkpoint.newest(run)["step"] >= 0  # nothing is left before the first step
    print(f"slowest of {kills}: {slowest:.2f} s")
    assert slowest < 10


def test_lost_connections_without_workers_are_not_of_workers():
    samples = registry.load("toy", None, "train")
    with pytest.raises(ConnectionRefusedError), translate_errors(recipes.TOY, 1, 0, samples):
        raise ConnectionRefusedError


class Unreadable(Killing):
    """Samples of which three cannot be read."""

    def __getitem__(self, index: int) -> Sample:
        if index in (1, 4, 7):
            raise InputError(f"scene-{index}.png", "truncated", "copy it again")
        return self.good[index]


def use_unreadable_images(monkeypatch) -> None:
    good = registry.load("toy", None, "train")
    monkeypatch.setattr(registry, "load", lambda _name, _root, split: Unreadable(good) if split == "train" else good)


@pytest.mark.parametrize("workers", [0, 2])
def test_skip_bad_lists_each_skipped_image_once_and_trains_on(recipe, tmp_path, monkeypatch, capsys, workers):
    use_unreadable_images(monkeypatch)
    run = tmp_path / "run"
    train(replace(recipe, skip_bad=3), RunOptions(run, workers=workers))
    names = [line.split("\t")[0] for line in (run / "bad.txt").read_text().splitlines()]
    assert sorted(names) == ["scene-1.png", "scene-4.png", "scene-7.png"]
    assert capsys.readouterr().err.count("skipped: ") == 3
    assert checkpoint.newest(run)["step"] == 6


def test_one_unreadable_image_too_many_stops_the_run(recipe, tmp_path, monkeypatch):
    use_unreadable_images(monkeypatch)
    with pytest.raises(InputError, match=r"truncated \(2 already skipped: .*\.png, .*\.png\); .*or set `skip_bad` to"):
        train(replace(recipe, skip_bad=2), RunOptions(tmp_path / "run", workers=0))


def test_damaged_validation_images_end_a_run_before_its_first_step(tmp_path, monkeypatch, capsys):
    """They cannot be skipped, and a run whose images are repaired later cannot be resumed."""
    for split, count in (("train", 2), ("val", 3)):
        for i in range(count):
            save(tmp_path / f"images/{split}/{i}.png", np.full((32, 32, 3), 20 * i, np.uint8))
            save(tmp_path / f"masks/{split}/{i}.png", stripes(0, 1, width=32, height=32))
    (tmp_path / "dataset.yaml").write_text("classes: [a, b]\n")
    (tmp_path / "images/val/1.png").write_bytes(b"")
    (tmp_path / "masks/val/2.png").write_bytes(b"")
    monkeypatch.setattr(loop, "begin_step", lambda *_: pytest.fail("a step was taken"))
    run = tmp_path / "run"
    command = ["train", "folder", "--data.root", str(tmp_path), "--out", str(run), "--skip-bad", "9", "--workers", "0"]
    command += ["--network.backbone", "test_resnet", "--network.no-pretrained", "--network.width", "8"]
    command += ["--data.size", "32", "--data.batch", "2", "--device", "cpu"]
    assert main(command) == 2
    what = "empty file (0 bytes) (a validation image, and 1 more; only training images can be skipped)"
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"error: {tmp_path}/images/val/1.png: {what}; copy it again"
    assert not (run / run_folder.RECIPE).exists()
    run.mkdir(exist_ok=True)
    (run / "notes.txt").write_text("mine")
    assert main(command) == 2
    assert "run: is not empty: it contains notes.txt; " in capsys.readouterr().err, "the cheaper check comes first"


def test_a_run_that_fails_in_its_first_step_leaves_no_list_of_skipped_images(recipe, tmp_path, monkeypatch):
    use_unreadable_images(monkeypatch)
    with pytest.raises(InputError, match="2 already skipped"):
        train(replace(recipe, skip_bad=2, data=replace(recipe.data, batch=10)), RunOptions(tmp_path / "run", workers=0))
    assert not (tmp_path / "run").exists()


def test_skipped_images_count_over_interruptions_and_processes(tmp_path):
    error = InputError("a.png", "truncated", "copy it again")
    again = SkippedImages(tmp_path, 1)
    SkippedImages(tmp_path, 1).add(error)
    again.add(error)
    with pytest.raises(InputError, match=r"b\.png"):
        again.add(InputError("b.png", "truncated", "copy it again"))
    assert (tmp_path / "bad.txt").read_text().count("\n") == 1


@pytest.mark.parametrize(
    "name", ["caf\udce9.jpg", "a\nb.jpg", "a\tb.jpg", "a\r.jpg", "a\x0bb\x85c\u2028d.jpg", "é.jpg"]
)
def test_skipped_images_list_any_file_name_on_one_line(tmp_path, name):
    for _ in range(3):
        SkippedImages(tmp_path, 1).add(InputError(tmp_path / name, "truncated", "copy it again"))
    content = (tmp_path / "bad.txt").read_bytes()
    assert content.count(b"\n") == 1
    assert content.count(b"\t") == 1
    if name.startswith("caf"):
        assert b"caf\xe9.jpg\t" in content
    with pytest.raises(InputError, match="1 already skipped") as raised:
        SkippedImages(tmp_path, 1).add(InputError(tmp_path / f"other {name}", "truncated", "copy it again"))
    assert "\n" not in str(raised.value)


def poison(monkeypatch, recipe: Recipe, where: str, bad: float, step: int, generator: random.Random) -> None:
    """Replace the loss, or one number of its gradient or of the input, by `bad` in the last part of a step."""
    multi_loss, normalize, calls = loop.multi_loss, loop.normalize, {"multi_loss": 0, "normalize": 0}
    last = (step + 1) * recipe.optim.accumulate

    def now(name: str) -> bool:
        calls[name] += 1
        return calls[name] == last

    def with_one_bad(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed[tuple(map(generator.randrange, changed.shape))] = bad
        return changed

    def poisoned_loss(outputs, *args):
        if not now("multi_loss") or where == "input":
            return multi_loss(outputs, *args)
        if where == "gradient":
            outputs.fused.register_hook(with_one_bad)
        total, parts = multi_loss(outputs, *args)
        return (total * bad if where == "loss" else total), parts

    def poisoned_input(*args):
        images = normalize(*args)
        return with_one_bad(images) if now("normalize") and where == "input" else images

    monkeypatch.setattr(loop, "multi_loss", poisoned_loss)
    monkeypatch.setattr(loop, "normalize", poisoned_input)


POISONS = list(itertools.product(("loss", "gradient", "input"), (math.nan, math.inf, -math.inf)))


@pytest.mark.parametrize(
    "places", [(0, 4, 8), pytest.param(range(100), marks=pytest.mark.stress)], ids=lambda places: str(len(places))
)
def test_non_finite_numbers_never_reach_the_weights(recipe, tmp_path, places):
    for i in places:
        where, bad = POISONS[i % len(POISONS)]
        draw = random.Random(i)
        step = draw.randrange(3)
        chosen = replace(recipe, optim=replace(recipe.optim, accumulate=draw.choice((1, 2))))
        run, message = tmp_path / str(i), rf"step {step}: loss .* at learning rate .*, on train-0.* a lower `optim\.lr`"
        with pytest.MonkeyPatch.context() as monkeypatch:
            poison(monkeypatch, chosen, where, bad, step, draw)
            with pytest.raises(InputError, match=message):
                train(chosen, RunOptions(run, workers=0, checkpoint_seconds=0))
        if step == 0:
            assert not run.exists()
            continue
        state = checkpoint.newest(run)
        assert state["step"] == step, (where, bad)
        for key in ("network", "average"):
            assert all(tensor.isfinite().all() for tensor in state[key].values()), (where, bad)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_names_largest_tensor_and_three_remedies(recipe, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(loop, "compute_gradients", fail)
    with pytest.raises(InputError, match=r"data\.crop: out of memory: 4 crops of 64 x 64 need about \d+ MiB") as caught:
        train(recipe, RunOptions(tmp_path / "run", workers=0))
    assert "the largest tensor is 4 x " in str(caught.value)
    assert all(
        remedy in str(caught.value) for remedy in ("`optim.accumulate`", "`data.crop`", "`optim.precision` to bfloat16")
    )


def test_real_exhaustion_of_memory_is_reported(warm, tmp_path):
    words = ["train", "toy", "--data.crop", "512", "512", "--data.batch", "8", "--device", "cpu", "--workers", "0"]
    words += ["--out", str(tmp_path / "run")]
    program = warm.start(command_in_little_memory, 300, *words, errors=tmp_path / "errors")
    assert program.wait() == 2, program.stderr()[-2000:]
    assert "error: --data.crop: out of memory: 8 crops of 512 x 512 need about" in program.stderr()
    assert "Traceback" not in program.stderr()


def test_nondeterministic_operation_is_named(recipe, tmp_path, monkeypatch):
    def refuse(*_):
        raise RuntimeError(
            "upsample_bilinear2d_backward_out_cuda does not have a deterministic implementation, but ..."
        )

    monkeypatch.setattr(loop, "compute_gradients", refuse)
    with pytest.raises(InputError, match=r"deterministic: upsample_bilinear2d_backward_out_cuda has no deterministic"):
        train(recipe, RunOptions(tmp_path / "run", workers=0, deterministic=True))


@pytest.mark.parametrize("before", [False, True])
def test_deterministic_mode_ends_with_the_run(recipe, tmp_path, before):
    torch.use_deterministic_algorithms(before, warn_only=before)
    train(recipe, RunOptions(tmp_path / "run", workers=0, deterministic=True))
    assert torch.are_deterministic_algorithms_enabled() == before
    assert torch.is_deterministic_algorithms_warn_only_enabled() == before


def test_deterministic_runs_are_equal_to_the_bit(recipe, tmp_path):
    for name in ("one", "two"):
        train(recipe, RunOptions(tmp_path / name, workers=0, deterministic=True))
    one, two = (checkpoint.newest(tmp_path / name) for name in ("one", "two"))
    for key in ("network", "average"):
        for name, tensor in one[key].items():
            assert torch.equal(tensor, two[key][name]), name


@pytest.fixture(autouse=True)
def nondeterministic_afterwards():
    yield
    torch.use_deterministic_algorithms(False)
