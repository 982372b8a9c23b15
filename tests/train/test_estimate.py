"""danet.train.estimate and dry_run: the cost of a step before it runs; danet train --dry-run; danet recipes."""

from dataclasses import replace

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from danet import DANet, recipes
from danet.cli import main
from danet.data.registry import DATASETS
from danet.model.loss import multi_loss
from danet.recipes import MEMORY, Data, Network, Optim, Recipe
from danet.train.estimate import estimate

TINY = Recipe(
    network=Network("test_resnet", width=16, pretrained=False), data=Data(crop=(64, 96)), optim=Optim(ema=0.9)
)


def test_the_estimate_counts_what_a_real_step_keeps():
    network = DANet(5, "test_resnet", width=16)
    own = {tensor.data_ptr() for tensor in network.state_dict(keep_vars=True).values()}
    kept: dict[int, int] = {}
    alive = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.data_ptr() not in own:
            alive.append(tensor)
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    labels = torch.zeros(4, 64, 96, dtype=torch.int64)
    with saved_tensors_hooks(note, lambda tensor: tensor):
        multi_loss(network(torch.zeros(4, 3, 64, 96)), labels)
    predicted = estimate(TINY, 5)
    real = sum(kept.values()) + max(kept.values())
    assert 4 * predicted.per_image == pytest.approx(real, rel=0.05)
    parameters = sum(p.numel() for p in network.parameters())
    assert predicted.parameters == parameters
    assert predicted.fixed == 4 * 4 * parameters  # weights, gradients, momentum, moving average
    assert predicted.grid == (8, 12)


def test_no_map_of_n_by_n_is_in_the_estimate():
    sides = [estimate(replace(TINY, data=Data(crop=(side, side))), 5).per_image for side in (512, 1024)]
    assert sides[1] / sides[0] == pytest.approx(4, rel=0.02)  # the map alone would have grown sixteenfold


def test_bf16_needs_less():
    half = replace(TINY, optim=Optim(precision="bf16"))
    assert estimate(half, 5).per_image < 0.8 * estimate(TINY, 5).per_image


@pytest.mark.parametrize("name", ["toy", "camvid"])
def test_the_table_of_memory_is_what_the_estimate_says(name):
    check_row(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(recipes.PUBLISHED))
def test_the_published_rows_of_the_table_too(name):
    check_row(name)


def check_row(name: str) -> None:
    recipe = recipes.find(name)
    cost = estimate(recipe, len(DATASETS[recipe.data.dataset].classes))
    assert MEMORY[name] == (round(cost.fixed / 2**20), pytest.approx(cost.per_image / 2**20, rel=0.02, abs=1))


def test_every_recipe_has_its_memory():
    assert list(MEMORY) == list(recipes.RECIPES)


def test_a_dry_run_prints_the_run_and_leaves_no_folder(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert (
        main(["train", "toy", "--dry-run", "--class-weights", "auto", "--optim.steps", "7", "--data.batch", "8"]) == 0
    )
    said = capsys.readouterr().out
    assert "5000 images to train on, 80 to validate on, 6 classes" in said
    assert "7 of 8 images, 625 an epoch" in said
    assert "N = 432 positions" in said
    assert len(next(line for line in said.splitlines() if line.startswith("class weights")).split()) == 2 + 6
    assert "batch: 8" in said
    assert list(tmp_path.iterdir()) == []


def test_a_published_data_set_need_not_be_there_for_a_dry_run(capsys):
    small = ["--network.backbone", "test_resnet", "--network.layer4-dilations", "None"]
    assert main(["train", "cityscapes-danet101-da-mg", "--dry-run", *small]) == 0
    said = capsys.readouterr().out
    assert "2975 images to train on, 500 to validate on, 19 classes" in said
    assert "as published" in said
    assert "89040 of 8 images, 371 an epoch: 240.0 epochs" in said


def test_a_dry_run_tells_what_would_end_the_run(capsys):
    assert main(["train", "toy", "--dry-run", "--optim.lr-floor", "2"]) == 2
    assert "--optim.lr-floor: 2.0 cannot be" in capsys.readouterr().err
    assert main(["train", "folder", "--dry-run"]) == 2
    assert "--data.root" in capsys.readouterr().err


def test_a_dry_run_looks_at_all_that_the_run_is_given(capsys, tmp_path):
    """And leaves it as it is."""
    tiny = ["train", "toy", "--dry-run", "--network.backbone", "test_resnet", "--network.width", "16"]
    assert main([*tiny, "--out", str(tmp_path / "new" / "run")]) == 0
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("mine")
    (tmp_path / "damaged.safetensors").write_bytes(b"not weights")
    capsys.readouterr()
    for option, what in (
        (["--out", str(tmp_path / "full")], "is not empty: it holds notes.txt"),
        (["--out", str(tmp_path / "full" / "notes.txt" / "run")], "notes.txt is no folder"),
        (["--device", "abacus"], "--device abacus: is no device"),
        (["--backbone-weights", str(tmp_path / "missing.safetensors")], "cannot be read as .safetensors"),
        (["--initial-weights", str(tmp_path / "damaged.safetensors")], "damaged.safetensors"),
        (["--cache", str(tmp_path / "cache")], "synthetic scenes are not read from files"),
    ):
        assert main([*tiny, *option]) == 2
        assert what in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["damaged.safetensors", "full"]


def test_recipes_are_listed_with_steps_images_memory_and_both_numbers(capsys):
    assert main(["recipes"]) == 0
    said = capsys.readouterr().out
    blocks = {block.split("\n")[0]: block for block in said.replace("\n    ", "\n  ").split("\n") if block}
    assert set(recipes.RECIPES) <= set(blocks)
    start = said.index("cityscapes-danet101-da-mg-ms\n")
    assert "240 epochs, 89,040 steps, 2,975 images" in said[start : start + 300]
    assert "mIoU 81.5 in Table 2 of the paper" in said[start : start + 500]
    assert "mIoU 78.74 in mmsegmentation; --protocol mmseg-whole\n" in said
    assert "4.4 GiB for each image" in said


@pytest.mark.parametrize("name", sorted(name for name in recipes.PUBLISHED if name.startswith("mmseg")))
def test_mmsegmentations_rows_have_its_schedule_head_jitter_and_stem(name):
    recipe = recipes.find(name)
    assert recipe.network.auxiliary
    assert recipe.network.backbone.endswith("c")
    assert recipe.network.align_corners == ("769x769" in name)
    assert recipe.optim.steps == 1000 * int(name.rsplit("-", 1)[1].removesuffix("k"))
    assert (recipe.optim.lr, recipe.optim.lr_floor, recipe.optim.weight_decay) == (0.01, 1e-4, 5e-4)
    assert recipe.optim.head_lr_factor == 1
    assert recipe.data.photometric
    assert recipe.data.largest_share == 0.75
    assert recipe.data.train_split in DATASETS[recipe.data.dataset].counts
    assert recipe.loss == (1.0, 1.0, 1.0, 0.4)
