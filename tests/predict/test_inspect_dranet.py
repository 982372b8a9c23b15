"""A DRANet in everything that uses a network: training, prediction, inspection, look, evaluation and the server."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import danet
from danet import DRANet, InputError, recipes
from danet.cli import main
from danet.data import registry
from danet.data.datasets import synthetic
from danet.data.images.channels import resize_long_side
from danet.evaluate.attention_metrics import row_metrics
from danet.model.dranet import CENTERS, center_regions
from danet.model.preprocess import normalize
from danet.predict.predictor import Predictor
from danet.serve import responses
from danet.serve.image_store import StoredImage
from danet.train.estimate import estimate
from danet.train.loop import train
from danet.train.run_folder import RunOptions
from danet.visualize.attention_answers import look_at
from danet.visualize.attention_panels import sheet
from danet.weights import file as weights_file


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """An untrained network with attention that matters."""
    torch.manual_seed(1)
    arguments = {"num_classes": 6, "backbone": "test_resnet", "width": 32, "auxiliary": False, "initial_scale": 1.0}
    network = DRANet(**arguments)
    torch.nn.init.normal_(network.position.attention.key.weight, std=2)
    torch.nn.init.normal_(network.classifier[1].weight, std=3)
    card = weights_file.Card(
        {"architecture": "dranet"} | arguments, registry.DATASETS["toy"].classes, (0.5,) * 3, (0.5,) * 3, size=128
    )
    path = tmp_path_factory.mktemp("weights") / "dranet.safetensors"
    weights_file.save(path, network, card)
    return path


@pytest.fixture(scope="module")
def predictor(weights) -> Predictor:
    return danet.load(weights, "cpu")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return registry.load("toy", None, "val")[0].image


def small_recipe() -> recipes.Recipe:
    """Two steps on synthetic scenes."""
    return replace(
        recipes.TOY,
        network=replace(recipes.TOY.network, architecture="dranet", auxiliary=True, output_stride=16),
        data=replace(recipes.TOY.data, batch=4, crop=(64, 64)),
        optim=replace(recipes.TOY.optim, ema=0.5, attention_lr_factor=2.0),
    )


def test_dranet_is_trained_and_predicts_after_loading(tmp_path, monkeypatch, image):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})
    train(small_recipe(), RunOptions(tmp_path / "run", workers=0))
    header, first = (tmp_path / "run/metrics.csv").read_text().splitlines()[:2]
    shares = dict(zip(header.split(","), first.split(","), strict=True))
    assert 0 < float(shares["attention_own"]) < 1
    predictor = danet.load(tmp_path / "run/best.safetensors", "cpu")
    assert isinstance(predictor.network, DRANet)
    assert predictor.card.network["architecture"] == "dranet"
    assert predictor(image).labels.shape == image.shape[:2]


def test_estimate_counts_a_dranet():
    cost = estimate(small_recipe(), 6)
    network = DRANet(6, "test_resnet", width=64)
    assert cost.parameters == sum(p.numel() for p in network.parameters())
    assert cost.grid == (4, 4)
    assert cost.per_image > 0


def test_folded_network_predicts_the_same(predictor):
    images = torch.randn(1, 3, 64, 80)
    with torch.inference_mode():
        torch.testing.assert_close(
            predictor.logits(images), predictor.network.logits(images).fused, rtol=1e-4, atol=1e-3
        )


def test_inspection_has_the_prediction_and_the_internals(predictor, image):
    inspection, expected = predictor.inspect(image), predictor(image)
    np.testing.assert_allclose(inspection.segmentation.confidence, expected.confidence, atol=1e-4)
    assert (inspection.segmentation.labels == expected.labels).mean() > 0.999
    assert inspection.grid == (-(-inspection.input_size[0] // 8), -(-inspection.input_size[1] // 8))
    assert inspection.internals.scales == {"position": 1.0, "channel": 1.0}
    assert inspection.channel_attention().shape == (32, 2)
    np.testing.assert_allclose(inspection.channel_attention().sum(1), 1, rtol=1e-5)
    assert (inspection.without("position").confidence != expected.confidence).any()
    assert (inspection.without(None).confidence != inspection.without("channel").confidence).any()


def test_attention_divides_the_weights_of_the_centers_among_their_positions(predictor, image):
    inspection = predictor.inspect(image)
    centers, attention = inspection.center_attention(20, 30), inspection.attention(20, 30)
    assert centers.shape == (CENTERS,)
    assert centers.min() >= 0
    assert centers.sum() == pytest.approx(1)
    assert centers.std() > 0
    assert attention.shape == inspection.grid
    assert attention.sum() == pytest.approx(1)
    regions = center_regions(*inspection.grid, torch.zeros(1)).numpy()
    np.testing.assert_allclose(attention.ravel(), centers @ regions, rtol=1e-5)
    assert attention.min() >= centers[0] / attention.size * 0.999  # the first region is the whole image
    assert predictor.attention(image, 20, 30).sum() == pytest.approx(1, rel=1e-5)


def test_center_attention_is_that_of_the_network(predictor, image):
    inspection = predictor.inspect(image)
    with torch.inference_mode():
        inputs = torch.tensor(resize_long_side(image, predictor.card.size))[None]
        features = predictor.network.backbone(normalize(inputs, predictor.card.mean, predictor.card.std))[-1]
        branch = predictor.network.position
        query, key = branch.attention.query_key(branch.reduce(features))
    row, column = inspection.position_of(20, 30)
    expected = torch.softmax(query[0, row * inspection.grid[1] + column] @ key[0].T, 0)
    np.testing.assert_allclose(inspection.center_attention(20, 30), expected.numpy(), rtol=1e-3, atol=1e-6)


def test_center_attention_of_a_danet_is_an_error(tiny_weights, image):
    inspection = danet.load(tiny_weights, "cpu").inspect(image)
    with pytest.raises(InputError, match="the network does not attend to centers; use weights of a DRANet"):
        inspection.center_attention(1, 1)


def test_row_metrics_of_centers_equal_those_of_the_spread_weights():
    query, key, labels = torch.randn(63, 4), torch.randn(CENTERS, 4), np.random.default_rng(0).integers(0, 3, (7, 9))
    regions = center_regions(7, 9, query)
    rows = row_metrics(query, key, labels.astype(np.uint8), regions)
    weights = (torch.softmax(query @ key.T, 1) @ regions).numpy()
    same = labels.reshape(-1, 1) == labels.reshape(1, -1)
    np.testing.assert_allclose(rows.own, (weights * same).sum(1), rtol=1e-5)
    assert rows.entropy == pytest.approx(-(weights * np.log(weights)).sum(1).mean() / np.log(63), rel=1e-5)


def test_look_says_that_the_network_attends_to_regions(predictor, image, tmp_path):
    Image.fromarray(image).save(tmp_path / "scene.png")
    answers = look_at(predictor, [tmp_path / "scene.png"], points=[(20, 30)], channels=[1], without=True)
    groups = {group.title: group for group in sheet(answers).groups}
    points = groups["Position attention: where a point attends"]
    assert points.text.startswith("The network attends to 50 regions of the image; the weight of each is divided")
    assert points.panels[0].note == "uniform attention would be 2.00% per region"
    assert groups["Channel attention: what a channel responds to"].panels[-1].title == "channel attention, 32 x 2"
    several = sheet(look_at(predictor, [tmp_path / "scene.png"] * 2, points=[(20, 30)]))
    assert several.groups[-1].text.startswith("The network attends to 50 regions")


def test_commands_look_and_evaluate(weights, image, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 8, "val": 2})
    Image.fromarray(image).save("scene.png")
    assert main(["look", "scene.png", "--weights", str(weights), "--out", "look.html", "--json", "look.json"]) == 0
    assert "50 regions" in Path("look.html").read_text()
    (found,) = json.loads(Path("look.json").read_text())["images"]
    assert sum(entry["share"] for entry in found["points"][0]["classes"]) == pytest.approx(1, abs=1e-4)
    assert main(["evaluate", str(weights), "--dataset", "toy", "--attention", "--json", "scores.json"]) == 0
    attention = json.loads(Path("scores.json").read_text())["attention"]
    assert 0 < attention["position"]["own"] < 1
    assert attention["without"].keys() == {"none", "position", "channel", "both"}


def test_server_answers_are_those_of_the_inspection(predictor, image):
    assert responses.model_card(predictor)["attention"] == {"position": True, "channel": True}
    inspection = predictor.inspect(image)
    answer = responses.attention(StoredImage(inspection.segmentation, inspection), 20, 30)
    assert answer["weights"] == responses.packed(inspection.attention(20, 30))
    assert sum(entry["share"] for entry in answer["classes"]) == pytest.approx(1, abs=1e-4)
