"""The tables and numbers in README.md and docs/ are those of benchmarks/results."""

import json
import sys
from pathlib import Path

from benchmarks import tables
from benchmarks.markdown import interval, percent

ROOT = Path(__file__).parents[2]


def test_tables_in_docs_are_up_to_date(monkeypatch, capsys):
    """Update them with python -m benchmarks.tables."""
    monkeypatch.setattr(sys, "argv", ["tables", "--check"])
    assert tables.main() == 0, capsys.readouterr().out


def test_robustness_text_without_attention_matches_the_results():
    networks = json.loads((ROOT / "benchmarks/results/robustness.json").read_text())["networks"]
    (off,) = (network for network in networks if network["name"] == "both-off")
    assert off["seeds"] == [1]
    (entry,) = (entry for entry in off["differences"] if entry["against"] == "both")
    text = f"{percent(entry['mean'], 2, '+')} points {interval(entry['by_images_95'], 2)}"
    assert text in (ROOT / "docs/results.md").read_text()
