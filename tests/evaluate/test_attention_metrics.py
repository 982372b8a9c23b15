"""Attention metrics: equal to the dense definitions, and what ideal, uniform and useless attention score."""

import html
import json

import numpy as np
import pytest
import torch

from danet import InputError
from danet.cli import main
from danet.data import registry
from danet.evaluate import attention_metrics
from danet.evaluate.attention_metrics import AttentionMetrics, grid_labels, row_metrics
from danet.model.attention_kernels import attention_weights
from danet.predict.predictor import load

HEIGHT, WIDTH = 7, 9


@pytest.fixture
def labels() -> np.ndarray:
    labels = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH), np.uint8)
    labels[2:4, 3:6] = 255
    return labels


def one_hot(labels: np.ndarray) -> torch.Tensor:
    return torch.tensor(np.eye(256)[labels.ravel()], dtype=torch.float64)


@pytest.mark.parametrize("block", [1, 100, 1 << 22])
def test_row_metrics_equal_their_dense_definition(labels, block, monkeypatch):
    monkeypatch.setattr(attention_metrics, "_BLOCK", block)
    query, key = torch.randn(2, HEIGHT * WIDTH, 4, dtype=torch.float64)
    rows = row_metrics(query, key, labels)
    weights = attention_weights(query[None], key[None])[0].numpy()
    flat, (y, x) = labels.ravel(), np.mgrid[:HEIGHT, :WIDTH].reshape(2, -1)
    for i in range(len(flat)):
        near = (np.abs(y - y[i]) <= 2) & (np.abs(x - x[i]) <= 2)
        same = flat == flat[i]
        expected = [
            weights[i][same].sum(),
            same.mean(),
            weights[i][same & ~near].sum() / weights[i][~near].sum(),
            (same & ~near).sum() / (~near).sum(),
        ]
        shares = [rows.own[i], rows.chance[i], rows.own_beyond[i], rows.chance_beyond[i]]
        np.testing.assert_allclose(shares, np.nan if flat[i] == 255 else expected, rtol=1e-9)
    entropy = -(weights * np.log(weights)).sum(1).mean() / np.log(len(flat))
    lengths = weights / np.linalg.norm(weights, axis=1, keepdims=True)
    cosines = (lengths @ lengths.T)[~np.eye(len(flat), dtype=bool)]
    assert rows.entropy == pytest.approx(entropy)
    assert rows.cosine == pytest.approx(cosines.mean())


def test_rows_without_attention_beyond_the_neighborhood_are_left_out_of_chance_too():
    """A weight that underflows to 0 is no share."""
    labels = np.zeros((8, 8), np.uint8)
    labels[:, 6:] = 1
    sharp = labels.ravel() == 1
    query = 150.0 * torch.eye(64) * torch.tensor(sharp)[:, None]
    rows = row_metrics(query, torch.eye(64), labels)
    assert np.isnan(rows.own_beyond[sharp]).all()
    assert np.isnan(rows.chance_beyond[sharp]).all()
    np.testing.assert_allclose(rows.own_beyond[~sharp], rows.chance_beyond[~sharp], rtol=1e-5)


def test_uniform_attention_is_chance(labels):
    rows = row_metrics(torch.zeros(63, 4), torch.randn(63, 4), labels)
    np.testing.assert_allclose(rows.own, rows.chance, rtol=1e-5)
    np.testing.assert_allclose(rows.own_beyond, rows.chance_beyond, rtol=1e-5)
    assert rows.entropy == pytest.approx(1)
    assert rows.cosine == pytest.approx(1)


def test_attention_to_the_own_class_only_has_share_one(labels):
    rows = row_metrics(50 * one_hot(labels), one_hot(labels), labels)
    valid = labels.ravel() != 255
    np.testing.assert_allclose(rows.own[valid], 1)
    np.testing.assert_allclose(rows.own_beyond[valid], 1)
    assert rows.cosine < 0.5
    assert np.isnan(rows.own[~valid]).all()


def test_attention_to_itself_only_says_nothing_beyond(labels):
    """A share on the own class alone would call this perfect."""
    positions = torch.eye(63, dtype=torch.float64)
    rows = row_metrics(30 * positions, positions, labels)
    valid = labels.ravel() != 255
    np.testing.assert_allclose(rows.own[valid], 1, atol=1e-9)
    np.testing.assert_allclose(rows.own_beyond[valid], rows.chance_beyond[valid], atol=1e-6)
    assert rows.entropy == pytest.approx(0, abs=1e-6)


def test_image_without_labels_has_no_shares_but_an_entropy():
    metrics = row_metrics(torch.randn(12, 4), torch.randn(12, 4), np.full((3, 4), 255, np.uint8))
    assert np.isnan(metrics.own).all()
    assert 0 < metrics.entropy <= 1


def test_one_position_has_shares_but_no_entropy():
    metrics = row_metrics(torch.randn(1, 4), torch.randn(1, 4), np.zeros((1, 1), np.uint8))
    assert metrics.own == metrics.chance == 1
    assert np.isnan([metrics.entropy, metrics.cosine]).all()


def test_metrics_of_a_dataset_are_means_over_positions_and_images(tiny_weights):
    predictor, samples = load(tiny_weights, "cpu"), registry.load("toy", None, "val")
    torch.nn.init.constant_(predictor.folded.position.attention.scale, 0.7)
    metrics, rows = AttentionMetrics(samples.classes), []
    for i in range(3):
        inspection = predictor.inspect(samples[i].image)
        metrics.update(inspection, samples[i].labels)
        parts = inspection.internals.query, inspection.internals.key, grid_labels(inspection, samples[i].labels)
        rows.append(row_metrics(*parts))
    values = metrics.as_dict()
    own = np.concatenate([row.own for row in rows])
    assert values["position"]["own"] == pytest.approx(np.nanmean(own))
    of_class = np.concatenate([row.classes for row in rows]) == 0
    assert values["position"]["classes"][samples.classes.names[0]]["own"] == pytest.approx(np.nanmean(own[of_class]))
    assert values["position"]["entropy"] == pytest.approx(np.mean([row.entropy for row in rows]))
    assert values["modules"]["position"]["scale"] == pytest.approx(0.7)
    assert values["modules"]["channel"]["size"] == 0
    assert set(values["without"]) == {"none", "position", "channel", "both"}
    assert values["without"]["channel"]["difference"] == 0
    assert values["without"]["position"] == values["without"]["both"]


def test_images_without_labels_do_not_hide_the_others(tiny_weights):
    predictor = load(tiny_weights)
    metrics, image = AttentionMetrics(predictor.classes), np.zeros((40, 40, 3), np.uint8)
    for labels in (np.zeros((40, 40), np.uint8), np.full((40, 40), 255, np.uint8)):
        metrics.update(predictor.inspect(image), labels)
    assert "mIoU without position attention: " in metrics.text()
    assert "nan" not in metrics.text()


def test_evaluate_reports_attention(tiny_weights, tmp_path, capsys):
    report, scores = tmp_path / "report.html", tmp_path / "scores.json"
    command = ["evaluate", str(tiny_weights), "--dataset", "toy", "--attention"]
    assert main([*command, "--report", str(report), "--json", str(scores)]) == 0
    printed = capsys.readouterr().out
    assert "attention on the pixel's own class" in printed
    assert "mIoU without both modules" in printed
    for name in (
        "spread of a pixel's attention: ",
        "similarity of the maps of two pixels: ",
        "beyond a constant change",
    ):
        assert name in printed
    assert 0 < json.loads(scores.read_text())["attention"]["position"]["own"] < 1
    page, lines = (
        report.read_text(),
        printed[printed.index("attention on") : printed.index("mIoU without")].splitlines(),
    )
    assert "<h2>Attention</h2>" in page
    assert len(lines) >= 3
    assert all(f"<p>{html.escape(line)}</p>" in page for line in lines), "complete lines"


@pytest.mark.parametrize(
    ("option", "only"), [("--protocol mmseg-whole-512", "protocol 'whole'"), ("--dtype bfloat16", "dtype 'float32'")]
)
def test_attention_is_measured_on_the_network_that_predicts(tiny_weights, capsys, option, only):
    name, value = option.split()
    assert main(["evaluate", str(tiny_weights), "--dataset", "toy", "--attention", name, value]) == 2
    assert capsys.readouterr().err.splitlines()[-1] == (
        f"error: --attention: is measured with the {only} only; leave out {name}"
    )


def test_network_without_attention_is_an_error(tiny_weights):
    inspection = load(tiny_weights).inspect(np.zeros((20, 20, 3), np.uint8))
    internals = inspection.internals._replace(scales={})
    with pytest.raises(InputError, match="weights: the network has no attention"):
        AttentionMetrics(load(tiny_weights).classes).update(
            type(inspection)(inspection.segmentation, internals, (20, 20), 8, True), np.zeros((20, 20), np.uint8)
        )
