"""What the benchmarks measure with, and that each benchmark tells the truth about a tiny case."""

import json
import os
import time
from functools import partial
from xml.etree import ElementTree

import pytest
import torch

from benchmarks import attention, cost, measure
from benchmarks.__main__ import BENCHES, run
from benchmarks.chart import loglog
from danet import InputError


def test_ways_take_turns_and_only_the_counted_rounds_are_kept():
    order = []
    timings = measure.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, warmup=2)
    assert order == ["a", "b"] * 5
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_a_timing_is_as_long_as_what_was_timed():
    timing = measure.interleaved({"sleep": lambda: time.sleep(0.02)}, 3, warmup=0)["sleep"]
    assert 0.02 <= timing.median < 0.1
    assert timing.as_dict()["fastest_s"] <= timing.median <= timing.as_dict()["slowest_s"]


def test_the_operations_of_a_product_are_counted():
    call, operations = measure.gemm(8)
    assert operations == 2 * 8**3
    call()


def test_peak_memory_is_what_the_call_took_above_its_start():
    peak = measure.peak_memory(partial, torch.ones, 30_000_000)  # torch itself is there before
    assert peak is not None
    assert 118e6 < peak < 130e6


def test_a_process_ended_from_outside_has_no_peak():
    assert measure.peak_memory(os._exit, 1) is None


def test_environment_says_what_numbers_depend_on():
    facts = measure.environment()
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device"]
    assert json.dumps(facts)


@pytest.fixture
def quick(monkeypatch):
    """No fresh processes and small products."""
    monkeypatch.setattr(attention, "peak_memory", lambda *_: 5_000_000)
    monkeypatch.setattr(cost, "peak_memory", lambda *_: 5_000_000)
    monkeypatch.setattr(attention, "gemm", lambda size, device: measure.gemm(64, device))


def test_attention_compares_every_way_that_runs_here(quick):
    result = attention.run((100, 40), channels=16, repeats=2)
    assert [size["positions"] for size in result["sizes"]] == [100, 40]
    for size in result["sizes"]:
        assert set(size["ways"]) == {"plain", "tiled", "fused"}
        for row in size["ways"].values():
            assert 0 < row["largest_error"] < 1e-5
            assert len(row["runs_s"]) == 2
        row, rate = size["ways"]["tiled"], size["gemm"]["operations_per_s"]
        assert row["share_of_gemm_rate"] == pytest.approx(size["operations"] / row["median_s"] / rate)
        assert row["of_plain"] == pytest.approx(row["median_s"] / size["ways"]["plain"]["median_s"])
    assert "N = 100;" in attention.table(result)


def test_errors_are_seen(monkeypatch):
    tensors = attention.inputs(50, 16, "cpu")
    plain = attention.WAYS["plain"]
    monkeypatch.setitem(attention.WAYS, "wrong", lambda *x: 1.01 * plain(*x))
    assert attention.largest_error("wrong", tensors) == pytest.approx(0.01, rel=0.01)


def test_operations_are_those_of_the_equations():
    assert attention.operations(10, 16, backward=False) == 2 * 100 * (2 + 16)
    # again the energies; gradients of value, weights, query, key
    assert attention.operations(10, 16, backward=True) == 2 * 100 * (2 + 16) + 2 * 100 * (2 + 16 + 16 + 2 + 2)


def test_plain_is_left_out_where_memory_would_not_do(quick, monkeypatch):
    facts = measure.environment() | {"memory_bytes": 100_000}
    monkeypatch.setattr(attention, "environment", lambda _: facts)
    size = attention.run((200,), channels=16, repeats=1)["sizes"][0]
    assert "GB are free" in size["ways"]["plain"]["left_out"]
    assert size["ways"]["tiled"]["of_plain"] is None
    assert "left out" in attention.table({"sizes": [size]})


def test_backward_times_the_gradients_of_all_three(quick):
    call = attention.call("tiled", attention.inputs(20, 16, "cpu"), backward=True)
    gradients = call()
    assert isinstance(gradients, tuple)
    assert [tuple(x.shape) for x in gradients] == [(1, 20, 2), (1, 20, 2), (1, 20, 16)]


def test_cost_measures_attention_and_network_and_draws_them(quick):
    result = cost.run((16, 64, 100), "test_resnet", channels=16, network_positions=64, repeats=1)
    first, _, last = result["sizes"]
    assert first["network"]["median_s"] > 0
    assert last["network"] == {"left_out": "not asked for"}
    assert "plain takes longer than tiled" in result["crossings"]
    assert "64" in cost.table(result)
    texts = [e.text for e in ElementTree.fromstring(cost.chart(result)).iter() if e.tag.endswith("text")]
    assert {"plain", "tiled", "network"} <= set(texts)


def test_crossings_are_where_the_curves_cross():
    square = [(n, n**2 / 1000) for n in (10, 100, 1000, 10000)]
    line = [(n, float(n)) for n in (10, 100, 1000, 10000)]
    assert cost.crossing(square, line) == pytest.approx(1000)
    assert cost.crossing(square, [(n, 2 * y) for n, y in line]) == pytest.approx(2000)
    assert cost.crossing(line, line) is None
    above = [(n, 3 * y) for n, y in line]
    assert cost.crossing(above, line) == pytest.approx(line[0][0])
    assert cost.crossing(line, above) is None
    assert cost.crossing([], line) is None


def test_the_map_that_fills_a_memory_is_found():
    n = cost.filled_at(8e9, 512)
    assert 31_000 < n < 31_700  # 2 n^2 4 bytes + n 512 4 bytes
    assert 2 * n * n * 4 + n * 512 * 4 <= 8e9 < 2 * (n + 1) ** 2 * 4 + (n + 1) * 512 * 4


def test_a_chart_puts_larger_values_higher_and_escapes_names():
    image = ElementTree.fromstring(loglog("a < b", "x", "y", {"one & two": [(1, 1), (10, 100)]}))
    circles = [e for e in image if e.tag.endswith("circle")]
    assert float(circles[0].get("cy", 0)) > float(circles[1].get("cy", 0))
    assert float(circles[0].get("cx", 0)) < float(circles[1].get("cx", 0))


def test_the_command_prints_a_table_and_writes_json(quick, tmp_path, capsys):
    file = tmp_path / "attention.json"
    line = ["attention", "--positions", "30", "--channels", "16", "--repeats", "1", "--device", "cpu"]
    assert run([*line, "--json", str(file)]) == 0
    assert "of products" in capsys.readouterr().out
    assert json.loads(file.read_text())["sizes"][0]["positions"] == 30
    with pytest.raises(InputError, match="exists already"):
        run([*line, "--json", str(file)])


def test_an_unknown_benchmark_is_refused_and_known_ones_are_listed(capsys):
    with pytest.raises(InputError, match="no benchmark; use attention, cost"):
        run(["speed"])
    assert run(["--help"]) == 0
    listed = capsys.readouterr().out
    assert all(f"python -m benchmarks {name}" in listed for name in BENCHES)
