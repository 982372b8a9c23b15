"""Temperature scaling: the best temperature is found, and only the confidences of the best weights change."""

import copy
import csv
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from danet import recipes
from danet.data import registry
from danet.data.datasets import synthetic
from danet.evaluate.cross_entropy import TEMPERATURES, CrossEntropy
from danet.model.baselines import ARCHITECTURES, build_network
from danet.train import checkpoint, distributed, run_folder
from danet.train.calibrate import UNCALIBRATED, divided_logits
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.train.validate import validate
from danet.weights import file as weights_file


@pytest.fixture(autouse=True)
def few_scenes(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})


def small_recipe() -> recipes.Recipe:
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64))
    return replace(recipes.TOY, data=small, optim=replace(recipes.TOY.optim, epochs=4, ema=0.8))


@pytest.mark.parametrize(("factor", "expected"), [(1.0, 1.0), (1.7, 1.7), (0.6, 0.6), (9.0, 4.0), (0.1, 0.5)])
def test_the_temperature_undoes_a_factor_of_the_logits(factor, expected):
    torch.manual_seed(0)
    logits = 2 * torch.randn(5, 400, 400)
    labels = torch.distributions.Categorical(logits=logits.movedim(0, -1)).sample()
    labels[:40] = 255
    loss = CrossEntropy(TEMPERATURES)
    for rows in (slice(0, 100), slice(100, 400)):
        loss.update(factor * logits[:, rows], labels[rows].to(torch.uint8).numpy())
    assert loss.temperature == pytest.approx(expected, rel=0.05)
    whole = F.cross_entropy(factor * logits[None], labels[None], ignore_index=255)
    assert loss.mean == pytest.approx(whole.item(), rel=1e-5)


def test_without_labels_or_with_equal_or_infinite_logits_the_temperature_is_1():
    empty, flat, infinite = (CrossEntropy(TEMPERATURES) for _ in range(3))
    flat.update(torch.zeros(3, 8, 8), torch.zeros(8, 8, dtype=torch.int64).numpy())
    empty.update(torch.randn(3, 8, 8), torch.full((8, 8), 255).numpy())
    infinite.update(torch.full((3, 8, 8), math.inf), torch.zeros(8, 8, dtype=torch.int64).numpy())
    assert [loss.temperature for loss in (empty, flat, infinite, CrossEntropy())] == [1.0] * 4


@pytest.mark.parametrize("architecture", [name for name in ARCHITECTURES if name not in UNCALIBRATED])
def test_logits_of_every_architecture_are_divided_within_the_block(architecture):
    if architecture.startswith("smp:"):
        pytest.importorskip("segmentation_models_pytorch")
    arguments = {"architecture": architecture, "num_classes": 4, "backbone": "test_resnet", "output_stride": 16}
    network = build_network(**arguments, pretrained=False).eval()
    before, images = copy.deepcopy(network.state_dict()), torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        whole = network(images).fused
        with divided_logits(network, weights_file.class_layers(arguments), 2.0):
            torch.testing.assert_close(network(images).fused, whole / 2)
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())


def test_a_calibrated_run_differs_only_in_the_confidences_of_its_best_weights(tmp_path):
    plain = small_recipe()
    for recipe in (plain, replace(plain, calibrate=True)):
        train(recipe, RunOptions(tmp_path / str(recipe.calibrate), workers=0))
    rows = [
        list(csv.DictReader((tmp_path / name / "metrics.csv").read_text().splitlines())) for name in ("False", "True")
    ]
    losses = [[row["validation_loss"] for row in found] for found in rows]
    assert losses[0] == losses[1]
    cards, entropies, matrices = [], [], []
    for name in ("False", "True"):
        network, card = weights_file.load(tmp_path / name / "best.safetensors")
        loss = CrossEntropy(TEMPERATURES)
        samples = registry.load("toy", None, "val")
        matrices.append(validate(network, card, samples, distributed.start("cpu"), loss=loss).matrix)
        cards.append(card)
        entropies.append(loss)
    assert "temperature" not in cards[0].metrics
    notes = [
        re.findall(r"The logits are divided by ([\d.]+), ", (tmp_path / name / "report.html").read_text())
        for name in ("False", "True")
    ]
    assert notes == [[], [f"{cards[1].metrics['temperature']:.3g}"]]
    assert cards[1].metrics["temperature"] == pytest.approx(entropies[0].temperature, rel=1e-3)
    assert abs(cards[1].metrics["temperature"] - 1) > 0.05
    assert entropies[1].temperature == pytest.approx(1, abs=0.02)
    assert entropies[1].mean < entropies[0].mean
    assert abs(matrices[0] - matrices[1]).sum() <= 4  # a pixel between two classes may change
    checkpoints = [checkpoint.newest(tmp_path / name)["network"] for name in ("False", "True")]
    assert all(torch.equal(tensor, checkpoints[1][key]) for key, tensor in checkpoints[0].items())
    tensors = [weights_file.read(tmp_path / name / "best.safetensors")[0] for name in ("False", "True")]
    changed = {key for key, tensor in tensors[0].items() if not torch.equal(tensor, tensors[1][key])}
    assert changed == weights_file.class_layers(cards[0].network)


@pytest.mark.parametrize("architecture", UNCALIBRATED)
def test_networks_with_layers_after_the_class_scores_are_not_calibrated(architecture, tmp_path, capsys):
    recipe = small_recipe()
    network = replace(recipe.network, output_stride=16, architecture=architecture)
    run = RunOptions(tmp_path / "run", workers=0)
    train(replace(recipe, network=network, calibrate=True), run)
    assert f"calibrate: off, as {architecture} has other layers" in capsys.readouterr().err
    assert not run_folder.read_recipe(run.folder).calibrate
    initial = run.folder / "best.safetensors"
    assert "temperature" not in weights_file.read(initial)[1].metrics
    train(replace(recipe, calibrate=True), RunOptions(tmp_path / "next", workers=0, initial_weights=initial))
    assert not run_folder.read_recipe(tmp_path / "next").calibrate
