"""Memory of processes on Linux, from /proc."""

import gc
import os
from collections.abc import Callable
from pathlib import Path

import pytest

needs_proc = pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")


def memory(pid: int, key: str) -> int:
    """Return VmRSS or VmHWM of a process, in bytes."""
    return 1024 * int(Path(f"/proc/{pid}/status").read_text().split(f"{key}:")[1].split()[0])


def reset_peak(pid: int) -> int:
    """Set VmHWM of a process to its VmRSS, and return that."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
    return memory(pid, "VmRSS")


def peak_of(function: Callable[[], object]) -> int:
    """Call a function and return by how many bytes the memory of this process was larger meanwhile."""
    gc.collect()
    before = reset_peak(os.getpid())
    function()
    return memory(os.getpid(), "VmHWM") - before
