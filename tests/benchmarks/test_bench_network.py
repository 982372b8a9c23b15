"""What `danet bench network` reports of each way."""

import json

import pytest
import torch

from benchmarks import network
from benchmarks.network import Case


@pytest.fixture
def tiny(monkeypatch):
    """The same measurements on small images, without the processes that measure memory."""
    monkeypatch.setattr(network, "CASES", {"tiny": Case("default", 64, 80, 2)})
    monkeypatch.setattr(network, "peak_memory", lambda *_: 7_000_000)


@pytest.mark.usefixtures("tiny")
def test_every_way_is_held_against_eager():
    result = network.run()
    json.dumps(result)
    rows = result["cases"]["tiny"]
    assert tuple(rows) == network.WAYS
    assert (rows["eager"]["speedup"], rows["eager"]["largest_difference"]) == (1, 0)
    for row in rows.values():
        assert row["images_per_s"] * row["median_s"] == pytest.approx(1)
        assert len(row["runs_s"]) == 2
    assert rows["folded"]["largest_difference"] < 1e-4 * rows["eager"]["largest_logit"]
    assert rows["bfloat16"]["largest_difference"] > rows["folded"]["largest_difference"]
    assert rows["bfloat16"]["same_labels"] > 0.9
    text = network.table(result)
    assert text.startswith("tiny\n")
    assert all(way in text for way in network.WAYS)


def test_the_papers_network_is_measured_with_both_modules_at_work():
    untrained = network._network(Case("danet50", 64, 64, 1))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = untrained.backbone(images)[-1]
        for branch in (untrained.position, untrained.channel):
            reduced = branch.reduce(features)
            assert (branch.attention(reduced) - reduced).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_compiled_ways_agree():
    rows = network.run(compiled=True)["cases"]["tiny"]
    assert rows["compiled"]["largest_difference"] < 1e-4 * rows["eager"]["largest_logit"]
    assert rows["compiled bfloat16"]["same_labels"] > 0.9
