"""No command makes a network connection, except to download pretrained weights from the Hugging Face Hub.

The commands run in a child process (`test_offline.py FOLDER NAME...`). An audit hook counts and blocks connections and
name lookups in Python. If the system allows network namespaces (unshare), the kernel's counters cover all libraries.
"""

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COMMANDS = {  # in this order: later commands read what earlier ones wrote
    "recipes": ["recipes"],
    "init": ["init", "mine"],
    "import": ["import", "exported", "imported"],
    "check": ["check", "mine", "--manifest", "hashes.json", "--json", "check.json"],
    "predict": ["predict", "mine/images/0.png", "--out", "segmented"],
    "look": [
        *("look", "mine/images/0.png", "--weights", "tiny.safetensors", "--point", "20", "10"),
        *("--without", "--out", "look.html"),
    ],
    "evaluate": ["evaluate", "tiny.safetensors", "--dataset", "toy", "--report", "evaluation.html"],
    "robustness": ["robustness", "tiny.safetensors", "--dataset", "toy", "--corruptions", "fog", "--severities", "3"],
    "dry run": ["train", "toy", "--dry-run"],
    "train": ["train", "toy", "--out", "run", "--workers", "1"],
    "resume": ["train", "--resume", "run"],
    "folder": ["train", "folder", "--data.root", "mine", "--out", "run2", "--cache", "cached"],
    "report": ["report", "run", "--overwrite"],
    "two runs": ["report", "run", "run2", "--out", "both.html"],
    "convert": ["convert", "DANet.pth.tar", "converted.safetensors"],
    "onnx": ["export", "tiny.safetensors", "--to", "onnx", "--out", "tiny.onnx"],
    "by onnx": ["predict", "mine/images", "--weights", "tiny.onnx", "--out", "by_onnx"],
    "openvino": ["export", "tiny.safetensors", "--to", "openvino", "--out", "tiny.xml"],
    "hub": ["train", "folder", "--data.root", "mine", "--out", "run3", "--network.pretrained"],
}
QUICK = ("recipes", "init", "import", "check", "predict", "look", "evaluate", "dry run")
SLOW = tuple(name for name in COMMANDS if name != "hub")
COUNTERS = {"Ip": ("OutRequests", "OutNoRoutes"), "Tcp": ("ActiveOpens",), "Udp": ("OutDatagrams",)}
COUNTERS_6 = ("Ip6OutRequests", "Ip6OutNoRoutes")


# child process


def block_connections() -> list[str]:
    """Block connections and name lookups in Python; return a list to which each attempt is appended."""
    attempts: list[str] = []
    names = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}

    def hook(event: str, arguments: tuple) -> None:
        if event not in names:
            return
        local = event not in ("socket.getaddrinfo", "socket.gethostbyname") and not isinstance(arguments[1], tuple)
        if not local:  # addresses of local sockets are paths or missing
            attempts.append(f"{event} {arguments}")
            raise OSError("connections are blocked")

    sys.addaudithook(hook)
    return attempts


def sent_packets() -> int:
    """Return the kernel's count of packets in this network namespace: sent, or dropped because there is no route."""
    lines = [line.split() for line in Path("/proc/self/net/snmp").read_text().splitlines()]
    total = 0
    for names, values in zip(lines[::2], lines[1::2], strict=True):
        fields = dict(zip(names, values, strict=True))
        total += sum(int(fields[name]) for name in COUNTERS.get(names[0].rstrip(":"), ()))
    snmp6 = Path("/proc/self/net/snmp6")
    rows = snmp6.read_text().split() if snmp6.exists() else []
    return total + sum(int(value) for name, value in zip(rows[::2], rows[1::2], strict=True) if name in COUNTERS_6)


def prepare(folder: Path) -> None:
    """Create the files that the commands read, and shorten the recipes to seconds."""
    import torch
    from exports import coco
    from released import released_state

    from danet import DANet, recipes
    from danet.data import registry
    from danet.weights import file as weights_file

    os.chdir(folder)
    rng = np.random.default_rng(0)
    for i in range(6):
        mask = np.where(np.arange(48)[None] > 6 * i + 3, 255, 0).astype(np.uint8).repeat(40, 0)
        for name, array in (("images", rng.integers(0, 256, (40, 48, 3), np.uint8)), ("masks", mask)):
            (folder / "mine" / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(folder / f"mine/{name}/{i}.png")
    coco(folder / "exported")
    arguments = {"num_classes": 6, "backbone": "test_resnet", "width": 16}
    card = weights_file.Card(arguments, registry.DATASETS["toy"].classes, (0.5,) * 3, (0.5,) * 3, size=64)
    weights_file.save(folder / "tiny.safetensors", DANet(**arguments), card)
    if "convert" in sys.argv:
        torch.save({"state_dict": released_state(DANet(19, "resnet50"))}, folder / "DANet.pth.tar")
    from danet.data.datasets import synthetic

    synthetic.COUNTS = {"train": 8, "val": 2}
    for name in ("folder", "toy"):
        recipe = recipes.RECIPES[name]
        small = replace(recipe.network, backbone="test_resnet", output_stride=16, width=16, pretrained=False)
        crops = replace(recipe.data, crop=(32, 32), size=48, scale_from="size", batch=4)
        recipes.RECIPES[name] = replace(recipe, network=small, data=crops, optim=replace(recipe.optim, epochs=1))


def child(folder: Path, names: list[str]) -> None:
    """Run commands, and print their exit statuses, the attempts and the packet counts as JSON."""
    attempts = block_connections()
    prepare(folder)
    from danet.cli import main

    status, packets = {}, {"imports": sent_packets()}
    for name in names:
        before = sent_packets()
        with contextlib.redirect_stdout(sys.stderr):
            try:
                status[name] = main(list(COMMANDS[name]))
            except SystemExit as stop:
                status[name] = stop.code
        packets[name] = sent_packets() - before
    if "onnx" in names:
        time.sleep(10)  # ONNX Runtime sends telemetry some seconds after a session is created
    packets["afterwards"] = sent_packets() - sum(packets.values())
    print(json.dumps({"status": status, "attempts": attempts, "sent": packets}))


# parent process


def without_network() -> list[str]:
    """Return a command prefix that runs a program without a network; empty if that is not allowed."""
    call = ["unshare", "--user", "--map-root-user", "--net"]
    if shutil.which("unshare") is None or subprocess.run([*call, "true"], capture_output=True, check=False).returncode:
        return []
    return call


def run(folder: Path, *names: str) -> dict:
    """Run commands in a child process, and return its results and its standard error."""
    home = folder / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "XDG_"))}
    environment |= {
        "HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3])),
    }
    call = [*without_network(), sys.executable, "-W", "ignore", __file__, str(folder), *names]
    done = subprocess.run(call, capture_output=True, text=True, env=environment, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1]) | {"stderr": done.stderr}


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize("names", [QUICK, pytest.param(SLOW, marks=pytest.mark.slow)], ids=["quick", "all"])
def test_no_command_makes_a_connection(names, tmp_path):
    result = run(tmp_path, *names)
    assert result["status"] == dict.fromkeys(names, 0), result["stderr"][-3000:]
    assert result["attempts"] == []
    if without_network():
        assert set(result["sent"].values()) == {0}, result["sent"]


def test_onnx_runtime_telemetry_is_disabled_before_import(monkeypatch):
    """The test above checks by the kernel's counters that nothing is sent."""
    from danet.weights import runtimes

    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    seen = []

    def import_module(name: str):
        seen.append((name, os.environ.get("ORT_DISABLE_TELEMETRY")))
        return sys

    monkeypatch.setattr(runtimes, "import_module", import_module)
    runtimes.import_optional("onnxruntime", "export", "a test")
    assert seen == [("onnxruntime", "1")]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_pretrained_weights_are_requested_from_the_hub(tmp_path):
    result = run(tmp_path, "init", "hub")
    assert result["status"] == {"init": 0, "hub": 2}
    assert any("huggingface" in attempt for attempt in result["attempts"])
    assert "cannot download the pretrained weights of" in result["stderr"]


CONNECT_BY_CTYPES = """
import ctypes, sys
sys.path.insert(0, sys.argv[1])
import test_offline
attempts, before = test_offline.block_connections(), test_offline.sent_packets()
libc = ctypes.CDLL(None, use_errno=True)
descriptor = libc.socket(2, 2, 0)
address = (2).to_bytes(2, sys.byteorder) + (53).to_bytes(2, "big") + bytes([192, 0, 2, 1]) + bytes(8)
libc.sendto(descriptor, b"x", 1, 0, address, len(address))
libc.connect(libc.socket(2, 1, 0), address, len(address))
print(len(attempts), test_offline.sent_packets() - before)
"""


@pytest.mark.skipif(not without_network(), reason="network namespaces are not allowed")
def test_kernel_counters_detect_what_the_audit_hook_misses():
    call = [*without_network(), sys.executable, "-c", CONNECT_BY_CTYPES, str(Path(__file__).parent)]
    done = subprocess.run(call, capture_output=True, text=True, check=True)
    by_hook, by_kernel = map(int, done.stdout.split())
    assert by_hook == 0
    assert by_kernel >= 1


if __name__ == "__main__":
    child(Path(sys.argv[1]), sys.argv[2:])
