"""The benchmark of batches: sizes, cost of large batches, and its table."""

import pytest

from benchmarks import scale
from danet import InputError


def test_cost_is_proportional_and_counts_requests():
    sizes = {"image": 1e6, "labels": 2e4, "row": 1e2}
    million, hundred = (scale.cost(images, 0.36, sizes) for images in (1_000_000, 100_000_000))
    assert million["process_hours"] == pytest.approx(100)
    assert hundred["process_hours"] == pytest.approx(10_000)
    assert million["head_and_get_requests"] == 2_000_000
    assert million["put_requests"] == 1_004_000  # shards of 500 images, of which each is noted and recorded
    assert million["read_tb"] == pytest.approx(1)
    assert million["written_tb"] == pytest.approx(0.0201)
    assert million["mbit_per_second_of_a_process"] == pytest.approx(8.1608 / 0.36)


def test_the_local_ways_are_measured_at_three_sizes(tiny_weights):
    result = scale.run(scale.Options(images=2, width=32, workers=(), weights=tiny_weights))
    assert set(result["ways"]) == {"plain loop", "local engine"}
    assert result["images"] == [1, 2, 4]
    assert all(size > 0 for size in result["bytes"].values())
    assert 0 < result["file_seconds"] < 10
    assert len(scale.table(result).splitlines()) == 4 + 1 + 2 + 3
    with pytest.raises(InputError, match="images: must be at least 2"):
        scale.run(scale.Options(images=1))
