"""The benchmark of kept memory measures both ways."""

from dataclasses import replace

import pytest

from benchmarks import command, kept_memory
from danet.recipes import small


@pytest.mark.parametrize("task", kept_memory.TASKS)
@pytest.mark.parametrize("way", kept_memory.WAYS)
def test_each_task_is_measured(monkeypatch, task, way):
    monkeypatch.setattr(small, "FOLDER", replace(small.FOLDER, data=replace(small.FOLDER.data, crop=(64, 64), batch=2)))
    found = kept_memory._measure(task, way, classes=2, steps=2)
    assert found["seconds"] > 0
    assert found["peak_bytes"] > 1e8


def test_the_table_compares_the_ways():
    row = {"seconds": 1.0, "faults": 4000, "peak_bytes": 2e9}
    text = kept_memory.table({"tasks": {"prediction": {"returned": row, "kept": {**row, "seconds": 2 / 3}}}})
    assert "prediction, kept     0.67 s, 4,000 page faults, peak 2,000 MB" in text
    assert text.endswith("kept takes 0.67 times as long")


@pytest.mark.parametrize("option", ["steps", "rounds"])
def test_nothing_to_measure_is_refused(option, capsys):
    args = [f"--{option}", "0"]
    assert command.main("kept_memory", kept_memory.Options, kept_memory.run, kept_memory.table, args=args) == 2
    assert capsys.readouterr().err == f"error: --{option}: must be at least 1, got 0; choose a larger value\n"
