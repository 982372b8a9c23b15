"""The server's log on standard error, which must never stop or flood it."""

import logging
import os
import select
import sys
import time

_PIECE = 4096  # bytes: a pipe that is ready takes this many without waiting


class StderrHandler(logging.Handler):
    """Writes log entries to standard error, and drops them while nobody reads it.

    A program that started the server may read its standard error too slowly, or never; a write would then wait forever.
    The same warning or error is written at most once a second. The number of dropped entries is written later.
    """

    def __init__(self) -> None:
        super().__init__()
        self._dropped = 0
        self._written: dict[tuple[str, object], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write an entry if standard error takes it."""
        if self._is_repeated(record) or not self._write(self._note() + self.format(record)):
            self._dropped += 1
        else:
            self._dropped = 0

    def _note(self) -> str:
        return f"({self._dropped:,} log entries were dropped)\n" if self._dropped else ""

    def _write(self, text: str) -> bool:
        content = text.encode(errors="backslashreplace") + b"\n"
        try:
            descriptor = sys.stderr.fileno()
            for start in range(0, len(content), _PIECE):
                if not select.select([], [descriptor], [], 0)[1]:
                    return False
                os.write(descriptor, content[start : start + _PIECE])
        except (OSError, ValueError):  # closed
            return False
        return True

    def _is_repeated(self, record: logging.LogRecord) -> bool:
        """Return whether the same warning, from the same place, was written less than a second ago."""
        if record.levelno < logging.WARNING:
            return False
        kind = None if record.exc_info is None else record.exc_info[0]
        key, now = (f"{record.name} {record.msg}", kind), time.monotonic()
        if now - self._written.get(key, -1.0) < 1:
            return True
        if len(self._written) > 100:
            self._written.clear()
        self._written[key] = now
        return False
