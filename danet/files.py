"""Files that are whole or not there, whatever happens while they are written."""

import os
from pathlib import Path

from danet.errors import InputError


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; after a power cut it is the old one or the new one.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(
            path, f"{len(content):,} bytes cannot be written ({error.strerror})", "free some space"
        ) from error
