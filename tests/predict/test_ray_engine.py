"""Batches on Ray: kills of workers and of the command lose and double nothing, and give the bytes of one process."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from danet import InputError
from danet.cli import main
from danet.predict import batch_engines, ray_workers
from danet.predict.manifest import Entry
from danet.predict.ray_workers import FinishedAlone, Workers

SECONDS = 600  # until something must have happened on a busy machine


def test_one_cpu_is_left_to_ray():
    assert Workers().resolve(8, 0) == (7, 1.0, 0.0)
    assert Workers().resolve(1, 0) == (1, 0.5, 0.0)
    assert Workers(4).resolve(3, 0) == (4, 0.5, 0.0)
    assert Workers().resolve(64, 8) == (8, 1.0, 1.0)
    assert Workers(gpus=0.25).resolve(64, 2) == (8, 1.0, 0.25)
    assert Workers(gpus=0).resolve(64, 2) == (63, 1.0, 0)
    with pytest.raises(InputError, match="gpus_per_worker: a worker needs 1 GPUs, and the Ray cluster has 0"):
        Workers(gpus=1).resolve(8, 0)
    with pytest.raises(InputError, match="workers: must be at least 1, got 0"):
        Workers(0)
    with pytest.raises(InputError, match=r"gpus_per_worker: must be 0 or more, got 1\.5"):
        Workers(gpus=1.5)


def test_bundles_hold_whole_shards_in_order():
    shards = [[Entry(f"{i}/{k}", "", 0, 0, "", i) for k in range(3)] for i in range(40)]
    bundles = batch_engines._bundles(shards, 2)
    assert [entry for bundle in bundles for entry in bundle] == [entry for shard in shards for entry in shard]
    assert {len(bundle) for bundle in bundles} == {9, 3}
    assert max(map(len, batch_engines._bundles(shards * 100, 2))) <= 66


def test_without_ray_one_line_says_how_to_install_it(tmp_path, monkeypatch, capsys, tiny_weights):
    monkeypatch.setitem(sys.modules, "ray", None)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    words = ["predict", str(tmp_path / "a.png"), "--engine", "ray", "--weights", str(tiny_weights)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 2
    line = "error: --engine: ray is not installed; in a clone of danet, run: uv sync --extra ray"
    assert capsys.readouterr().err.splitlines()[-1] == line


class Fragile:
    """A worker that items can kill."""

    def __init__(self, marks: str):
        self.marks = Path(marks)

    def many(self, items):
        return [self.alone(item) for item in items]

    def alone(self, item):
        if item == "error":
            raise InputError(item, "cannot be read", "leave it out")
        if item == "killer":
            os.kill(os.getpid(), signal.SIGKILL)
        if item == "once" and not (self.marks / item).exists():
            (self.marks / item).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return f"{item} done"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_only_an_item_that_kills_two_workers_alone_is_given_up(tmp_path, monkeypatch):
    import ray

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    with ray_workers.cluster(Workers(2)) as resources:
        assert resources[0] == 2
        start = partial(Fragile, str(tmp_path))
        bundles = [["a", "killer", "b"], ["c", "once"], ["d"]]
        events = list(ray_workers.process(start, bundles, resources, lambda items: [i for i in items if i != "a"]))
        alone = {event.item: event.result for event in events if isinstance(event, FinishedAlone)}
        assert alone == {"killer": None, "b": "b done", "c": "c done", "once": "once done"}
        assert [event.result for event in events if not isinstance(event, FinishedAlone)] == [["d done"]]
        with pytest.raises(InputError, match="error: cannot be read; leave it out"):
            list(ray_workers.process(start, [["error"]], resources, list))
        monkeypatch.setattr(ray_workers, "_DEATHS_IN_A_ROW", 1)
        monkeypatch.setattr(ray_workers, "KILLS", 99)
        with pytest.raises(InputError, match="engine: 3 workers died in a row"):
            list(ray_workers.process(start, [["killer"]], resources, list))
    assert not ray_processes()


@pytest.mark.parametrize("kills", [pytest.param(1, marks=pytest.mark.slow), pytest.param(25, marks=pytest.mark.stress)])
def test_kills_of_workers_and_the_command_lose_and_double_nothing(tmp_path, tiny_weights, kills):
    photos, rng = tmp_path / "photos", np.random.default_rng(0)
    photos.mkdir()
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (200, 300 + i, 3), np.uint8)).save(photos / f"{i:02}.png")
    (photos / "bad.png").write_bytes(b"no image")
    words = [sys.executable, "-m", "danet", "predict", str(photos), "--weights", str(tiny_weights), "--device", "cpu"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    whole = tmp_path / "whole"
    assert subprocess.run([*words, "--out", str(whole), "--shard", "1/1"], env=environment).returncode == 2
    for kill in range(kills):
        out = tmp_path / f"out{kill}"
        command = [*words, "--out", str(out), "--engine", "ray", "--workers", "2"]
        with subprocess.Popen(command, env=environment) as driver:
            wait_until(lambda out=out, driver=driver: labels(out) or driver.poll() is not None)
            driver.kill()
        wait_until(lambda: not ray_processes())
        before = len(labels(out))
        assert before < 24
        with subprocess.Popen(command, env=environment) as driver:
            wait_until(lambda out=out, before=before: len(labels(out)) > before or driver.poll() is not None)
            for pid in ray_processes("_Actor"):
                os.kill(pid, signal.SIGKILL)
            assert driver.wait() == 2  # one image cannot be read
        assert rows(out) == rows(whole)
        assert {path.name: path.read_bytes() for path in labels(out)} == {
            path.name: path.read_bytes() for path in labels(whole)
        }
        assert not ray_processes()


def labels(out: Path) -> list[Path]:
    return list(out.glob("*_labels.png"))


def rows(out: Path) -> list[dict]:
    files = (out / "statistics.parquet").iterdir()
    return sorted(
        (row for file in files for row in pq.read_table(file).drop_columns(["ms"]).to_pylist()),
        key=lambda row: row["path"],
    )


def ray_processes(name: str = "") -> list[int]:
    """The processes of Ray that run, of this class if given."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            text = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if text.startswith(f"ray::{name}") if name else text.startswith("ray::") or "/ray/core/src/ray/" in text:
            found.append(int(file.parent.name))
    return found


def wait_until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
