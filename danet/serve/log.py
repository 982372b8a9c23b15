"""The server's log on standard error, which must never stop or flood it.

An entry is a line of text or a JSON object. Entries about a request have its id, which the answer has as X-Request-ID.
"""

import json
import logging
import os
import select
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal, NamedTuple

from danet import portability

log = logging.getLogger("danet.serve")

LogFormat = Literal["text", "json"]

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
"""Id of the request that is being answered."""

_PIECE = 4096  # bytes: a pipe that is ready takes this many without waiting


class Answered(NamedTuple):
    """A request that has been answered.

    Args:
        method: its HTTP method, or "-" if its path is unknown.
        route: the pattern of its path; ids of images are left out, since they give access to the images.
        status: of the answer; 499 if the client disconnected before it had all of it.
        milliseconds: from the end of its header to the end of the answer.
        client: IP address of the client.
    """

    method: str
    route: str
    status: int
    milliseconds: float
    client: str


def log_answered(request: Answered) -> None:
    """Write the entry of a request to the log."""
    log.info("%s %s %d %.0f ms %s", *request, extra={"answered": request})


class TextFormatter(logging.Formatter):
    """Formats an entry as text, with the id of its request at the end of the first line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry."""
        first, *rest = super().format(record).split("\n", 1)
        identifier = request_id.get()
        return "\n".join([first if identifier is None else f"{first} {identifier}", *rest])


class JsonFormatter(logging.Formatter):
    """Formats an entry as a JSON object on one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the entry."""
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        entry: dict[str, object] = {"time": when.replace("+00:00", "Z"), "level": record.levelname.lower()}
        answered: Answered | None = getattr(record, "answered", None)
        if answered is None:
            entry["message"] = record.getMessage()
        else:
            entry |= answered._asdict() | {"milliseconds": round(answered.milliseconds, 1)}
        if (identifier := request_id.get()) is not None:
            entry["request_id"] = identifier
        if record.exc_info:
            entry["exception"] = self.formatException(record.exc_info)
        return json.dumps(entry)


FORMATTERS: dict[LogFormat, type[logging.Formatter]] = {"text": TextFormatter, "json": JsonFormatter}


class StderrHandler(logging.Handler):
    """Writes log entries to standard error, and drops them while nobody reads it.

    A program that started the server may read its standard error too slowly, or never; a write would then wait forever.
    The same warning or error is written at most once a second. The number of dropped entries is written later.
    """

    def __init__(self, log_format: LogFormat = "text") -> None:
        super().__init__()
        self.setFormatter(FORMATTERS[log_format]())
        self._dropped = 0
        self._cut = False  # whether the last entry was written in part
        self._written: dict[tuple[str, object], float] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Write an entry if standard error takes it."""
        if self._is_repeated(record) or not self._write(self._note(record) + self.format(record)):
            self._dropped += 1
        else:
            self._dropped = 0

    def _note(self, record: logging.LogRecord) -> str:
        if not self._dropped:
            return ""
        if isinstance(self.formatter, JsonFormatter):
            about = {**vars(record), "msg": f"{self._dropped:,} log entries were dropped", "args": (), "exc_info": None}
            about.pop("answered", None)
            return self.format(logging.makeLogRecord(about)) + "\n"
        return f"({self._dropped:,} log entries were dropped)\n"

    def _write(self, text: str) -> bool:
        content = b"\n" * self._cut + text.encode(errors="backslashreplace") + b"\n"
        try:
            descriptor = sys.stderr.fileno()
            for start in range(0, len(content), _PIECE):
                if not portability.WINDOWS and not select.select([], [descriptor], [], 0)[1]:
                    self._cut = self._cut or start > 0
                    return False
                os.write(descriptor, content[start : start + _PIECE])
            self._cut = False
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
