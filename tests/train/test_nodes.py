"""Training on two machines, which are network namespaces here, equals training in one process, and survives a loss."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from killed import same_data
from test_distributed import assert_close, one_process, recipe_of, start, wait_for  # noqa: F401

from danet import recipes

PROGRAM = Path(__file__).parent / "node_program.py"
SECONDS = 1200  # of a busy machine


def test_processes_with_other_data_are_refused_by_all(warm, tmp_path):
    for counts, texts in (((6, 6), {"same"}), ((6, 5), None)):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "LOCAL_RANK": "0"}
        programs = [
            warm.start(same_data, count, errors=tmp_path / f"errors{rank}", RANK=str(rank), **shared)
            for rank, count in enumerate(counts)
        ]
        found = {program.read() for program in programs}
        wait_for(programs)
        where = f"process 1 ({socket.gethostname()})"
        what = f"data.root: {where} has other training samples than process 0: 5 there, 6 here"
        assert found == texts or found == {f"{what}; copy the same files to all machines, with the same names"}


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """Two network namespaces with addresses 10.77.0.1 and 10.77.0.2, joined by a pair of virtual interfaces."""
    if os.geteuid() or not shutil.which("ip"):
        pytest.skip("network namespaces need root and iproute2")
    names = [f"danet{os.getpid()}{letter}" for letter in "ab"]
    links = [f"dn{os.getpid()}{letter}"[-15:] for letter in "ab"]

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", links[0], "type", "veth", "peer", "name", links[1])
        for i, (name, link) in enumerate(zip(names, links, strict=True), 1):
            ip("link", "set", link, "netns", name)
            ip("-n", name, "addr", "add", f"10.77.0.{i}/24", "dev", link)
            ip("-n", name, "link", "set", link, "name", "eth0")
            ip("-n", name, "link", "set", "eth0", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    finally:
        for name in names:
            subprocess.run(["ip", "netns", "delete", name], check=False)


class Node:
    """torchrun on one of the machines, with a process that trains."""

    def __init__(self, machines: list[str], number: int, folder: Path, settings: Path, pause: float = 0):
        self.run, self.log = folder / f"machine{number}" / "run", folder / f"log{number}"
        self.run.parent.mkdir(exist_ok=True)
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc-per-node", "1"]
        torchrun += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "10.77.0.1:29500", "--rdzv-id", "test"]
        torchrun += ["--rdzv-conf", f"is_host={number == 1},join_timeout={SECONDS}"]
        torchrun += ["--local-addr", f"10.77.0.{number}", "--max-restarts", "3"]
        environment = os.environ | {"GLOO_SOCKET_IFNAME": "eth0", "OMP_NUM_THREADS": "1"}
        environment |= {
            "NODE_PAUSE": str(pause),
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
            "PYTHONPATH": str(PROGRAM.parents[1]),
        }
        command = ["ip", "netns", "exec", machines[number - 1], *torchrun, str(PROGRAM), str(self.run), str(settings)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)

    def wait(self) -> int:
        return self.process.wait(SECONDS)

    def kill(self) -> None:
        """End torchrun and its process as a power cut would."""
        workers = subprocess.run(["pgrep", "-P", str(self.process.pid)], capture_output=True, text=True, check=False)
        self.process.kill()
        for pid in workers.stdout.split():
            os.kill(int(pid), signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        if self.process.poll() is None:
            self.kill()

    def text(self) -> str:
        return self.log.read_text()[-4000:]


def steps_of(run: Path) -> int:
    order = run.with_suffix(".order")
    return len(order.read_text().splitlines()) if order.exists() else 0


@pytest.mark.slow
def test_two_machines_equal_one_process_and_survive_the_loss_of_one(machines, one_process, tmp_path):  # noqa: F811
    """The second machine does not see the run folder. It is killed after some steps, and joins again, much slower."""
    settings = tmp_path / "settings.json"
    settings.write_text(json.dumps(recipes.to_dict(recipe_of(6))))
    first, second = started = [Node(machines, number, tmp_path, settings) for number in (1, 2)]
    try:
        end = time.monotonic() + SECONDS
        while steps_of(second.run) < 4:
            assert time.monotonic() < end
            assert first.process.poll() is None, first.text()
            time.sleep(0.2)
        second.kill()
        assert steps_of(first.run) < 12
        second = Node(machines, 2, tmp_path, settings, pause=1)
        started.append(second)
        assert first.wait() == 0, first.text()
        assert second.wait() == 0, second.text()
    finally:
        for node in started:
            node.end()
    assert_close(one_process, first.run)
    assert not (second.run / "last.ckpt").exists()
    assert 12 < steps_of(first.run) <= 12 + 3
