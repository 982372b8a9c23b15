"""One run, one process: a lock on the run's folder, which the system takes back from a process that dies, though its
workers may outlive it for seconds.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from danet.errors import InputError

LOCK = ".lock"


@contextmanager
def claimed(run: Path) -> Iterator[None]:
    """Hold the folder, made if it is not there; what a killed process left half written in it is removed.

    Raises:
        InputError: another process holds it, or it cannot be written.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(run / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise InputError(run, f"cannot be made a run folder ({error.strerror})", "give --out another folder") from error
    try:
        _lock(descriptor, run)
        for left_over in run.glob(".danet-*"):
            left_over.unlink()
        try:
            yield
        finally:
            (run / LOCK).unlink(missing_ok=True)
    finally:
        os.close(descriptor)


def _lock(descriptor: int, run: Path) -> None:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # unlike flock, not inherited by forked workers
        if not os.fstat(descriptor).st_nlink:  # its holder ended, and removed it, since we opened it
            raise BlockingIOError
        os.truncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    except BlockingIOError as error:
        holder = os.read(descriptor, 32).decode(errors="replace").strip() or "another"
        raise InputError(run, f"in use by process {holder}", "wait for it, or give --out a new folder") from error
    except OSError as error:
        raise InputError(
            run, f"cannot be locked ({error.strerror})", "free some space, or give another folder"
        ) from error
