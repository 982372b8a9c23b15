"""danet bench data: three ways to the same kind of crop."""

import json

import torch

from benchmarks import data
from benchmarks.__main__ import run


def test_each_way_gives_a_normalized_crop(tmp_path):
    samples = data._draw(tmp_path, 1)
    augment = data.Augmentation((data.CROP, data.CROP), scale=(0.75, 2.0), short_side=data.BASE)
    ours, released = data._ours(samples, augment, 1), data._released(samples, 1)
    assert ours.shape == (1, 3, 768, 768)
    assert released.shape == (3, 768, 768)
    assert ours.dtype == released.dtype == torch.float32
    for crop in (ours[0], released):
        assert crop.min() >= -2.2
        assert crop.max() <= 2.7
        assert crop.std() > 0.1


def test_the_command_writes_its_numbers(tmp_path, capsys):
    assert run(["data", "--pairs", "1", "--repeats", "1", "--json", str(tmp_path / "data.json")]) == 0
    assert "of the released pipeline" in capsys.readouterr().out
    ways = json.loads((tmp_path / "data.json").read_text())["ways"]
    assert set(ways) == {"released", "ours", "cached", "decoding alone"}
    assert ways["released"]["of_released"] == 1
    assert ways["cached"]["median_s"] < ways["ours"]["median_s"]
