"""`danet.evaluate` returns what `danet evaluate` prints."""

import json

import pytest

import danet
from danet import InputError
from danet.cli import main
from danet.data.datasets import synthetic


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 4, "val": 3})


def test_function_returns_the_scores_of_the_command(tiny_weights, tmp_path):
    result = danet.evaluate(tiny_weights, dataset="toy")
    assert main(["evaluate", str(tiny_weights), "--dataset", "toy", "--json", str(tmp_path / "a.json")]) == 0
    written = json.loads((tmp_path / "a.json").read_text())
    assert result.as_dict() == {name: written[name] for name in result.as_dict()}
    assert result.miou == written["miou"]
    assert {name: iou for name, iou in result.iou.items() if iou == iou} == {
        name: iou for name, iou in written["iou"].items() if iou is not None
    }
    assert len(result.images) == 3
    assert repr(result) == f"EvaluationResult(mIoU {result.miou:.1%}, 3 images)"


def test_shards_add_up_to_the_whole(tiny_weights, tmp_path):
    whole = danet.evaluate(tiny_weights, dataset="toy")
    first = danet.evaluate(tiny_weights, dataset="toy", counts=tmp_path / "counts", shard="1/2")
    assert first.counted == 2
    with pytest.raises(InputError, match="counts: 2 of 3 images are counted"):
        _ = first.miou
    second = danet.evaluate(tiny_weights, dataset="toy", counts=tmp_path / "counts", shard="2/2")
    assert second.as_dict() == whole.as_dict()
