"""The restated released evaluation loop, and the benchmark of protocols."""

import json
from dataclasses import replace

import torch
from protocol_networks import BLACK, random_image, sees_neighbors, whole_map

from benchmarks import protocols
from danet.predict.protocols import RELEASED_MULTI_CITYSCAPES


def test_released_loop_equals_the_released_evaluator():
    protocol = replace(RELEASED_MULTI_CITYSCAPES, crop=24, long_side=40)  # one window, some, and many
    image = random_image(26, 40) / 4
    loop = protocols.released_loop(sees_neighbors, image, BLACK, 24, 12, protocol.scales)
    assert loop.dtype == torch.float64
    torch.testing.assert_close(loop, whole_map(sees_neighbors, image, (26, 40), protocol), rtol=1e-10, atol=0)


def test_result_contains_all_variants_and_their_agreement(monkeypatch):
    sizes = {"LOOP_SIZE": (32, 64), "LOOP_CROP": 32, "WHOLE_SIZE": (32, 64), "LARGEST_SIZE": (64, 128)}
    for name, value in sizes.items():
        monkeypatch.setattr(protocols, name, value)
    for name in ("PAPER_MULTI", "RELEASED_MULTI_CITYSCAPES"):
        monkeypatch.setattr(protocols, name, replace(getattr(protocols, name), scales=(0.5, 1.25)))
    monkeypatch.setattr(protocols, "WHOLE_CROP", 80)  # one window for the larger scale, so that both agree
    monkeypatch.setattr(protocols, "peak_memory", lambda *_: 5_000_000)
    result = protocols.run(protocols.Options(repeats=1, device="cpu"))
    json.dumps(result)
    ways = result["released_loop"]["ways"]
    assert ways["released loop"]["largest_difference"] == 0
    assert ways["released loop"]["speedup"] == 1
    assert 0 < ways["ours, same network"]["largest_difference"] < 1e-5
    assert 0 < ways["ours"]["largest_difference"] < 1e-5
    assert result["whole"]["same_labels"] == 1
    assert result["largest"]["positions"] == 9 * 18  # 141 x 282 pixels at stride 16
    text = protocols.table(result)
    assert all(part in text for part in ("64 x 32, 2 scales", "128 x 64", "5 MB", "N = 162"))
