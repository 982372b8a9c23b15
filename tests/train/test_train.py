"""Training: exact resuming, accumulation, learning rate, run folders and checkpoints."""

import csv
import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from run_states import assert_equal, state_of

import danet
from danet import InputError, recipes
from danet.data import registry
from danet.data.classes import Classes
from danet.data.datasets import synthetic
from danet.data.samples import Sample
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import evaluate
from danet.model.baselines import build_network
from danet.model.loss import multi_loss
from danet.predict.protocols import WHOLE
from danet.recipes import Recipe
from danet.train import adapt, build, checkpoint, distributed, loop, run_folder, scale, schedule, validate
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.train.schedule import learning_rate
from danet.train.skipped import SkippedImages
from danet.weights import file as weights_file

WB = ("weight", "bias")


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})


@pytest.fixture
def no_final_page(monkeypatch):
    """Leave out the page at the end of each run, which takes longer than these runs."""
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)


@pytest.fixture
def recipe() -> Recipe:
    """Return a recipe of 6 steps, 2 per epoch, with everything random enabled."""
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64), jitter=0.2)
    network = replace(recipes.TOY.network, width=16, dropout=0.3)
    return replace(
        recipes.TOY, data=small, network=network, optim=replace(recipes.TOY.optim, epochs=3, ema=0.8), validate_every=2
    )


def test_run_folder_has_all_to_use_evaluate_and_repeat_the_run(recipe, tmp_path):
    run = tmp_path / "run"
    result = train(recipe, RunOptions(run, workers=0))
    assert {path.name for path in run.iterdir()} == {
        "recipe.yaml",
        "environment.json",
        "metrics.csv",
        "last.ckpt",
        "previous.ckpt",
        "best.safetensors",
        "report.html",
        "batch.jpg",
        "class_pixels.json",
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


def test_fine_tuning_starts_from_the_given_weights(recipe, tmp_path):
    classes = registry.load("toy", None, "train").classes
    network, card = loop.build(replace(recipe, seed=5), classes)
    weights_file.save(tmp_path / "w.safetensors", network, card)
    tuned, _ = loop.build(recipe, classes, initial_weights=tmp_path / "w.safetensors")
    assert all(torch.equal(a, tuned.state_dict()[key]) for key, a in network.state_dict().items())
    narrower = replace(recipe, network=replace(recipe.network, width=8))
    with pytest.raises(InputError, match="does not match the network"):
        loop.build(narrower, classes, initial_weights=tmp_path / "w.safetensors")
    recipe = replace(recipe, fine_tunes="voc-danet101")
    loop.build(recipe, classes, initial_weights=tmp_path / "w.safetensors")
    loop.build(recipe, classes, fresh=False)  # a resumed run has its weights in the checkpoint
    with pytest.raises(InputError, match=r"^initial_weights: missing, but .* fine-tunes .* voc-danet101; specify"):
        loop.build(recipe, classes)


def test_outputs_of_known_classes_are_kept_and_others_are_new(recipe, tmp_path):
    toy = registry.load("toy", None, "train").classes
    network, card = loop.build(replace(recipe, seed=5), toy)
    weights_file.save(tmp_path / "w.safetensors", network, card)
    own = Classes(("kangaroo", toy.names[3], toy.names[0]), toy.palette[:3])
    fresh, _ = loop.build(recipe, own)
    tuned, _ = loop.build(recipe, own, initial_weights=tmp_path / "w.safetensors")
    old, new, found = (net.state_dict() for net in (network, fresh, tuned))
    layers = {f"{name}.1.{kind}" for name in ("classifier", "position_classifier", "channel_classifier") for kind in WB}
    for key, tensor in found.items():
        if key in layers:
            assert torch.equal(tensor, torch.stack([new[key][0], old[key][3], old[key][0]])), key
        else:
            assert torch.equal(tensor, old[key]), key


def test_initial_weights_bring_their_network_and_normalization(recipe, tmp_path, capsys):
    toy = registry.load("toy", None, "train").classes
    wide = replace(
        recipe,
        network=replace(recipe.network, width=24, decoder=True, output_stride=16),
        data=replace(recipe.data, mean=(0.5,) * 3, std=(0.25,) * 3),
    )
    network, card = loop.build(wide, Classes(("a", *toy.names[1:]), toy.palette))
    weights_file.save(tmp_path / "w.safetensors", network, card)
    short = replace(recipe, optim=replace(recipe.optim, steps=1, epochs=1))
    train(short, RunOptions(tmp_path / "run", initial_weights=tmp_path / "w.safetensors", workers=0))
    err = capsys.readouterr().err
    assert (
        f"initial weights {tmp_path / 'w.safetensors'}: network.output_stride, network.width, network.decoder, "
        f"data.mean, data.std taken from them; the outputs of {toy.names[0]} are new" in err
    )
    assert run_folder.read_recipe(tmp_path / "run") == replace(short, network=wide.network, data=wide.data)


def test_initial_weights_bring_their_backbone_if_shapes_are_equal(recipe, tmp_path):
    pads_unlike, own = "tf_mobilenetv3_small_075", "mobilenetv3_small_075"
    first, second = (replace(recipe, network=replace(recipe.network, backbone=name)) for name in (pads_unlike, own))
    path = tmp_path / "w.safetensors"
    network, card = loop.build(first, registry.load("toy", None, "train").classes)
    weights_file.save(path, network, card)
    assert build.with_network_of(second, path) == (first, ["network.backbone"])
    assert card.mean == (0.5,) * 3
    weights_file.save(path, network, replace(card, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))
    changed, names = build.with_network_of(second, path)
    assert names == ["network.backbone", "data.mean", "data.std"]
    assert (changed.network, changed.data.mean) == (first.network, (0.485, 0.456, 0.406))


def test_initial_weights_of_another_function_are_noted(recipe, tmp_path, capsys):
    toy = registry.load("toy", None, "train").classes
    other = replace(recipe, network=replace(recipe.network, channel_form="paper", align_corners=True))
    path, process = tmp_path / "w.safetensors", distributed.start("cpu")
    weights_file.save(path, *loop.build(other, toy))
    note = "trained with `network.align_corners` True, `network.channel_form` paper, unlike this run"
    for kept, expected in ((other, ""), (recipe, f"initial weights {path}: {note}\n")):
        assert adapt.start_from(path, kept, toy, process) == kept
        assert capsys.readouterr().err == expected


def test_initial_weights_may_get_a_finer_decoder(recipe, no_final_page, tmp_path, capsys):
    coarse = replace(recipe, network=replace(recipe.network, decoder=True, output_stride=16))
    classes = registry.load("toy", None, "train").classes
    network, card = loop.build(coarse, classes)
    del card.network["decoder_stride"]  # as written by older versions
    path = tmp_path / "w.safetensors"
    weights_file.save(path, network, card)
    assert build.with_network_of(recipe, path)[0].network == coarse.network
    finer = replace(coarse, network=replace(coarse.network, decoder_stride=2), optim=replace(recipe.optim, steps=1))
    changed, names = build.with_network_of(finer, path)
    assert (changed, names) == (finer, [])
    loaded = loop.build(finer, classes, initial_weights=path)[0].state_dict()
    before = network.state_dict()
    new = {key for key in loaded if key not in before or loaded[key].shape != before[key].shape}
    assert {key.split(".")[0] for key in new} == {"decoder", "classifier"}
    assert all(torch.equal(loaded[key], before[key]) for key in loaded.keys() - new)
    train(finer, RunOptions(tmp_path / "run", initial_weights=path, workers=0))
    assert "the decoder's part at stride 2 and the classifier are new" in capsys.readouterr().err


def test_default_names_the_bundled_weights_as_initial_ones(recipe):
    changed, names = build.with_network_of(recipe, Path("default"))
    assert changed.network.backbone == danet.load().card.network["backbone"]
    assert "network.backbone" in names
    loop.build(changed, registry.load("toy", None, "train").classes, initial_weights=Path("default"))


@pytest.mark.parametrize("part", ["backbone", "features"])
def test_frozen_parts_keep_weights_and_statistics(recipe, part, no_final_page, tmp_path):
    frozen = replace(recipe, optim=replace(recipe.optim, freeze=part, steps=2, ema=0.0, weight_decay=0.1))
    samples = registry.load("toy", None, "train")
    before = {key: tensor.clone() for key, tensor in loop.build(frozen, samples.classes)[0].state_dict().items()}
    train(frozen, RunOptions(tmp_path / "run", workers=0))
    after = checkpoint.newest(tmp_path / "run")["network"]
    changed = {key for key, tensor in after.items() if not torch.equal(tensor, before[key])}
    if part == "backbone":
        assert not any(key.startswith("backbone.") for key in changed)
        assert {"position.reduce.1.running_mean", "position.attention.value.weight", "classifier.1.weight"} <= changed
    else:
        layers = ("classifier", "position_classifier", "channel_classifier")
        assert changed == {f"{name}.1.{kind}" for name in layers for kind in WB}


@pytest.mark.parametrize("architecture", ["danet", "encnet", "ocrnet", "bisenet", "gcnet"])
def test_layers_that_output_classes_are_trained_if_features_are_frozen(architecture):
    own = {"architecture": architecture, "backbone": "test_resnet", "width": 16, "auxiliary": architecture != "encnet"}
    network = build_network(num_classes=3, **own)
    schedule.freeze(network, "features", weights_file.class_layers(own | {"num_classes": 3}))
    schedule.set_training_mode(network, "features")
    labels = torch.randint(3, (2, 64, 64))
    multi_loss(network(torch.randn(2, 3, 64, 64)), labels)[0].backward()
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert len(trained) > 2
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []


def test_losses_of_a_validation_are_means_over_the_steps_with_labels():
    state = checkpoint.TrainingState()
    state.losses = [{"total": 3.0, "fused": 2.0}, {"total": 0.0, "fused": 0.0}, {"total": 1.0, "fused": 0.0}]
    state.add_validation(3, 1, 0.1, Confusion(2), torch.nn.Identity(), {}, {})
    assert (state.history[0]["loss_total"], state.history[0]["loss_fused"]) == (2.0, 1.0)
    state.losses = [{"total": 0.0, "fused": 0.0}]
    state.add_validation(4, 1, 0.1, Confusion(2), torch.nn.Identity(), {}, {})
    assert math.isnan(state.history[1]["loss_total"])


class StoppedError(Exception):
    pass


@pytest.mark.usefixtures("no_final_page")
@pytest.mark.parametrize("stop", [1, 3, 5])
@pytest.mark.parametrize("workers", [0, 2])
def test_resumed_run_equals_uninterrupted(recipe, tmp_path, monkeypatch, stop, workers):
    train(recipe, RunOptions(tmp_path / "whole", workers=0))
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
        train(recipe, RunOptions(tmp_path / "cut", workers=workers, checkpoint_seconds=0))
    monkeypatch.setattr(loop, "compute_gradients", compute_gradients)
    torch.manual_seed(99)
    assert state_of(tmp_path / "cut")["step"] == stop
    train(recipe, RunOptions(tmp_path / "cut", workers=2 - workers), resume=True)
    assert_equal(state_of(tmp_path / "cut"), state_of(tmp_path / "whole"))
    assert (tmp_path / "cut/metrics.csv").read_text().count("\n") == 3


def test_resuming_a_finished_run_changes_nothing(recipe, tmp_path, capsys):
    first = train(recipe, RunOptions(tmp_path / "run", workers=0))
    before = state_of(tmp_path / "run")
    assert train(recipe, RunOptions(tmp_path / "run", workers=0), resume=True).miou == first.miou
    assert_equal(state_of(tmp_path / "run"), before)
    assert re.search(r"run: all \d+ steps are done; only the report is made again\n", capsys.readouterr().err)


@pytest.mark.usefixtures("no_final_page")
def test_resuming_with_other_images_or_fewer_steps_is_an_error(recipe, tmp_path, monkeypatch):
    train(recipe, RunOptions(tmp_path / "run", workers=0))
    before = state_of(tmp_path / "run")
    shorter = replace(recipe, optim=replace(recipe.optim, epochs=1))
    with pytest.raises(InputError, match=r"optim\.epochs is 1, but the run started with 3; restore it"):
        train(shorter, RunOptions(tmp_path / "run", workers=0), resume=True)
    monkeypatch.setitem(synthetic.COUNTS, "train", 12)
    with pytest.raises(InputError, match="the run started with 10 training images, but there are 12 now"):
        train(recipe, RunOptions(tmp_path / "run", workers=0), resume=True)
    assert_equal(state_of(tmp_path / "run"), before)


@pytest.mark.usefixtures("no_final_page")
@pytest.mark.parametrize("align_corners", [False, True])
def test_validation_equals_evaluate(recipe, tmp_path, align_corners):
    changed = replace(recipe.network, align_corners=align_corners)
    changed = replace(recipe, network=changed, data=replace(recipe.data, size=160))
    train(changed, RunOptions(tmp_path / "run", workers=0))
    predictor, samples = danet.load(tmp_path / "run/best.safetensors"), registry.load("toy", None, "val")
    network, card = weights_file.load(tmp_path / "run/best.safetensors")
    validated = validate.validate(network, card, samples, distributed.start("cpu"))
    protocol = predictor.resolve_protocol(WHOLE)
    evaluated = evaluate(predictor.logits, card, samples, predictor.device, protocol=protocol)
    assert np.abs(validated.matrix - evaluated.matrix).sum() <= 2  # only the predictor folds batch normalization


def test_ctrl_c_saves_and_says_how_to_continue(tmp_path):
    """In a real process; test_resume.py covers SIGTERM, any moment, and resuming."""
    run = tmp_path / "my run"
    small = ["--data.batch", "4", "--data.crop", "64", "64", "--network.width", "16"]
    command = [sys.executable, "-m", "danet", "train", "toy", *small, "--out", str(run), "--device", "cpu"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while not (run / checkpoint.LAST).exists():
        assert process.poll() is None
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error.splitlines()[-1] == f"stopped; continue with: danet train --resume '{run}'"
    assert "Traceback" not in error
    assert state_of(run)["step"] >= 0
    assert subprocess.run(["pgrep", "-g", str(process.pid)], check=False).returncode == 1  # no orphans


def test_accumulated_parts_have_the_gradient_of_the_whole_batch(recipe, tmp_path):
    """With running moments in batch normalization and without dropout, accumulation must change nothing."""
    network = replace(recipe.network, dropout=0.0, initial_scale=0.5)
    recipe = replace(recipe, network=network, loss=recipes.Loss(attention=0.4))
    samples, process = registry.load("toy", None, "train"), distributed.start("cpu")
    gradients = []
    for parts in (1, 2, 4):
        chosen = replace(recipe, optim=replace(recipe.optim, accumulate=parts))
        network, card = loop.build(chosen, samples.classes, None)
        network.eval()
        batches = list(loop.batches(samples, chosen, process, 0, 1, 0, SkippedImages(tmp_path, 0)))
        assert len(batches) == parts
        batches[0].labels[0] = 255  # parts of unequal numbers of valid pixels
        loss = loop.compute_gradients(network, batches, chosen, card, process)
        gradients.append([loss["total"], *(p.grad.clone() for p in network.parameters())])
    for other in gradients[1:]:
        assert other[0] == pytest.approx(gradients[0][0])
        for a, b in zip(gradients[0][1:], other[1:], strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_learning_rate_is_poly_with_warmup():
    optim = recipes.Optim(lr=0.1, power=0.9, warmup=4)
    assert [learning_rate(optim, step, 100) for step in (0, 4, 50)] == pytest.approx(
        [0.1 / 5, 0.1 * 0.96**0.9, 0.1 * 0.5**0.9]
    )
    assert learning_rate(optim, 99, 100) == pytest.approx(0.1 * 0.01**0.9)


def test_head_learning_rate_keeps_its_factor(recipe):
    recipe = replace(recipe, optim=replace(recipe.optim, head_lr_factor=10.0))
    network, _ = loop.build(recipe, registry.load("toy", None, "train").classes, None)
    optimizer = loop.make_optimizer(network, recipe.optim)
    loop.set_learning_rate(optimizer, 0.02)
    assert [group["lr"] for group in optimizer.param_groups] == [0.02, 0.2]
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    assert all(p.shape != () for p in optimizer.param_groups[0]["params"])  # alpha and beta belong to the head


@pytest.mark.parametrize("algorithm", ["sgd", "adamw"])
def test_attention_has_a_learning_rate_and_decay_of_its_own(recipe, algorithm):
    optim = replace(recipe.optim, head_lr_factor=10.0, attention_lr_factor=3.0, attention_weight_decay=0.0)
    network, _ = loop.build(recipe, registry.load("toy", None, "train").classes, None)
    optimizer = loop.make_optimizer(network, replace(optim, algorithm=algorithm))
    loop.set_learning_rate(optimizer, 0.02)
    groups = optimizer.param_groups
    assert [group["lr"] for group in groups] == pytest.approx([0.02, 0.2, 0.6])
    assert [group["weight_decay"] for group in groups] == [optim.weight_decay, optim.weight_decay, 0]
    names = {id(p): name for name, p in network.named_parameters()}
    assert sorted(names[id(p)] for p in groups[2]["params"]) == [
        "channel.attention.scale",
        *(f"position.attention.{name}" for name in ("key.bias", "key.weight", "query.bias", "query.weight", "scale")),
    ]
    assert sum(len(group["params"]) for group in groups) == len(names)


@pytest.mark.usefixtures("no_final_page")
def test_attention_can_be_held_at_zero_throughout(recipe, tmp_path):
    """The twin trained without attention: same parameters, seed and recipe."""
    twin = replace(recipe, optim=replace(recipe.optim, steps=3, attention_lr_factor=0.0, weight_decay=0.01))
    train(twin, RunOptions(tmp_path / "run", workers=0))
    network = weights_file.load(tmp_path / "run/best.safetensors")[0]
    assert network.position.attention.scale == network.channel.attention.scale == 0


@pytest.mark.usefixtures("no_final_page")
def test_batch_norm_of_the_backbone_can_be_frozen_at_first(recipe, tmp_path):
    states = []
    for epochs in (0, 1):
        frozen = replace(recipe, optim=replace(recipe.optim, steps=2, ema=0.0, frozen_batch_norm=epochs))
        train(frozen, RunOptions(tmp_path / str(epochs), workers=0))
        states.append(state_of(tmp_path / str(epochs))["network"])
    fresh = {key: float(key.endswith("running_var")) for key in states[1] if "running" in key}
    changed = [
        {key.split(".")[0] for key, value in fresh.items() if not (state[key] == value).all()} for state in states
    ]
    assert changed == [{"backbone", "position", "channel"}, {"position", "channel"}]


@pytest.mark.usefixtures("no_final_page")
def test_training_with_decoder_and_attention_loss_can_be_resumed(recipe, tmp_path, monkeypatch):
    network = replace(recipe.network, decoder=True, output_stride=16, initial_scale=0.1)
    optim = replace(recipe.optim, steps=4, algorithm="adamw", lr=0.001)
    chosen = replace(recipe, network=network, optim=optim, loss=recipes.Loss(attention=0.4))
    train(chosen, RunOptions(tmp_path / "whole", workers=0))
    calls = itertools.count()
    compute = loop.compute_gradients

    def stopping(*args):
        if next(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return compute(*args)

    monkeypatch.setattr(loop, "compute_gradients", stopping)
    assert train(chosen, RunOptions(tmp_path / "parts", workers=0)).stopped_by == signal.SIGINT
    train(chosen, RunOptions(tmp_path / "parts", workers=0), resume=True)
    states = [state_of(tmp_path / name)["network"] for name in ("whole", "parts")]
    assert all(torch.equal(*pair) for pair in zip(*(state.values() for state in states), strict=True))
    assert "loss_attention" in (tmp_path / "whole/metrics.csv").read_text().splitlines()[0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_non_finite_loss_stops_before_the_weights_change(recipe, tmp_path, monkeypatch, bad):
    calls = 0

    def poisoned(outputs, *args):
        nonlocal calls
        calls += 1
        total, parts = multi_loss(outputs, *args)
        return (total * bad, parts) if calls == 2 else (total, parts)

    multi_loss = loop.multi_loss
    monkeypatch.setattr(loop, "multi_loss", poisoned)
    with pytest.raises(InputError, match=r"step 1: loss (nan|inf).* on train-0.*; start a new run with a lower `optim"):
        train(recipe, RunOptions(tmp_path / "run", workers=0, checkpoint_seconds=0))
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
def test_unreadable_image_is_named_with_and_without_workers(recipe, tmp_path, monkeypatch, workers):
    broken = Broken(registry.load("toy", None, "train"))
    monkeypatch.setattr(registry, "load", lambda *_: broken)
    with pytest.raises(InputError, match=r"scene-4\.png: truncated or damaged; copy it again"):
        train(recipe, RunOptions(tmp_path / "run", workers=workers))


def test_crop_without_labels_changes_only_moments(recipe, tmp_path, monkeypatch):
    good = registry.load("toy", None, "train")
    empty = Sample("empty", good[0].image, np.full_like(good[0].labels, 255))
    monkeypatch.setattr(type(good), "__getitem__", lambda *_: empty)
    monkeypatch.setattr(loop, "check_labeled", lambda _: None)
    calm = replace(recipe.optim, weight_decay=0.0, ema=0.0, epochs=1)
    result = train(replace(recipe, optim=calm), RunOptions(tmp_path / "run", workers=0))
    assert math.isnan(result.miou)
    fresh, _ = loop.build(recipe, good.classes, None)
    trained = state_of(tmp_path / "run")["network"]
    for name, parameter in fresh.named_parameters():
        assert torch.equal(parameter, trained[name]), name


def test_non_empty_folder_is_an_error_and_left_unchanged(recipe, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"is not empty: it contains notes\.txt; choose another `folder`"):
        train(recipe, RunOptions(tmp_path, workers=0))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    train(replace(recipe, optim=replace(recipe.optim, epochs=1)), RunOptions(tmp_path / "my run", workers=0))
    with pytest.raises(InputError, match=r"continue it with danet train --resume '.*/my run'$"):
        train(recipe, RunOptions(tmp_path / "my run", workers=0))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda b: b[:-1], "damaged"),
        (lambda b: b[:100] + bytes([b[100] ^ 1]) + b[101:], "damaged"),
        (lambda b: b"", "damaged"),
    ],
)
def test_damaged_checkpoint_is_detected(recipe, tmp_path, damage, message):
    checkpoint.save(tmp_path, {"step": 1, "network": {"a": torch.arange(4.0)}})
    content = (tmp_path / "last.ckpt").read_bytes()
    (tmp_path / "last.ckpt").write_bytes(damage(content))
    with pytest.raises(InputError, match=message):
        checkpoint.load(tmp_path / "last.ckpt")


def test_invalid_recipe_yaml_is_an_error_that_names_the_key(recipe, tmp_path):
    run_folder.create(tmp_path, recipe)
    entries = yaml.safe_load((tmp_path / "recipe.yaml").read_text())
    for change, message in [
        ({"optim": {"lerning_rate": 1}}, "unknown key optim.lerning_rate"),
        ({"optim": {"epoch": 1}}, "did you mean optim.epochs?"),
        ({"optim": {"lr": "fast"}}, "optim.lr: must be a number, got 'fast'"),
        ({"data": {"crop": [3]}}, "data.crop: must be a list of 2 numbers, got [3]"),
        ({"network": {"output_stride": True}}, "network.output_stride: must be an integer, got True"),
        ({"class_weights": "some"}, "class_weights: must be none or auto or"),
        ({"data": {"size": "big"}}, "data.size: must be an integer or auto or null, got 'big'"),
        ({"network": None}, "network must have lines of the form key: value"),
    ]:
        (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**entries, **change}))
        with pytest.raises(InputError) as error:
            run_folder.read_recipe(tmp_path)
        assert message in str(error.value)


def test_recipe_yaml_accepts_numbers_like_1e_3(recipe, tmp_path):
    """In YAML 1.1, 1e-3 is text."""
    run_folder.create(tmp_path, recipe)
    text = (tmp_path / "recipe.yaml").read_text()
    (tmp_path / "recipe.yaml").write_text(re.sub(r"\n  lr: .*", "\n  lr: 1e-3", text))
    assert run_folder.read_recipe(tmp_path).optim.lr == 1e-3


@pytest.mark.parametrize(
    ("group", "change", "message"),
    [
        ("data", {"batch": 0}, "data.batch: must be at least 1, got 0; for example, use 8"),
        ("data", {"crop": (64, 0)}, "^data.crop: must be "),
        ("data", {"scale": (2.0, 1.0)}, "^data.scale: must be "),
        ("data", {"gamma": (2.0, 0.5)}, "^data.gamma: must be "),
        ("data", {"size": 9000}, "data.size: must be from 32 to 4096 pixels, got 9000"),
        ("network", {"width": 0}, "network.width: must be from 8 to 4096, got 0"),
        ("optim", {"lr": float("nan")}, "optim.lr: must be a number above 0, got nan"),
        ("optim", {"lr": -1.0}, "^optim.lr: must be "),
        ("optim", {"accumulate": 3}, "data.batch: 4 cannot be divided by `optim.accumulate` 3; use a multiple of 3"),
        ("optim", {"ema": 1.0}, "^optim.ema: must be "),
        ("loss", {"attention": -1.0}, "loss.attention: must be 0 or more"),
        ("data", {"std": (0.0,)}, "data.std: must be above 0"),
    ],
)
def test_invalid_values_are_named_by_their_parameter(recipe, group, change, message):
    with pytest.raises(InputError, match=message):
        recipes.check(replace(recipe, **{group: replace(getattr(recipe, group), **change)}))


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_every_recipe_can_be_built_and_saved(name):
    recipe = recipes.find(name)
    recipes.check(recipe)
    assert recipes.from_dict(yaml.safe_load(yaml.safe_dump(recipes.to_dict(recipe))), name) == recipe
    recipe = replace(recipe, network=replace(recipe.network, pretrained=False), fine_tunes="")
    with torch.device("meta"):
        loop.build(scale.with_size(recipe, None), registry.DATASETS["toy"].classes, None)


def test_weight_average_soon_forgets_the_first_weights():
    network, values = torch.nn.Linear(1, 1, bias=False), np.random.default_rng(0).normal(size=40)
    average, expected = loop._average(network, 0.7), 0.0
    for step, value in enumerate(values):
        network.weight.data.fill_(value)
        average.update_parameters(network)
        decay = min(0.7, (1 + step) / (10 + step))
        expected = value if step == 0 else decay * expected + (1 - decay) * value
        assert average.module.weight.item() == pytest.approx(expected, abs=1e-6)
    assert loop._average(network, 0.0) is None
