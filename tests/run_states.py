"""Compare the checkpoints of two runs."""

from pathlib import Path
from typing import Any

import torch

from danet.train import checkpoint


def state_of(run: Path) -> dict[str, Any]:
    """Return the last checkpoint of a run."""
    return checkpoint.load(run / checkpoint.LAST)


def assert_equal(a: Any, b: Any, path: str = "state") -> None:
    """Assert that two checkpoints are equal to the bit, except for measurements of speed."""
    assert type(a) is type(b), path
    if isinstance(a, dict):
        assert a.keys() == b.keys(), path
        for key in a:
            if key not in ("images_per_second", "waiting"):
                assert_equal(a[key], b[key], f"{path}.{key}")
    elif isinstance(a, list):
        assert len(a) == len(b), path
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            assert_equal(x, y, f"{path}[{i}]")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), path
    else:
        assert a == b or (a != a and b != b), path
