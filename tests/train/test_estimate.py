"""danet.train.estimate and dry_run: the cost of a step before it runs; danet train --dry-run."""

from dataclasses import asdict, replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from danet import DANet
from danet.cli import main
from danet.data.datasets import synthetic
from danet.model.loss import multi_loss
from danet.recipes import Criterion, Data, Network, Optim, Recipe
from danet.train.estimate import estimate

TINY = Recipe(
    network=Network("test_resnet", width=16, pretrained=False), data=Data(crop=(64, 96)), optim=Optim(ema=0.9)
)


@pytest.mark.parametrize(
    "criterion", [Criterion(), Criterion(lovasz=1.0), Criterion("focal", dice=1.0, lovasz=0.5), Criterion("ohem")]
)
def test_estimate_equals_what_a_real_step_keeps(criterion):
    network = DANet(5, "test_resnet", width=16)
    own = {tensor.data_ptr() for tensor in network.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            alive.append(tensor)
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    labels = (torch.arange(4 * 64 * 96) % 5).view(4, 64, 96)  # all classes in each image
    with saved_tensors_hooks(note, lambda tensor: tensor):
        multi_loss(network(torch.zeros(4, 3, 64, 96)), labels, criterion=asdict(criterion))
    predicted = estimate(replace(TINY, criterion=criterion), 5)
    real = sum(kept.values()) + max(kept.values())
    assert 4 * predicted.per_image == pytest.approx(real, rel=0.05)
    parameters = sum(p.numel() for p in network.parameters())
    assert predicted.parameters == parameters
    assert predicted.fixed == 4 * 4 * parameters  # weights, gradients, momentum, moving average
    assert predicted.grid == (8, 12)


def test_estimate_grows_linearly_in_the_number_of_positions():
    sides = [estimate(replace(TINY, data=Data(crop=(side, side))), 5).per_image for side in (512, 1024)]
    assert sides[1] / sides[0] == pytest.approx(4, rel=0.02)  # an N x N map would grow sixteenfold


def test_bfloat16_needs_less_memory():
    half = replace(TINY, optim=Optim(precision="bfloat16"))
    assert estimate(half, 5).per_image < 0.8 * estimate(TINY, 5).per_image


def test_dry_run_describes_the_run_and_writes_nothing(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(synthetic.COUNTS, "train", 50)
    assert (
        main(["train", "toy", "--dry-run", "--class-weights", "auto", "--optim.steps", "7", "--data.batch", "8"]) == 0
    )
    output = capsys.readouterr().out
    assert "50 training images, 80 validation images, 6 classes" in output
    assert "7 of 8 images, 6 per epoch: 1.2 epochs" in output
    assert "N = 432 positions" in output
    assert len(next(line for line in output.splitlines() if line.startswith("class weights")).split()) == 2 + 6
    assert "batch: 8" in output
    assert list(tmp_path.iterdir()) == []


def test_dry_run_of_a_published_dataset_needs_no_files(capsys):
    small = ["--network.backbone", "test_resnet", "--network.layer4-dilations", "None"]
    assert main(["train", "cityscapes-danet101-da-mg", "--dry-run", *small]) == 0
    output = capsys.readouterr().out
    assert "2975 training images, 500 validation images, 19 classes" in output
    assert "(published numbers; data.root is not set)" in output
    assert "89040 of 8 images, 371 per epoch: 240.0 epochs" in output


def test_dry_run_reports_what_would_stop_the_run(capsys):
    assert main(["train", "toy", "--dry-run", "--optim.lr-floor", "2"]) == 2
    assert "--optim.lr-floor: must be from 0 to the learning rate, got 2.0" in capsys.readouterr().err
    assert main(["train", "folder", "--dry-run"]) == 2
    assert "--data.root" in capsys.readouterr().err


def test_dry_run_checks_all_options_and_changes_nothing(capsys, tmp_path):
    tiny = ["train", "toy", "--dry-run", "--network.backbone", "test_resnet", "--network.width", "16"]
    assert main([*tiny, "--out", str(tmp_path / "new" / "run")]) == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "damaged.safetensors").write_bytes(b"not weights")
    capsys.readouterr()
    for option, what in (
        (["--out", str(tmp_path / "full")], "is not empty: it contains notes.txt; choose another --out"),
        (["--out", str(tmp_path / "full" / "notes.txt" / "run")], "notes.txt is not a folder"),
        (["--device", "abacus"], "--device: 'abacus' is not available; use 'cpu' or 'cuda'"),
        (
            ["--backbone-weights", str(tmp_path / "missing.safetensors")],
            "missing.safetensors: no such file",
        ),
        (["--initial-weights", str(tmp_path / "damaged.safetensors")], "damaged.safetensors"),
        (["--cache", str(tmp_path / "cache")], "synthetic scenes are not read from files"),
        (["--data.mean", "0.5", "0.5"], "--data.mean: has 2 values, but images have 3 bands"),
    ):
        assert main([*tiny, *option]) == 2
        assert what in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.safetensors", "full"]
