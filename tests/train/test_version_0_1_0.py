"""Runs interrupted under danet 0.1.0 continue, and their pages can be written again."""

import csv
import functools
import shutil
from pathlib import Path

import pytest

from danet.cli import main
from danet.data.datasets import synthetic
from danet.data.samples import Sample
from danet.train import checkpoint, run_folder
from danet.train.checkpoint import TrainingState

RUN = Path(__file__).parents[1] / "version_0_1_0/run"


@pytest.fixture
def run(tmp_path, monkeypatch) -> Path:
    """A copy of the run, which was interrupted at step 82 of 120, after its first validation.

    Its 5000 training scenes are reduced to 32 different ones, because drawing them takes most of the time.
    """
    draw = synthetic.SyntheticScenes.__getitem__

    @functools.cache
    def cached(scenes: synthetic.SyntheticScenes, index: int) -> Sample:
        return draw(scenes, index)

    monkeypatch.setattr(synthetic.SyntheticScenes, "__getitem__", lambda scenes, index: cached(scenes, index % 32))
    monkeypatch.setitem(synthetic.COUNTS, "val", 2)
    return Path(shutil.copytree(RUN, tmp_path / "run"))


def rows(run: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((run / run_folder.METRICS).read_text().splitlines()))


def test_resumed_run_finishes_with_its_old_history(run, capsys):
    before, interrupted = rows(run), checkpoint.load(run / checkpoint.LAST)
    assert main(["train", "--resume", str(run), "--device", "cpu", "--workers", "0"]) == 0
    assert "best validation mIoU" in capsys.readouterr().out
    finished = checkpoint.load(run / checkpoint.LAST)
    assert (interrupted["step"], finished["step"]) == (82, 120)
    assert finished["optimizer"]["param_groups"][0]["lr"] < interrupted["optimizer"]["param_groups"][0]["lr"]
    after = rows(run)
    assert [{name: row[name] for name in before[0]} for row in after[:1]] == before
    assert [row["step"] for row in after] == ["78", "120"]
    new = {name for name in after[1] if name.startswith("attention_")} | {"validation_loss"}
    assert after[1].keys() - before[0].keys() == new
    assert float(after[1]["loss_total"]) < float(before[0]["loss_total"])
    assert (run / "report.html").stat().st_size > 10_000


def test_old_checkpoint_names_are_accepted(run):
    entries = checkpoint.load(run / checkpoint.LAST)
    assert "pictures" in entries  # vocabulary: old name
    state = TrainingState.from_checkpoint(entries)
    assert state.images == 5000
    assert state.best == pytest.approx(0.4196, abs=1e-4)
    assert len(state.losses) == 4


def test_resuming_checks_the_number_of_images(run, monkeypatch, capsys):
    monkeypatch.setitem(synthetic.COUNTS, "train", 5001)
    assert main(["train", "--resume", str(run), "--device", "cpu", "--workers", "0"]) == 2
    assert "the run started with 5000 training images, but there are 5001 now" in capsys.readouterr().err


def test_report_writes_the_page_of_an_old_run(run, capsys):
    assert main(["report", str(run), "--device", "cpu"]) == 0
    assert capsys.readouterr().out.strip() == str(run / "report.html")
    page = (run / "report.html").read_text()
    assert "<svg" in page
    assert all(name in page for name in synthetic.CLASSES.names)
