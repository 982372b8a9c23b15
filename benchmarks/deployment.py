"""What it takes to segment one image: size on disk, start of the process, peak memory, time per image, by runtime.

    uv venv light && uv pip install --python light/bin/python --group runtime openvino
    python -m benchmarks.deployment --runtime light/bin/python --json benchmarks/results/deployment.json

Each way is a process of its own; all take turns. `--runtime` is an environment without torch; the others are compared
in this one, which needs the extras `export` and `compare`. With `--ultralytics`, an environment that has it is measured
too: nothing of it is imported here. The networks of others have random weights, which does not change their speed.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.measure import environment
from danet.errors import InputError

ROOT = Path(__file__).parents[1]
IMAGE = ROOT / "examples/street.jpg"

_SIZE = """
import json, re, sys
from importlib.metadata import PackageNotFoundError, distribution
seen, waiting = {}, [(name, "") for name in sys.argv[1:]]
while waiting:
    name, extra = waiting.pop()
    name = name.lower().replace("_", "-")
    if (name, extra) in seen:
        continue
    try:
        package = distribution(name)
    except PackageNotFoundError:
        seen[name, extra] = 0
        continue
    files = [file.locate() for file in package.files or ()]
    seen[name, extra] = sum(file.stat().st_size for file in files if file.is_file())
    for line in package.requires or ():
        required, extras = re.match(r"([\\w.-]+)(?:\\[(.*?)\\])?", line).groups()
        condition = re.search(r"extra == ['\\"](.*?)['\\"]", line)
        if (condition[1] if condition else "") == extra:
            waiting += [(required, other.strip()) for other in ["", *(extras or "").split(",")]]
print(json.dumps({name: size for (name, extra), size in seen.items() if size and not extra}))
"""
"""Prints the bytes of the packages named, and of those that they require, as installed."""

_MEASURE = """
import json, os, sys, time
quiet = [(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
start = time.perf_counter()
child = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=quiet)
_, status, usage = os.wait4(child, 0)
seconds = time.perf_counter() - start
print(json.dumps([status, seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024]))
"""
"""Runs a program. On Linux, the peak of a process begins with that of its parent: here 10 MB, not torch's."""

_LOAD = "import sys, danet; danet.load(sys.argv[2])"

_DANET = """
import json, sys, time, danet
predictor = danet.load(sys.argv[2])
seconds = []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    predictor(sys.argv[1])
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""

_SMP = """
import json, sys, time
import numpy as np, torch
import segmentation_models_pytorch as smp
from PIL import Image
network = smp.Unet("mobilenet_v2", encoder_weights=None, classes=11).eval()
seconds = []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    image = Image.open(sys.argv[1]).convert("RGB")
    image = image.resize([max(32, round(side / max(image.size) * 640 / 32) * 32) for side in image.size])
    x = torch.from_numpy((np.asarray(image) / 255).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        labels = network(x).argmax(1)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""

_ULTRALYTICS = """
import json, sys, time
from ultralytics import YOLO
network = YOLO("yolo11n-seg.yaml")
seconds = []
for _ in range(int(sys.argv[3])):
    start = time.perf_counter()
    network(sys.argv[1], verbose=False)
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""

_BASE = ("numpy", "pillow", "pyyaml", "tyro", "rich", "jaxtyping")
_TORCH = ("torch", "torchvision", "timm", "safetensors", *_BASE)


@dataclass(frozen=True)
class Options:
    """Measure disk, start, memory and time per image of each way to run a network.

    Example: python -m benchmarks.deployment --runtime light/bin/python --json deployment.json
    """

    runtime: Path
    """the Python of an environment without torch, with the packages of the group runtime"""
    ultralytics: Path | None = None
    """the Python of an environment with ultralytics"""
    image: Path = IMAGE
    """the image"""
    repeats: int = 5
    """runs of each"""
    json: JsonFile = None


class Way(NamedTuple):
    """A way to segment an image.

    Args:
        python: of the environment.
        packages: that it needs, for the size on disk.
        process: what is measured as a whole process: arguments of Python.
        load: the same for loading only; () if it is not measured.
        loop: the arguments that print the seconds of each image as JSON.
    """

    python: Path
    packages: tuple[str, ...]
    process: tuple[str, ...]
    load: tuple[str, ...]
    loop: tuple[str, ...]


class Spent(NamedTuple):
    """What a process took: seconds on the clock, seconds of the CPU, peak resident bytes."""

    seconds: float
    cpu: float
    peak: int


def run(options: Options) -> dict[str, Any]:
    """Measure all ways in turns."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        ways = _ways(options, folder)
        spent: dict[str, list[Spent]] = {way: [] for way in ways}
        loads: dict[str, list[Spent]] = {way: [] for way in ways}
        images: dict[str, list[float]] = {way: [] for way in ways}
        for i in range(options.repeats + 1):
            for name, way in ways.items():
                done = _spent([way.python, *way.process], folder)
                loaded = _spent([way.python, *way.load], folder) if way.load else None
                if i:  # the first one fills the file system's cache
                    spent[name].append(done)
                    loads[name] += [] if loaded is None else [loaded]
        for name, way in ways.items():
            images[name] = json.loads(_output([way.python, *way.loop], folder).splitlines()[-1])[1:]
        entries = {
            name: {
                "packages": json.loads(_output([way.python, "-c", _SIZE, *way.packages], folder)),
                "process": _summary(spent[name]),
                "load": _summary(loads[name]) if loads[name] else None,
                "image_s": median(images[name]),
            }
            for name, way in ways.items()
        }
        files = {file.suffix: file.stat().st_size for file in sorted(folder.glob("net.*"))}
    load = os.getloadavg()[0]
    return {"environment": environment(), "load_average": load, "image": options.image.name} | {
        "files": files,
        "ways": entries,
    }


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    lines = [f"{'':34} {'disk MB':>8} {'start s':>8} {'CPU s':>6} {'load s':>7} {'peak MB':>8} {'ms/image':>9}"]
    for name, way in result["ways"].items():
        process, load = way["process"], way["load"]
        lines.append(
            f"{name:34} {sum(way['packages'].values()) / 1e6:8.0f} {process['seconds']:8.2f} {process['cpu']:6.2f} "
            f"{'' if load is None else format(load['seconds'], '.2f'):>7} {process['peak'] / 1e6:8.0f} "
            f"{1000 * way['image_s']:9.0f}"
        )
    return "\n".join(lines)


def _ways(options: Options, folder: Path) -> dict[str, Way]:
    torch, count = Path(sys.executable), str(options.repeats + 1)
    image = str(options.image.resolve())

    def danet(python: Path, packages: Sequence[str], weights: str) -> Way:
        out = ("--out", str(folder / "out"), "--overwrite")
        process = ("-m", "danet", "predict", image, "--weights", weights, *out)
        return Way(
            python, tuple(packages), process, ("-c", _LOAD, image, weights), ("-c", _DANET, image, weights, count)
        )

    def other(python: Path, packages: Sequence[str], program: str) -> Way:
        return Way(python, tuple(packages), ("-c", program, image, "", "1"), (), ("-c", program, image, "", count))

    default, light = str(ROOT / "danet/default.safetensors"), options.runtime.absolute()
    ways = {"danet, PyTorch": danet(torch, _TORCH, default)}
    for runtime, package, to, suffix in (
        ("ONNX Runtime", "onnxruntime", "onnx", ".onnx"),
        ("OpenVINO", "openvino", "openvino", ".xml"),
    ):
        file = str(folder / f"net{suffix}")
        if _has(torch, "onnxscript", package) and _has(light, package):
            _output([torch, "-m", "danet", "export", "default", "--to", to, "--out", file, "--no-verify"], folder)
            ways[f"danet, {runtime}, without torch"] = danet(light, (*_BASE, package), file)
    if len(ways) == 1:
        raise InputError("runtime", "has no runtime that this environment can export to", "install onnxruntime in both")
    if _has(torch, "segmentation_models_pytorch"):
        ways["smp Unet, PyTorch"] = other(torch, ("segmentation-models-pytorch", "torch"), _SMP)
    if options.ultralytics is not None:
        ways["ultralytics, PyTorch"] = other(
            options.ultralytics.absolute(), ("ultralytics", "opencv-python-headless"), _ULTRALYTICS
        )
    return ways


def _summary(runs: Sequence[Spent]) -> dict[str, float]:
    return {field: median(getattr(one, field) for one in runs) for field in Spent._fields}


def _spent(arguments: Sequence[object], folder: Path) -> Spent:
    """Run a process to its end, and return what it took."""
    program = [*map(str, arguments)]
    status, *spent = json.loads(_output([sys.executable, "-I", "-S", "-c", _MEASURE, *program], folder))
    if code := os.waitstatus_to_exitcode(status):
        raise InputError(" ".join(program)[:200], f"ended with {code}", "see its error above")
    return Spent(*spent)


def _output(arguments: Sequence[object], folder: Path) -> str:
    done = subprocess.run([*map(str, arguments)], cwd=folder, env=_environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise InputError(" ".join(map(str, arguments))[:200], f"ended with {done.returncode}", "see its error above")
    return done.stdout


def _has(python: Path, *packages: str) -> bool:
    program = "import sys; from importlib.util import find_spec; sys.exit(any(not find_spec(n) for n in sys.argv[1:]))"
    return subprocess.run([python, "-c", program, *packages], check=False).returncode == 0


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "PYTHONPATH": str(ROOT)}  # bytecode is written, as on a user's machine


if __name__ == "__main__":
    sys.exit(command.main("deployment", Options, run, table))
