"""A worker of a batch that dies, or whose disk is full, while it writes. Ray copies this module to its processes."""

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

PAUSE = 0.1  # seconds before each image, in which others can kill


class FaultyWorker:
    """A worker that takes its next fault from a folder, each fault once over all workers.

    A fault is an empty file NUMBER-KIND-SUFFIX-COUNT: `kill` the process, or `full`, no space on the disk, at the
    COUNT-th file with this suffix that a worker writes for a list of images.
    """

    def __init__(self, faults: str, batch):
        from danet.predict.batch_engines import _BatchWorker

        self._worker, self._faults = _BatchWorker(batch), Path(faults)

    def many(self, items):
        from danet import files

        flush, fault, written = files.flush, self._next_fault(), []

        def flush_or_fail(path: Path) -> None:
            if fault is not None and path.suffix == f".{fault[1]}" and path.is_file():
                written.append(path)
                if len(written) == int(fault[2]):
                    if fault[0] == "kill":
                        os.kill(os.getpid(), signal.SIGKILL)
                    raise OSError(errno.ENOSPC, "No space left on device")
            flush(path)

        time.sleep(PAUSE * len(items))
        files.flush = flush_or_fail
        try:
            return self._worker.many(items)
        finally:
            files.flush = flush

    def alone(self, item):
        time.sleep(PAUSE)
        return self._worker.alone(item)

    def _next_fault(self) -> list[str] | None:
        for file in sorted(self._faults.glob("[0-9]*")):
            with suppress(FileNotFoundError):  # another worker was faster
                file.rename(self._faults / f"done {file.name}")
                return file.name.split("-")[1:]
        return None
