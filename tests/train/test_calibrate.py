"""Temperature scaling: the best temperature is found, and only the confidences of the best weights change."""

import copy
import csv
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from danet import InputError, recipes
from danet.data import registry
from danet.data.datasets import synthetic
from danet.evaluate.cross_entropy import TEMPERATURES, CrossEntropy
from danet.model.baselines import ARCHITECTURES, build_network
from danet.recipes.checks import UNCALIBRATED
from danet.train import distributed
from danet.train.calibrate import divided_logits
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.train.validate import validate
from danet.weights import file as weights_file


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


def test_without_labels_or_with_infinite_logits_the_temperature_is_1():
    empty, infinite = CrossEntropy(TEMPERATURES), CrossEntropy(TEMPERATURES)
    empty.update(torch.randn(3, 8, 8), torch.full((8, 8), 255).numpy())
    infinite.update(torch.full((3, 8, 8), math.inf), torch.zeros(8, 8, dtype=torch.int64).numpy())
    assert [empty.temperature, infinite.temperature, CrossEntropy().temperature] == [1.0] * 3


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


def test_a_calibrated_run_differs_only_in_the_confidences_of_its_best_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 10, "val": 3})
    small = replace(recipes.TOY.data, batch=4, crop=(64, 64))
    plain = replace(recipes.TOY, data=small, optim=replace(recipes.TOY.optim, epochs=4, ema=0.8))
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
    assert (matrices[0] != matrices[1]).mean() < 0.2  # a pixel between two classes may change


@pytest.mark.parametrize("architecture", UNCALIBRATED)
def test_networks_with_layers_after_the_class_scores_cannot_be_calibrated(architecture):
    network = replace(recipes.TOY.network, architecture=architecture)
    with pytest.raises(InputError, match="calibrate: must be off for fcn8s and ocrnet"):
        recipes.check(replace(recipes.TOY, network=network, calibrate=True))
