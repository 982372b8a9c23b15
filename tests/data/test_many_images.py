"""danet init and check need less than a minute for 10,000 images on two cores."""

import time

import numpy as np
import pytest
from miniature import save

from danet.cli import main


@pytest.mark.stress
def test_init_and_check_of_10_000_images_take_less_than_a_minute(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for i in range(10_000):
        name = f"drive{i // 100}_{i % 100:05}"
        save(tmp_path / f"images/{name}.jpg", rng.integers(0, 256, (64, 64, 3), np.uint8))
        save(tmp_path / f"masks/{name}.png", rng.integers(0, 5, (64, 64), np.uint8))
    seconds = {}
    for command in ("init", "check"):
        start = time.perf_counter()
        assert main([command, str(tmp_path)]) == 0
        seconds[command] = time.perf_counter() - start
    assert "10000 images" in capsys.readouterr().out
    assert max(seconds.values()) < 60, seconds
