"""The benchmark of the whole network."""

import json

import pytest
import torch

from benchmarks import network
from benchmarks.network import Case


@pytest.fixture
def tiny(monkeypatch):
    """Use small images, and skip the processes that measure memory."""
    monkeypatch.setattr(network, "CASES", {"tiny": Case("default", 64, 80, 2)})
    monkeypatch.setattr(network, "peak_memory", lambda *_: 7_000_000)


@pytest.mark.usefixtures("tiny")
def test_all_variants_are_compared_with_eager():
    result = network.run(network.Options(device="cpu"))
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


def test_both_modules_of_the_papers_network_are_active():
    untrained = network._network(Case("danet50", 64, 64, 1))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        features = untrained.backbone(images)[-1]
        for branch in (untrained.position, untrained.channel):
            reduced = branch.reduce(features)
            assert (branch.attention(reduced) - reduced).abs().max() > 1e-3


@pytest.mark.slow
@pytest.mark.usefixtures("tiny")
def test_compiled_variants_agree():
    rows = network.run(network.Options(compiled=True, device="cpu"))["cases"]["tiny"]
    assert rows["compiled"]["largest_difference"] < 1e-4 * rows["eager"]["largest_logit"]
    assert rows["compiled bfloat16"]["same_labels"] > 0.9
