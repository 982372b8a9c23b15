"""Measure time, matrix-product rate and peak memory.

Times are compared only within a run: the callables take turns, so that changes in the machine's speed affect all of
them. Memory is measured in a fresh process, as the peak during the call above the memory before it.
"""

import multiprocessing
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch

Prepare = Callable[..., Callable[[], object]]
"""A module-level function that creates the inputs and returns the call to measure."""


@dataclass(frozen=True)
class Timing:
    """Seconds of each run, in order."""

    seconds: list[float]

    @property
    def median(self) -> float:
        """The median in seconds."""
        return median(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        """Return median, fastest, slowest and all runs as JSON values."""
        ends = {"fastest_s": min(self.seconds), "slowest_s": max(self.seconds)}
        return {"median_s": self.median, **ends, "runs_s": self.seconds}


def interleaved(
    ways: Mapping[str, Callable[[], object]],
    repeats: int = 5,
    warmup: int = 1,
    device: torch.device | str = "cpu",
) -> dict[str, Timing]:
    """Time several calls; in every round each of them runs once.

    Args:
        ways: the calls by name.
        repeats: rounds that count.
        warmup: rounds before them.
        device: on "cuda", a run ends when the GPU has finished.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(warmup + repeats):
        for name, way in ways.items():
            _synchronize(device)
            start = time.perf_counter()
            way()
            _synchronize(device)
            if i >= warmup:
                seconds[name].append(time.perf_counter() - start)
    return {name: Timing(runs) for name, runs in seconds.items()}


def gemm(size: int = 4096, device: torch.device | str = "cpu") -> tuple[Callable[[], object], int]:
    """Return a call that multiplies two square float32 matrices, and its floating-point operations.

    Time the call together with others in `interleaved`: operations / median is the rate to compare theirs with.
    """
    left, right = torch.rand(2, size, size, device=device)
    out = torch.empty_like(left)
    return lambda: torch.mm(left, right, out=out), 2 * size**3


def peak_memory(prepare: Prepare, *args: object) -> int | None:
    """Return the peak memory of a call in bytes, above the memory before it, measured in a fresh process.

    On the CPU this is resident memory; if `prepare` uses a GPU, it is the GPU's allocated memory.

    Args:
        prepare: `prepare(*args)` runs in the fresh process and returns the call; its own memory is not counted. It
            must be picklable.
        args: of `prepare`; picklable.

    Returns:
        None if the process was killed, for example by the kernel when memory runs out.
    """
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context) as pool:
        try:
            return pool.submit(_peak, torch.get_num_threads(), prepare, *args).result()
        except BrokenProcessPool:
            return None


def environment(device: torch.device | str = "cpu") -> dict[str, Any]:
    """Return what the numbers depend on: device, cores, threads, memory, versions."""
    device = torch.device(device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor()
    return {
        "device": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "memory_bytes": available_memory(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def announce(text: str) -> None:
    """Print what is being measured to standard error if it is a terminal."""
    if sys.stderr.isatty():
        print(text, file=sys.stderr)


def processor() -> str:
    """Return the name of the CPU if the system provides it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def available_memory() -> int | None:
    """Return the bytes that a new process can use without swapping; None if unknown."""
    return _proc("meminfo", "MemAvailable")


def _synchronize(device: torch.device | str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def _peak(threads: int, prepare: Prepare, *args: object) -> int:
    torch.set_num_threads(threads)
    call = prepare(*args)
    if torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()
        start = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - start
    start = _reset_peak()
    result = call()
    peak = _resident_peak()
    del result
    return peak - start


def _reset_peak() -> int:
    """Reset the peak of resident memory and return the current value in bytes."""
    try:
        Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM = VmRSS
    except OSError:
        return _resident_peak()  # other systems: the peak so far; lower peaks are missed
    return _proc("self/status", "VmRSS") or 0


def _resident_peak() -> int:
    if (peak := _proc("self/status", "VmHWM")) is not None:
        return peak
    import resource

    unit = 1 if platform.system() == "Darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _proc(file: str, field: str) -> int | None:
    path = Path("/proc") / file
    if not path.exists():
        return None
    values = [line.split()[1] for line in path.read_text().splitlines() if line.startswith(f"{field}:")]
    return 1024 * int(values[0]) if values else None
