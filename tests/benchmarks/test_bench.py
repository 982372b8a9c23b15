"""Measuring functions, and the benchmarks of attention and cost on tiny inputs."""

import importlib
import json
import os
import sys
import time
from functools import partial

import pytest
import torch

from benchmarks import attention, command, cost, deployment, measure, plots
from danet import cli
from danet.errors import InputError


def test_calls_take_turns_and_warmup_rounds_are_not_counted():
    order = []
    timings = measure.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3, warmup=2)
    assert order == ["a", "b"] * 5
    assert [len(timing.seconds) for timing in timings.values()] == [3, 3]


def test_a_timing_is_as_long_as_the_call():
    timing = measure.interleaved({"sleep": lambda: time.sleep(0.02)}, 3, warmup=0)["sleep"]
    assert 0.02 <= timing.median < 0.1
    assert timing.as_dict()["fastest_s"] <= timing.median <= timing.as_dict()["slowest_s"]


def test_gemm_counts_its_operations():
    call, operations = measure.gemm(8)
    assert operations == 2 * 8**3
    call()


def test_peak_memory_is_that_of_the_call_above_its_start():
    peak = measure.peak_memory(partial, torch.ones, 30_000_000)  # torch is loaded before
    assert peak is not None
    assert 118e6 < peak < 130e6


def test_a_killed_process_has_no_peak_memory():
    assert measure.peak_memory(os._exit, 1) is None


def test_peak_of_a_program_leaves_out_the_benchmark(tmp_path):
    """The torch of this process would be hundreds of megabytes."""
    spent = deployment._spent([sys.executable, "-S", "-c", "bytearray(50_000_000)"], tmp_path)
    assert 50e6 < spent.peak < 90e6
    assert spent.seconds > 0


def test_a_program_that_fails_ends_the_benchmark(tmp_path):
    with pytest.raises(InputError, match="ended with 3"):
        deployment._spent([sys.executable, "-c", "raise SystemExit(3)"], tmp_path)


def test_environment_names_device_threads_and_versions():
    facts = measure.environment()
    assert facts["torch"] == torch.__version__
    assert facts["threads"] == torch.get_num_threads()
    assert facts["device"]
    assert json.dumps(facts)


@pytest.fixture
def quick(monkeypatch):
    """Skip the fresh processes and use small matrix products."""
    monkeypatch.setattr(attention, "peak_memory", lambda *_: 5_000_000)
    monkeypatch.setattr(cost, "peak_memory", lambda *_: 5_000_000)
    monkeypatch.setattr(attention, "gemm", lambda size, device: measure.gemm(64, device))


def test_attention_compares_all_available_implementations(quick):
    result = attention.run(attention.Options((100, 40), channels=16, repeats=2, device="cpu"))
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


def test_largest_error_detects_a_wrong_implementation(monkeypatch):
    tensors = attention.inputs(50, 16, "cpu")
    plain = attention.WAYS["plain"]
    monkeypatch.setitem(attention.WAYS, "wrong", lambda *x: 1.01 * plain(*x))
    assert attention.largest_error("wrong", tensors) == pytest.approx(0.01, rel=0.01)


def test_operations_equal_the_equations():
    assert attention.operations(10, 16, backward=False) == 2 * 100 * (2 + 16)
    # again the energies; gradients of value, weights, query, key
    assert attention.operations(10, 16, backward=True) == 2 * 100 * (2 + 16) + 2 * 100 * (2 + 16 + 16 + 2 + 2)


def test_plain_attention_is_skipped_if_memory_is_too_small(quick, monkeypatch):
    facts = measure.environment() | {"memory_bytes": 100_000}
    monkeypatch.setattr(attention, "environment", lambda _: facts)
    size = attention.run(attention.Options((200,), channels=16, repeats=1, device="cpu"))["sizes"][0]
    assert "GB are free" in size["ways"]["plain"]["left_out"]
    assert size["ways"]["tiled"]["of_plain"] is None
    assert "left out" in attention.table({"sizes": [size]})


def test_backward_computes_the_gradients_of_all_inputs(quick):
    call = attention.call("tiled", attention.inputs(20, 16, "cpu"), backward=True)
    gradients = call()
    assert isinstance(gradients, tuple)
    assert [tuple(x.shape) for x in gradients] == [(1, 20, 2), (1, 20, 2), (1, 20, 16)]


def test_cost_measures_and_plots_attention_and_network(quick):
    options = cost.Options((16, 64, 100), "test_resnet", channels=16, network_positions=64, repeats=1, device="cpu")
    result = cost.run(options)
    first, _, last = result["sizes"]
    assert all(first[name]["median_s"] > 0 for name in ("compact", "network", "dranet"))
    assert last["compact"]["median_s"] > 0
    assert last["network"] == last["dranet"] == {"left_out": "too large"}
    assert "plain takes longer than tiled" in result["crossings"]
    assert "64" in cost.table(result)
    plot = cost.plot(result)
    assert all(text.encode() in plot for text in plots.COST_CURVES.values())
    assert cost.plot(result) == plot


def test_crossing_is_where_the_curves_cross():
    square = [(n, n**2 / 1000) for n in (10, 100, 1000, 10000)]
    line = [(n, float(n)) for n in (10, 100, 1000, 10000)]
    assert cost.crossing(square, line) == pytest.approx(1000)
    assert cost.crossing(square, [(n, 2 * y) for n, y in line]) == pytest.approx(2000)
    assert cost.crossing(line, line) is None
    above = [(n, 3 * y) for n, y in line]
    assert cost.crossing(above, line) == pytest.approx(line[0][0])
    assert cost.crossing(line, above) is None
    assert cost.crossing([], line) is None


def test_filled_at_is_the_largest_n_that_fits():
    n = cost.filled_at(8e9, 512)
    assert 31_000 < n < 31_700  # 2 n^2 4 bytes + n 512 4 bytes
    assert 2 * n * n * 4 + n * 512 * 4 <= 8e9 < 2 * (n + 1) ** 2 * 4 + (n + 1) * 512 * 4


def test_command_prints_a_table_writes_json_and_reports_errors(quick, tmp_path, capsys):
    file = tmp_path / "attention.json"
    args = ["--positions", "30", "--channels", "16", "--repeats", "1", "--device", "cpu", "--json", str(file)]
    benchmark = "attention", attention.Options, attention.run, attention.table
    assert command.main(*benchmark, args=args) == 0
    assert "of products" in capsys.readouterr().out
    assert json.loads(file.read_text())["sizes"][0]["positions"] == 30
    assert command.main(*benchmark, args=args) == 2
    assert capsys.readouterr().err.startswith(f"error: {file}: already exists; ")
    assert command.main(*benchmark, args=["--channels", "4"]) == 2
    assert capsys.readouterr().err == "error: --channels: must be at least 8, got 4; choose a larger value\n"
    assert command.main(*benchmark, args=["--chanels", "4"]) == 2
    assert capsys.readouterr().err == "error: --chanels: unknown option; did you mean --channels?\n"


def test_python_m_benchmarks_lists_all_benchmarks(capsys):
    importlib.import_module("benchmarks.__main__").main()
    listed = capsys.readouterr().out
    names = ("ablation", "attention", "baselines", "cost", "data", "export", "network", "protocols", "robustness")
    assert all(f"\n  {name} " in listed for name in names)


def test_danet_bench_says_where_the_benchmarks_are(capsys):
    assert cli.main(["bench", "attention"]) == 2
    expected = "error: bench: the benchmarks are in the source repository; run python -m benchmarks.attention there\n"
    assert capsys.readouterr().err == expected
