"""Compare the checkpoints of two runs."""

import torch

from danet.train import checkpoint


def state_of(run) -> dict:
    return checkpoint.load(run / checkpoint.LAST)


def assert_equal(a, b, path="state"):
    """Every tensor and every number of two checkpoints, to the bit; only what the clock says may differ."""
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
