"""The device to compute on."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

import torch

from danet.errors import InputError
from danet.portability import available_memory


def resolve_device(name: str | None, index: int = 0) -> torch.device:
    """Return the device of this name, after checking that it is available.

    Args:
        name: for example "cpu", "cuda", "cuda:1" or "mps", the GPU of Apple's processors; None: a GPU for CUDA if there
            is one, else the CPU.
        index: the GPU that "cuda" means if there are several.

    Raises:
        InputError: the device is unknown or not available.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.zeros(1, device=device).tolist()
            return device
    except (RuntimeError, AssertionError) as error:
        what = f"{name!r} is not available" + (" (it needs macOS on an Apple processor)" if name == "mps" else "")
        raise InputError("device", what, "use 'cpu' or 'cuda'") from error
    index = index if device.index is None else device.index
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if index >= count:
        gpus = "no GPU was found" if count == 0 else f"{count} GPU{'s were' if count > 1 else ' was'} found"
        raise InputError("device", f"{name!r} is not available ({gpus})", "use 'cpu', or leave `device` out")
    return torch.device("cuda", index)


def free_memory(device: torch.device) -> int | None:
    """Return the bytes of memory that are free on a device; None if they are not known."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else available_memory()


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """If wanted, let torch refuse operations whose results vary between runs, until the end of the block."""
    if not wanted:
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])


@cache
def let_forks_compute() -> None:
    """Let the processes forked from this one compute on the CPU, with one thread each.

    A fork has none of the threads of OpenMP that this process has started, and would wait for them forever.
    """
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))
