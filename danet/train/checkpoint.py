"""The state of an interrupted run, in one file that is whole or not there: RUN/last.ckpt.

A line with the SHA-256 of the rest, then torch's serialisation of plain values and tensors, read by its restricted
unpickler alone (weights_only).
"""

import hashlib
import io
from pathlib import Path
from typing import Any

import torch

from danet.errors import InputError
from danet.files import write_atomically

_MAGIC = b"danet-checkpoint-1 "


def save(path: Path, state: dict[str, Any]) -> None:
    """Replace the file at once: written beside it, flushed to the disk, renamed.

    Raises:
        InputError: it cannot be written; the previous file is untouched.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getvalue()
    write_atomically(path, _MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n" + payload)


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
    head, _, payload = content.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise InputError(
            path, f"damaged: its {len(content)} bytes are not those that were saved", "restore it from a copy"
        )
    return torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
