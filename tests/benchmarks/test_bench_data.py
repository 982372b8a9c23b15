"""The benchmark of training samples: three pipelines make the same kind of crop."""

import json

import torch

from benchmarks import command, data


def test_each_pipeline_gives_a_normalized_crop(tmp_path):
    samples = data._generate(tmp_path, 1)
    augment = data.Augmentation((data.CROP, data.CROP), scale=(0.75, 2.0), short_side=data.BASE)
    ours, released = data._ours(samples, augment, 1), data._released(samples, 1)
    assert ours.shape == (1, 3, 768, 768)
    assert released.shape == (3, 768, 768)
    assert ours.dtype == released.dtype == torch.float32
    for crop in (ours[0], released):
        assert crop.min() >= -2.2
        assert crop.max() <= 2.7
        assert crop.std() > 0.1


def test_command_prints_a_table_and_writes_json(tmp_path, capsys):
    args = ["--pairs", "1", "--repeats", "1", "--json", str(tmp_path / "data.json")]
    assert command.main("data", data.Options, data.run, data.table, args=args) == 0
    assert "of the released pipeline" in capsys.readouterr().out
    ways = json.loads((tmp_path / "data.json").read_text())["ways"]
    assert set(ways) == {"released", "ours", "cached", "decoding alone"}
    assert ways["released"]["of_released"] == 1
    assert ways["cached"]["median_s"] < ways["ours"]["median_s"]
