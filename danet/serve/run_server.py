"""Open a listening socket, and serve an application on it until a signal arrives."""

import errno
import logging
import os
import resource
import socket
from importlib.util import find_spec
from ipaddress import ip_address
from typing import TYPE_CHECKING

from danet.errors import InputError, missing_package
from danet.serve.log import LogFormat, StderrHandler

if TYPE_CHECKING:
    from danet.serve.limits import Limits

GRACE = 10
"""Seconds that running requests get to finish after SIGTERM or SIGINT."""

_QUEUE = 2048  # connections that the system holds until they are accepted
_ACCEPTED_AT_ONCE = 64
_SEND_BUFFER = 128 << 10  # of the system: a larger one hides for long whether a client takes its answer
_MOST_CONNECTIONS = 4096
_SPARE_DESCRIPTORS = 2 * _ACCEPTED_AT_ONCE + 32  # connections being opened and closed, and the decoder's pipes


def require_packages() -> None:
    """Check that the packages of the `serve` extra are installed.

    Raises:
        InputError: one of them is missing.
    """
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if find_spec(package) is None:
            raise missing_package("danet serve", f"{package} is not installed", "serve")


def check_token(host: str, token: str | None) -> None:
    """Check that a server which other machines can reach requires a token, and that the token is strong enough.

    Raises:
        InputError: the token is missing or weak.
    """
    if token is None and not is_local(host):
        what = f"{host} is reachable from other machines, so a token is required"
        raise InputError("host", what, "set DANET_TOKEN, or use `host` 127.0.0.1")
    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
        what = "must be at least 16 printable ASCII characters without spaces"
        raise InputError("token", what, "use 16 or more letters and digits")


def is_local(host: str) -> bool:
    """Return whether only this machine can reach the host."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Port 0 picks a free port.

    Raises:
        InputError: the port is out of range or in use, or the host is not an address of this machine.
    """
    if not 0 <= port < 1 << 16:
        raise InputError("port", f"must be from 0 to 65535, got {port}", "use 0 for any free port")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # asyncio sets TCP_NODELAY only on sockets with an explicit protocol; without it, each reply takes 40 ms longer
        listening = _ListeningSocket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        what = f"{host!r} is not an address of this machine"
        raise InputError("host", what, "use 127.0.0.1 or 0.0.0.0") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        listening.bind(address)
        listening.listen()
    except OSError as error:
        listening.close()
        remedy = "choose another `port`, or 0 for any free port"
        what = (
            "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used at {host} ({error.strerror})"
        )
        raise InputError("port", f"{port} {what}", remedy) from error
    return listening


class _ListeningSocket(socket.socket):
    """A socket whose queue may be longer than the number of connections that asyncio accepts at once."""

    def listen(self, _backlog: int = 0, /) -> None:
        super().listen(_QUEUE)


def url(listening: socket.socket, host: str) -> str:
    """Return the URL to open in a browser."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{listening.getsockname()[1]}"


def max_connections() -> int:
    """Return how many connections this process may hold so that it does not run out of file descriptors."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    used = len(os.listdir("/dev/fd"))  # noqa: PTH208
    return max(16, min(limit - used - _SPARE_DESCRIPTORS, _MOST_CONNECTIONS))


def serve(app: object, listening: socket.socket, limits: "Limits", log_format: LogFormat = "text") -> None:
    """Serve until SIGINT or SIGTERM, then finish the running requests within `GRACE` seconds."""
    import uvicorn

    from danet.serve.connection import Connections

    logging.getLogger().addHandler(StderrHandler(log_format))
    logging.getLogger("danet.serve").setLevel(logging.INFO)
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        http=Connections(limits, max_connections()).protocol,  # pyright: ignore[reportArgumentType]
        backlog=_ACCEPTED_AT_ONCE,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    uvicorn.Server(config).run([listening])
