"""Trackers get the recipe once, and each row of metrics.csv; stubs replace their packages."""

import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import danet
from danet import InputError
from danet.data.datasets import synthetic
from danet.train import loop, trackers
from danet.train.run_folder import identity
from danet.train.trackers import TrackerLog

HISTORY = [{"step": 2, "epoch": 1, "miou": 0.25, "lr": 0.1}, {"step": 4, "epoch": 2, "miou": 0.5, "lr": math.nan}]
NUMBERS = [({"epoch": 1, "miou": 0.25, "lr": 0.1}, 2), ({"epoch": 2, "miou": 0.5}, 4)]
SETTINGS = {"optim": {"lr": 0.1, "steps": None}, "seed": 1}


class Stub(ModuleType):
    """Records the calls of a tracker's functions, which are those of its package."""

    def __init__(self, name: str):
        super().__init__(name)
        self.calls: list[tuple[str, Any]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def record(*args: Any, **options: Any) -> "Stub":
            self.calls.append((name, (*args, *options.items()) if name == "init" else (*args, *options.values())))
            return self

        return record


@pytest.fixture
def stub(request, monkeypatch) -> Stub:
    monkeypatch.setitem(sys.modules, request.param, Stub(request.param))
    monkeypatch.setattr(trackers, "find_spec", lambda _: True)
    return sys.modules[request.param]


def send(name: str, run: Path) -> None:
    with TrackerLog([name], run, SETTINGS) as log:
        log.add(HISTORY[:1])
        log.add(HISTORY)


@pytest.mark.parametrize("stub", ["wandb"], indirect=True)
def test_wandb_continues_the_run_of_the_same_folder(stub, tmp_path):
    send("wandb", tmp_path)
    (_, first), *logged, (end, _) = stub.calls
    name = identity(tmp_path)
    assert dict(first) == {"name": name, "id": name, "resume": "allow", "dir": str(tmp_path), "config": SETTINGS}
    assert logged == [("log", numbers) for numbers in NUMBERS]
    assert end == "finish"
    assert identity(tmp_path) == name != identity(tmp_path.parent)


@pytest.mark.parametrize("stub", ["mlflow"], indirect=True)
def test_mlflow_gets_parameters_and_metrics(stub, tmp_path):
    send("mlflow", tmp_path)
    assert stub.calls[0] == ("start_run", (identity(tmp_path),))
    assert stub.calls[1] == ("log_params", ({"optim.lr": "0.1", "optim.steps": "None", "seed": "1"},))
    assert stub.calls[2:-1] == [("log_metrics", numbers) for numbers in NUMBERS]
    assert stub.calls[-1] == ("end_run", ())


@pytest.mark.parametrize("stub", ["trackio"], indirect=True)
def test_trackio_gets_settings_and_numbers(stub, tmp_path):
    send("trackio", tmp_path)
    assert dict(stub.calls[0][1])["config"] == {"optim.lr": 0.1, "optim.steps": None, "seed": 1}
    assert stub.calls[1:] == [*(("log", numbers) for numbers in NUMBERS), ("finish", ())]


@pytest.mark.parametrize("stub", ["trackio"], indirect=True)
def test_run_sends_its_validations(stub, tmp_path, monkeypatch):
    monkeypatch.setattr(synthetic, "COUNTS", {"train": 2, "val": 1})
    monkeypatch.setattr(loop.report, "finish", lambda *_: None)
    settings = {"data.batch": 2, "data.crop": (32, 32), "optim.epochs": 2, "network.width": 8}
    danet.train("toy", settings=settings, out=tmp_path / "run", workers=0, tracker="trackio")
    assert [name for name, _ in stub.calls] == ["init", "log", "log", "finish"]
    assert [step for name, (*_, step) in stub.calls[1:3]] == [1, 2]
    assert "id" in json.loads((tmp_path / "run/environment.json").read_text())


@pytest.mark.parametrize("stub", ["mlflow"], indirect=True)
@pytest.mark.parametrize("fails", ["start_run", "log_metrics", "end_run"])
def test_a_tracker_that_fails_ends_no_run(stub, tmp_path, monkeypatch, capsys, fails):
    def fail(*_, **__):
        raise ConnectionError("connection refused\nTraceback ...")

    monkeypatch.setattr(stub, fails, fail)
    with TrackerLog(["mlflow", "tensorboard"], tmp_path, SETTINGS) as log:
        log.add(HISTORY[:1])
        log.add(HISTORY)
    line = "note: the tracker mlflow failed (connection refused) and gets no more rows; all are in "
    assert capsys.readouterr().err == f"{line}{tmp_path / 'metrics.csv'}\n"
    assert list((tmp_path / "tensorboard").iterdir())


def test_unknown_and_missing_trackers_are_refused_at_once(tmp_path, monkeypatch):
    with pytest.raises(InputError, match=r"^tracker: 'wand' is unknown; did you mean wandb"):
        danet.train("toy", out=tmp_path / "run", tracker="wand")
    monkeypatch.setattr(trackers, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"^tracker: needs the package mlflow; install it: uv pip install mlflow"):
        danet.train("toy", out=tmp_path / "run", tracker="mlflow")
    assert not (tmp_path / "run").exists()
