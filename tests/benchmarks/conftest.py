"""A dataset for the benchmarks that train on few images."""

from pathlib import Path

import numpy as np
import pytest
from miniature import image, save


@pytest.fixture
def few_streets(tmp_path) -> Path:
    """Return a dataset with 10 training and 4 validation images of two classes."""
    root = tmp_path / "data/streets"
    for split, count in (("train", 10), ("val", 4)):
        for i in range(count):
            image(root / f"images/{split}/{i}.jpg", 48, 64)
            save(root / f"labels/{split}/{i}.png", np.full((48, 64), i % 2, np.uint8))
    (root / "classes.txt").write_text("road\ncar\n")
    return root
