"""Training on several machines: process 0 alone reads the run folder, and all must have the same data."""

import json
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from danet import recipes
from danet.data import fingerprint
from danet.data.samples import Samples
from danet.errors import InputError, print_note
from danet.recipes import Recipe
from danet.train import checkpoint, distributed, run_folder
from danet.train.distributed import Process


def read_recipe(process: Process, folder: Path) -> Recipe:
    """Return the recipe of a run, as process 0 reads it.

    Raises:
        InputError: not a run folder, or an invalid recipe.
    """
    text = broadcast(process, lambda: json.dumps(recipes.to_dict(run_folder.read_recipe(folder))).encode())
    return recipes.from_dict(json.loads(text), str(folder / run_folder.RECIPE))


def read_checkpoint(process: Process, folder: Path, recipe: Recipe, resume: bool) -> dict[str, Any] | None:
    """Return the newest checkpoint of a run that is resumed or that torchrun has restarted; None for a new run.

    Process 0 reads it and sends it to the others. torchrun counts the restarts of each machine on its own, so a machine
    that has joined again does not know of any.

    Args:
        process: this process.
        folder: the run folder, which only process 0 must see.
        recipe: the recipe of the command.
        resume: whether the run is resumed.

    Raises:
        InputError: the run is resumed and has no readable checkpoint; the folder of a new run is not empty.
    """
    restarted = process.sum(torch.tensor(int(distributed.restarted())))

    own: list[dict[str, Any]] = []

    def read() -> bytes:
        if not (resume or (restarted and run_folder.can_continue(folder, recipe))):
            if folder.is_dir():
                run_folder.check_unused(folder, recipe)  # before anything that takes time
            return b""
        own.append(checkpoint.newest(folder))
        return checkpoint.to_bytes(own[0]) if process.world > 1 else b""

    content = broadcast(process, read)
    if process.main:
        return own[0] if own else None
    return checkpoint.from_bytes(content) if content else None


def broadcast(process: Process, read: Callable[[], bytes]) -> bytes:
    """Return the bytes that process 0 reads, in all processes.

    Raises:
        InputError: process 0 raised it, which the others report too.
    """
    if process.world == 1:
        return read()
    error, content = None, b""
    if process.main:
        try:
            content = read()
        except InputError as raised:
            error = raised
    size = torch.tensor(-1 if error else len(content), device=process.device)
    dist.broadcast(size, 0)
    if error is not None:
        raise error
    if size < 0:
        raise InputError("torchrun", "process 0 has stopped with an error", "see its output")
    data = torch.empty(int(size), dtype=torch.uint8, device=process.device)
    if process.main:
        data.copy_(torch.frombuffer(bytearray(content), dtype=torch.uint8) if content else data)
    dist.broadcast(data, 0)
    return data.cpu().numpy().tobytes()


def check_same_data(process: Process, splits: dict[str, Samples]) -> None:
    """Check that all processes have the same samples: see `danet.data.fingerprint`.

    Args:
        process: this process.
        splits: the samples by the name of their split.

    Raises:
        InputError: a process has others than process 0; it names the first such process and its machine.
    """
    if process.world == 1:
        return
    host = socket.gethostname().encode()[:64].ljust(64)
    own = (
        b"".join(fingerprint.digest(samples) + len(samples).to_bytes(8, "little") for samples in splits.values()) + host
    )
    mine = torch.frombuffer(bytearray(own), dtype=torch.uint8).to(process.device)
    gathered = [torch.empty_like(mine) for _ in range(process.world)]
    dist.all_gather(gathered, mine)
    first, *others = (data.cpu().numpy().tobytes() for data in gathered)
    for rank, other in enumerate(others, 1):
        for i, split in enumerate(splits):
            part = slice(40 * i, 40 * i + 40)
            if other[part] != first[part]:
                counts = [int.from_bytes(data[part][32:], "little") for data in (first, other)]
                where = f"process {rank} ({other[-64:].decode(errors='replace').strip()})"
                what = f"{where} has other {split} samples than process 0: {counts[1]} there, {counts[0]} here"
                raise InputError("data.root", what, "copy the same files to all machines, with the same names")


def note_stale_store(process: Process) -> None:
    """Say once what lets a machine that was lost join again: torchrun must not reuse its store (torch 2.15)."""
    several = os.environ.get("GROUP_WORLD_SIZE", "1") != "1"
    restarts = os.environ.get("TORCHELASTIC_MAX_RESTARTS", "0") != "0"
    if process.main and several and restarts and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        line = "note: set TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 on all machines, or a lost one cannot join again"
        print_note(line)
