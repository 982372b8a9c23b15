"""The training run: exact resuming, accumulation, several processes, accidents."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import yaml
from run_states import assert_equal, state_of
from torch import nn

import danet
from danet import InputError, recipes
from danet.data import registry
from danet.data.datasets import synthetic
from danet.data.samples import Sample
from danet.evaluate.evaluation import evaluate
from danet.predict.protocols import WHOLE
from danet.recipes import Recipe
from danet.train import checkpoint, distributed, loop, run_folder, validate
from danet.train.loop import Where, train
from danet.train.quarantine import Quarantine
from danet.train.schedule import learning_rate
from danet.weights import file as weights_file


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})


@pytest.fixture
def recipe() -> Recipe:
    """A run of 6 steps, 2 an epoch, in which everything that could be random is on."""
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64), jitter=0.2)
    network = replace(recipes.TOY.network, width=16, dropout=0.3)
    return replace(
        recipes.TOY, data=small, network=network, optim=replace(recipes.TOY.optim, epochs=3, ema=0.8), validate_every=2
    )


def test_a_run_leaves_what_is_needed_to_use_judge_and_repeat_it(recipe, tmp_path):
    run = tmp_path / "run"
    result = train(recipe, Where(run, workers=0))
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "environment.json",
        "metrics.csv",
        "last.ckpt",
        "previous.ckpt",
        "best.safetensors",
        "report.html",
    }
    assert run_folder.read_recipe(run) == recipe
    rows = list(csv.DictReader((run / "metrics.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["2", "3"]
    assert result.miou == pytest.approx(max(float(row["miou"]) for row in rows))
    assert "torch" in json.loads((run / "environment.json").read_text())["packages"]
    network, card = weights_file.load(run / "best.safetensors")
    assert card.dataset == "toy"
    assert card.metrics["miou"] == pytest.approx(result.miou)
    assert recipes.from_dict(card.recipe, "card") == recipe
    samples = registry.load("toy", None, "val")
    again = validate.validate(network, card, samples, distributed.start("cpu")).scores()
    assert again.miou == pytest.approx(result.miou)
    page = (run / "report.html").read_text()
    assert page.count("<svg") >= 4  # losses, learning rate, mIoU, scales
    assert all(name in page for name in samples.classes.names)


def test_fine_tuning_begins_from_the_given_weights(recipe, tmp_path):
    classes = registry.load("toy", None, "train").classes
    network, card = loop.build(replace(recipe, seed=5), classes)
    weights_file.save(tmp_path / "w.safetensors", network, card)
    begun, _ = loop.build(recipe, classes, initial_weights=tmp_path / "w.safetensors")
    assert all(torch.equal(a, begun.state_dict()[key]) for key, a in network.state_dict().items())
    narrower = replace(recipe, network=replace(recipe.network, width=8))
    with pytest.raises(InputError, match="does not match the network"):
        loop.build(narrower, classes, initial_weights=tmp_path / "w.safetensors")
    tuned = replace(recipe, fine_tunes="voc-danet101")
    loop.build(tuned, classes, initial_weights=tmp_path / "w.safetensors")
    loop.build(tuned, classes, fresh=False)  # a run that goes on has its weights
    with pytest.raises(InputError, match=r"--initial-weights: missing: this recipe begins with .* voc-danet101; give"):
        loop.build(tuned, classes)


class StoppedError(Exception):
    pass


@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_an_interrupted_run_ends_with_the_weights_of_the_uninterrupted_one(
    recipe, tmp_path, monkeypatch, stop, workers
):
    train(recipe, Where(tmp_path / "whole", workers=0))
    steps = 0

    def stopping(*args):
        nonlocal steps
        steps += 1
        if steps > stop:
            raise StoppedError
        return compute_gradients(*args)

    compute_gradients = loop.compute_gradients
    monkeypatch.setattr(loop, "compute_gradients", stopping)
    with pytest.raises(StoppedError):
        train(recipe, Where(tmp_path / "cut", workers=workers, checkpoint_seconds=0))
    monkeypatch.setattr(loop, "compute_gradients", compute_gradients)
    torch.manual_seed(99)
    assert state_of(tmp_path / "cut")["step"] == stop
    train(recipe, Where(tmp_path / "cut", workers=2 - workers), resume=True)
    assert_equal(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert (tmp_path / "cut/metrics.csv").read_text().count("\n") == 3


def test_a_finished_run_resumed_is_left_as_it_is(recipe, tmp_path):
    first = train(recipe, Where(tmp_path / "run", workers=0))
    before = state_of(tmp_path / "run")
    assert train(recipe, Where(tmp_path / "run", workers=0), resume=True).miou == first.miou
    assert_equal(state_of(tmp_path / "run"), before)


def test_a_run_is_not_resumed_on_other_images_or_for_less_than_it_has_done(recipe, tmp_path, monkeypatch):
    train(recipe, Where(tmp_path / "run", workers=0))
    before = state_of(tmp_path / "run")
    shorter = replace(recipe, optim=replace(recipe.optim, epochs=1))
    with pytest.raises(InputError, match=r"is at step 6 of 2; give recipe\.yaml its number of epochs back"):
        train(shorter, Where(tmp_path / "run", workers=0), resume=True)
    monkeypatch.setitem(synthetic.COUNTS, "train", 12)
    with pytest.raises(InputError, match="began with 10 training images, and there are 12 now"):
        train(recipe, Where(tmp_path / "run", workers=0), resume=True)
    assert_equal(state_of(tmp_path / "run"), before)


@pytest.mark.parametrize("align_corners", [False, True])
def test_validation_gives_the_predictions_of_evaluate(recipe, tmp_path, align_corners):
    changed = replace(recipe.network, align_corners=align_corners)
    changed = replace(recipe, network=changed, data=replace(recipe.data, size=150))
    train(changed, Where(tmp_path / "run", workers=0))
    predictor, samples = danet.load(tmp_path / "run/best.safetensors"), registry.load("toy", None, "val")
    network, card = weights_file.load(tmp_path / "run/best.safetensors")
    validated = validate.validate(network, card, samples, distributed.start("cpu"))
    shown = predictor.resolve_protocol(WHOLE)
    evaluated = evaluate(predictor.logits, card, samples, predictor.device, protocol=shown)
    assert np.abs(validated.matrix - evaluated.matrix).sum() <= 2  # batch normalization is folded in one of them


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_saves_and_says_how_to_go_on(tmp_path, number, status):
    run = tmp_path / "run"
    command = [sys.executable, "-m", "danet", "train", "toy", "--out", str(run), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (run / checkpoint.LAST).exists():
        assert process.poll() is None
    os.killpg(process.pid, number)
    _, error = process.communicate(timeout=60)
    assert process.returncode == status
    assert error.splitlines()[-1] == f"stopped; go on with: danet train --resume {run}"
    assert "Traceback" not in error
    assert state_of(run)["step"] >= 0
    assert subprocess.run(["pgrep", "-g", str(process.pid)], check=False).returncode == 1  # no orphans


def test_parts_of_a_batch_have_the_gradient_of_the_whole(recipe, tmp_path):
    """With batch normalization at its running moments and no dropout, accumulation changes nothing."""
    recipe = replace(recipe, network=replace(recipe.network, dropout=0.0))
    samples, process = registry.load("toy", None, "train"), distributed.start("cpu")
    gradients = []
    for parts in (1, 2, 4):
        chosen = replace(recipe, optim=replace(recipe.optim, accumulate=parts))
        network, card = loop.build(chosen, samples.classes, None)
        network.train = lambda _mode=True, network=network: nn.Module.train(network, False)  # pyright: ignore
        batches = list(loop.batches(samples, chosen, process, 0, 1, 0, Quarantine(tmp_path, 0)))
        assert len(batches) == parts
        batches[0].labels[0] = 255  # parts of unequal numbers of valid pixels
        loss = loop.compute_gradients(network, batches, chosen, card, process)
        gradients.append([loss["total"], *(p.grad.clone() for p in network.parameters())])
    for other in gradients[1:]:
        assert other[0] == pytest.approx(gradients[0][0])
        for a, b in zip(gradients[0][1:], other[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_the_learning_rate_is_poly_with_warm_up():
    optim = recipes.Optim(lr=0.1, power=0.9, warmup=4)
    assert [learning_rate(optim, step, 100) for step in (0, 4, 50)] == pytest.approx(
        [0.1 / 5, 0.1 * 0.96**0.9, 0.1 * 0.5**0.9]
    )
    assert learning_rate(optim, 99, 100) == pytest.approx(0.1 * 0.01**0.9)


def test_the_heads_learning_rate_keeps_its_factor(recipe):
    recipe = replace(recipe, optim=replace(recipe.optim, head_lr_factor=10.0))
    network, _ = loop.build(recipe, registry.load("toy", None, "train").classes, None)
    optimizer = loop.make_optimizer(network, recipe.optim)
    loop.set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.2]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    assert all(p.shape != () for p in optimizer.param_groups[0]["params"])  # alpha and beta are the head's


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(recipe, tmp_path, monkeypatch, bad):
    calls = 0

    def poisoned(outputs, *args):
        nonlocal calls
        calls += 1
        total, parts = multi_loss(outputs, *args)
        return (total * bad, parts) if calls == 2 else (total, parts)

    multi_loss = loop.multi_loss
    monkeypatch.setattr(loop, "multi_loss", poisoned)
    with pytest.raises(InputError, match=r"step 1: loss (nan|inf).* on train-0.*; lower --optim\.lr"):
        train(recipe, Where(tmp_path / "run", workers=0, checkpoint_seconds=0))
    state = state_of(tmp_path / "run")
    assert state["step"] == 1
    assert all(tensor.isfinite().all() for tensor in state["network"].values())


class Broken:
    """Samples of which one cannot be read."""

    def __init__(self, good):
        self.good, self.classes, self.bands = good, good.classes, good.bands

    def __len__(self) -> int:
        return len(self.good)

    def __getitem__(self, index: int) -> Sample:
        if index == 4:
            raise InputError("scene-4.png", "truncated or damaged", "copy it again")
        return self.good[index]

    def labels(self, index: int) -> np.ndarray:
        return self.good.labels(index)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_named_whichever_process_met_it(recipe, tmp_path, monkeypatch, workers):
    broken = Broken(registry.load("toy", None, "train"))
    monkeypatch.setattr(registry, "load", lambda *_: broken)
    with pytest.raises(InputError, match=r"scene-4\.png: truncated or damaged; copy it again"):
        train(recipe, Where(tmp_path / "run", workers=workers))


def test_a_crop_with_nothing_to_learn_changes_nothing_but_moments(recipe, tmp_path, monkeypatch):
    good = registry.load("toy", None, "train")
    empty = Sample("empty", good[0].image, np.full_like(good[0].labels, 255))
    monkeypatch.setattr(type(good), "__getitem__", lambda *_: empty)
    monkeypatch.setattr(loop, "check_labeled", lambda _: None)
    calm = replace(recipe.optim, weight_decay=0.0, ema=0.0, epochs=1)
    result = train(replace(recipe, optim=calm), Where(tmp_path / "run", workers=0))
    assert math.isnan(result.miou)
    fresh, _ = loop.build(recipe, good.classes, None)
    trained = state_of(tmp_path / "run")["network"]
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, trained[name]), name


def test_a_folder_that_holds_something_is_never_written_to(recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty: it holds notes\.txt; give --out a new folder"):
        train(recipe, Where(tmp_path, workers=0))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    train(replace(recipe, optim=replace(recipe.optim, epochs=1)), Where(tmp_path / "run", workers=0))
    with pytest.raises(InputError, match=r"go on with danet train --resume"):
        train(recipe, Where(tmp_path / "run", workers=0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "damaged"),
        (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], "damaged"),
        (lambda b: b"", "damaged"),
    ],
)
def test_a_damaged_checkpoint_is_noticed(recipe, tmp_path, damage, message):
    checkpoint.save(tmp_path, {"step": 1, "network": {"a": torch.arange(4.0)}})
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(damage(content))
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path / "last.ckpt")


def test_a_resumed_recipe_is_read_with_a_closed_schema(recipe, tmp_path):
    run_folder.create(tmp_path, recipe)
    entries = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    for change, message in [
        ({"optim": {"lerning_rate": 1}}, "unknown key optim.lerning_rate"),
        ({"optim": {"epoch": 1}}, "did you mean optim.epochs?"),
        ({"optim": {"lr": "fast"}}, "optim.lr: must be a number, got 'fast'"),
        ({"data": {"crop": [3]}}, "data.crop: must be a list of 2 numbers, got [3]"),
        ({"network": {"output_stride": True}}, "network.output_stride: must be an integer, got True"),
        ({"class_weights": "some"}, "class_weights: must be none or auto or"),
        ({"data": {"size": "big"}}, "data.size: must be an integer or null, got 'big'"),
        ({"network": None}, "network must have lines of the form key: value"),
    ]:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**entries, **change}))
        with pytest.raises(InputError) as error:
            run_folder.read_recipe(tmp_path)
        assert message in str(error.value)


def test_numbers_are_read_as_people_write_them(recipe, tmp_path):
    """YAML 1.1 takes 1e-3 for text."""
    run_folder.create(tmp_path, recipe)
    text = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(re.sub(r"\n  lr: .*", "\n  lr: 1e-3", text))
    assert run_folder.read_recipe(tmp_path).optim.lr == 1e-3


@pytest.mark.parametrize(
    ("group", "change", "option"),
    [
        ("data", {"batch": 0}, "data.batch: must be a multiple of 1, got 0"),
        ("data", {"crop": (64, 0)}, "--data.crop"),
        ("data", {"scale": (2.0, 1.0)}, "--data.scale"),
        ("data", {"size": 9000}, "data.size: must be from 32 to 8192 pixels, got 9000"),
        ("network", {"width": 0}, "network.width: must be from 8 to 4096, got 0"),
        ("optim", {"lr": float("nan")}, "optim.lr: must be a number above 0, got nan"),
        ("optim", {"lr": -1.0}, "--optim.lr"),
        ("optim", {"accumulate": 3}, "data.batch: must be a multiple of 3, got 4"),
        ("optim", {"ema": 1.0}, "--optim.ema"),
    ],
)
def test_values_that_cannot_be_are_named_by_their_option(recipe, group, change, option):
    with pytest.raises(InputError, match=option):
        recipes.check(replace(recipe, **{group: replace(getattr(recipe, group), **change)}))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_can_be_built_and_written_down(name):
    recipe = recipes.find(name)
    recipes.check(recipe)
    assert recipes.from_dict(yaml.safe_load(yaml.safe_dump(recipes.to_dict(recipe))), name) == recipe
    recipe = replace(recipe, network=replace(recipe.network, pretrained=False), fine_tunes="")
    with torch.device("meta"):
        loop.build(recipe, registry.DATASETS["toy"].classes, None)
