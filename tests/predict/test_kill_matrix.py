"""Kills of everything that takes part in a batch on Ray: each image exactly once, with the bytes of the local engine.

The cluster is on this machine: a head, on which the command runs, and nodes of one CPU for the workers. In each round,
a batch gets up to five kills; then its command is run until it ends by itself.
"""

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from exported import onnx_content
from killed import ray_batch
from PIL import Image
from test_batch import labels_of, rows_of

from danet.cli import main

IMAGES = 48
PER_ROUND = 5  # kills
SECONDS = 600  # until something must have happened on a busy machine
ROUNDS = [pytest.param(1, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.stress)]

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def cluster():
    """A running Ray cluster: a head without CPUs and a node of two."""
    from ray.cluster_utils import Cluster

    head = {"num_cpus": 0, "object_store_memory": 80 << 20, "include_dashboard": False}
    running = on_a_busy_machine(lambda: Cluster(initialize_head=True, head_node_args=head))
    add_node(running)
    yield running
    running.shutdown()


def add_node(cluster) -> None:
    on_a_busy_machine(lambda: cluster.add_node(num_cpus=2, object_store_memory=80 << 20))


def on_a_busy_machine(start):
    """Try again to start a node: its processes must find each other within 15 s."""
    for _ in range(9):
        with suppress(Exception):
            return start()
    return start()


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A folder with a network of one convolution and `IMAGES` images, two of which cannot be read."""
    folder, rng = tmp_path_factory.mktemp("source"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for i in range(IMAGES - 2):
        Image.fromarray(rng.integers(0, 256, (24, 30 + i, 3), np.uint8)).save(folder / f"photos/{i:02}.png")
    for name in ("empty.png", "07b.png"):
        (folder / "photos" / name).write_bytes(b"")
    (folder / "net.onnx").write_bytes(onnx_content())
    return folder


@pytest.fixture(scope="module")
def whole(source):
    """The results of the local engine."""
    assert main(["predict", *words(source, source / "whole"), "--shard", "1/1"]) == 2
    return source / "whole"


def words(source: Path, out: Path) -> list[str]:
    return [str(source / "photos"), "--weights", str(source / "net.onnx"), "--out", str(out)]


class Run:
    """A batch of all images, whose command can be started again and again."""

    def __init__(self, warm, cluster, source: Path, folder: Path):
        self.folder, self.out, self._source = folder, folder / "out", source
        (folder / "faults").mkdir()
        self._warm, self._environment = warm, {"RAY_ADDRESS": str(cluster.address), "OMP_NUM_THREADS": "1"}

    def faults(self, names: list[str]) -> None:
        for number, name in enumerate(names):
            (self.folder / f"faults/{number}-{name}").touch()

    def start(self):
        options = [*words(self._source, self.out), "--engine", "ray", "--workers", "2"]
        faults, errors = str(self.folder / "faults"), self.folder / "errors"
        return self._warm.start(ray_batch, faults, *options, errors=errors, **self._environment)

    def results(self) -> int:
        """Return how many shards are complete."""
        return len(list(self.out.glob("statistics.parquet/shard*")))

    def wait_for_more(self, before: int) -> bool:
        """Wait until more shards are complete; return whether some are still missing."""
        wait_until(lambda: self.results() > before or before == IMAGES)
        return self.results() < IMAGES - 8

    def check(self, whole: Path, done: int) -> None:
        """Assert that each image is there once, with the bytes of the local engine, and that all faults happened."""
        assert main(["predict", *words(self._source, self.out), "--shard", "1/1"]) == 2  # it removes what kills left
        assert rows_of(self.out) == rows_of(whole)
        assert labels_of(self.out) == labels_of(whole)
        assert not [path for path in self.out.rglob("*") if path.name.startswith((".", "_"))]
        assert len(list((self.folder / "faults").glob("done*"))) == done


@pytest.fixture
def new_run(warm, cluster, source, tmp_path):
    def new(name: object) -> Run:
        (tmp_path / str(name)).mkdir()
        return Run(warm, cluster, source, tmp_path / str(name))

    return new


@pytest.mark.parametrize("rounds", ROUNDS)
@pytest.mark.parametrize("fault", ["kill-png", "kill-parquet"])
def test_workers_killed_while_writing_and_before_the_row(new_run, whole, fault, rounds):
    """A label map is half written, or complete without its row."""
    for number in range(rounds):
        run = new_run(number)
        run.faults([f"{fault}-{1 + (number + i) % 3}" for i in range(PER_ROUND)])
        program = run.start()
        assert program.wait() == 2, program.stderr()
        run.check(whole, PER_ROUND)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_full_disks_of_one_worker(new_run, whole, rounds):
    for number in range(rounds):
        run = new_run(number)
        run.faults([f"full-{('png', 'parquet')[i % 2]}-{1 + (number + i) % 3}" for i in range(PER_ROUND)])
        for _ in range(PER_ROUND + 1):
            program = run.start()
            assert program.wait() == 2, program.stderr()
            if "could not be segmented" in program.stderr():
                break
            assert "(No space left on device); free some space" in program.stderr()
        run.check(whole, PER_ROUND)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_of_the_command(new_run, whole, rounds):
    for number in range(rounds):
        run, kills = new_run(number), 0
        while kills < PER_ROUND:
            before, program = run.results(), run.start()
            assert run.wait_for_more(before), "finished before it was killed"
            time.sleep(0.05 * (3 * number + kills) % 0.35)
            assert program.kill() == -signal.SIGKILL
            kills += 1
        program = run.start()
        assert program.wait() == 2, program.stderr()
        run.check(whole, 0)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_of_workers(new_run, whole, rounds):
    for number in range(rounds):
        run = new_run(number)
        program = run.start()
        for kill in range(PER_ROUND):
            assert run.wait_for_more(run.results()), "finished before a worker was killed"
            time.sleep(0.05 * (3 * number + kill) % 0.35)
            os.kill(actors()[kill % 2], signal.SIGKILL)
        assert program.wait() == 2, program.stderr()
        run.check(whole, 0)


@pytest.mark.parametrize("rounds", ROUNDS)
def test_kills_of_raylets(new_run, whole, rounds, cluster):
    """The raylet of the workers' node ends, and another node takes its place. No image is to blame."""
    kills = number = 0
    while kills < PER_ROUND * rounds:
        run = new_run(number)
        program = run.start()
        assert run.wait_for_more(0), "finished before a raylet was killed"
        for _ in range(PER_ROUND):
            time.sleep(0.05 * kills % 0.35)
            (node,) = cluster.worker_nodes
            cluster.remove_node(node, allow_graceful=False)
            add_node(cluster)
            kills += 1
            if not run.wait_for_more(run.results()):
                break
        number += 1
        assert program.wait() == 2, program.stderr()
        run.check(whole, 0)


def actors() -> list[int]:
    """Return the two workers, when both run."""
    found: list[int] = []

    def both() -> bool:
        found.clear()
        for file in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                if file.read_bytes().startswith(b"ray::_Actor"):
                    found.append(int(file.parent.name))
            except OSError:  # it has ended
                continue
        return len(found) > 1

    wait_until(both)
    return found


def wait_until(condition) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)
