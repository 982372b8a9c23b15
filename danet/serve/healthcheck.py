"""Check the server in this container: `python -m danet.serve.healthcheck` exits with 0 if it can segment images.

The port is that on which the processes of this container listen, so that the check follows `--port`. Linux only.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path

_LISTENING = "0A"
_SECONDS = 5


def listening_ports(proc: Path = Path("/proc")) -> set[int]:
    """Return the TCP ports on which processes listen whose descriptors this user may read."""
    own = set(_socket_inodes(proc))
    ports = set()
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text().splitlines()[1:]
        except OSError:  # without IPv6
            continue
        for fields in (line.split() for line in lines):
            if fields[3] == _LISTENING and fields[9] in own:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def _socket_inodes(proc: Path) -> Iterator[str]:
    for folder in proc.glob("[0-9]*/fd"):
        try:
            names = os.listdir(folder)  # noqa: PTH208
        except OSError:  # the process has ended, or belongs to another user
            continue
        for name in names:
            with suppress(OSError):  # it has been closed
                link = os.readlink(folder / name)  # noqa: PTH115
                if link.startswith("socket:["):
                    yield link[len("socket:[") : -1]


def is_ready(port: int, path: str = "/health/ready") -> bool:
    """Return whether the server at a port of this machine can segment images."""
    connection = HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", path)
        return connection.getresponse().read() == b'{"status":"ready"}'
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if any(map(is_ready, sorted(listening_ports()))) else 1)
