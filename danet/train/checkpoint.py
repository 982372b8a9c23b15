"""The state of an interrupted run: RUN/last.ckpt, and the one before it, RUN/previous.ckpt. Each is whole or not there.

A line with the SHA-256 of the rest, then torch's serialization of plain values and tensors, read by its restricted
unpickler alone (weights_only).
"""

import hashlib
import io
import shutil
import sys
from pathlib import Path
from typing import Any

import torch

from danet.errors import InputError
from danet.files import flush, write_atomically

LAST, PREVIOUS = "last.ckpt", "previous.ckpt"
_MAGIC = b"danet-checkpoint-1 "


def save(run: Path, state: dict[str, Any]) -> None:
    """Write RUN/last.ckpt beside the old one, flushed to the disk, read back and renamed; what was the last becomes the
    previous one, unless it is damaged: then the previous one is what the run went on from.

    Raises:
        InputError: it cannot be written, or comes back from the disk as other bytes; the checkpoints that were there
            are untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    fresh = run / ".danet-next.ckpt"  # a name that the next run to claim the folder clears away
    write_atomically(fresh, _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)
    if not _is_whole(fresh.read_bytes()):
        fresh.unlink()
        raise InputError(run / LAST, "the disk returned other bytes than were written", "use another disk")
    if (run / LAST).exists() and _is_whole((run / LAST).read_bytes()):
        (run / LAST).replace(run / PREVIOUS)
    fresh.replace(run / LAST)
    flush(run)


def load(path: Path) -> dict[str, Any]:
    """What `save` was given, its tensors on the CPU.

    Raises:
        InputError: no such file, or not the bytes that were saved.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(
            path, f"cannot be read ({error.strerror})", "give the folder of a run that was interrupted"
        ) from error
    if not _is_whole(content):
        raise InputError(
            path, f"damaged: its {len(content)} bytes are not those that were saved", "restore it from a copy"
        )
    try:
        return torch.load(io.BytesIO(content.partition(b"\n")[2]), map_location="cpu", weights_only=True)
    except Exception as error:  # whole, so somebody made it
        raise InputError(path, "holds more than plain values and tensors", "use one that danet train wrote") from error


def newest(run: Path) -> dict[str, Any]:
    """The last checkpoint, or, where that is damaged or missing, the one before it; one line on standard error then
    names both.

    Raises:
        InputError: neither is whole.
    """
    try:
        return load(run / LAST)
    except InputError as damaged:
        try:
            state = load(run / PREVIOUS)
        except InputError:
            raise damaged from None
        print(f"{damaged}; going on from {run / PREVIOUS}, step {state['step']}", file=sys.stderr)
        return state


def check_space(run: Path) -> None:
    """Raises InputError unless the disk has room for the next checkpoint and best weights, judged by the last one."""
    needed, free = 2 * (run / LAST).stat().st_size, shutil.disk_usage(run).free
    if free < needed:
        what = f"{free / 1e6:,.0f} MB free, and the next checkpoint and weights need {needed / 1e6:,.0f} MB"
        raise InputError(run, what, "free some space, or give --out a folder on another disk")


def _is_whole(content: bytes) -> bool:
    head, _, payload = content.partition(b"\n")
    return head == _MAGIC + hashlib.sha256(payload).hexdigest().encode()
