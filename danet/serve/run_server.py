"""Open a listening socket, and serve an application on it until a signal arrives."""

import asyncio
import errno
import gc
import logging
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from ipaddress import ip_address
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from danet.errors import InputError, missing_package
from danet.portability import free_files
from danet.serve.log import LogFormat, StderrHandler

if TYPE_CHECKING:
    from fastapi import FastAPI
    from uvicorn import Server

    from danet.serve.limits import Limits, Stopping

GRACE = 10
"""Seconds that running requests get to finish after SIGTERM or SIGINT."""

_QUEUE = 2048  # connections that the system holds until they are accepted
_ACCEPTED_AT_ONCE = 64
_ACCEPTED_AT_ONCE_SHARED = 1  # so that the processes share a burst of connections
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
    return max(16, min(free_files() - _SPARE_DESCRIPTORS, _MOST_CONNECTIONS))


def start_log(log_format: LogFormat) -> None:
    """Write the log of this process to standard error."""
    logging.getLogger().addHandler(StderrHandler(log_format))
    logging.getLogger("danet.serve").setLevel(logging.INFO)


def shared(listening: socket.socket) -> socket.socket:
    """Return a listening socket of another process for this one, with a long queue."""
    return _ListeningSocket(fileno=listening.detach())


def serve(
    app: "FastAPI", sockets: list[socket.socket], limits: "Limits", drain: float = 0, parent: Connection | None = None
) -> None:
    """Serve until SIGINT or SIGTERM, or until `parent` is closed; then finish the running requests within `GRACE` s.

    Args:
        app: the application.
        sockets: the listening sockets.
        limits: limits on connections.
        drain: seconds for which it still accepts requests, but says that it is not ready.
        parent: a pipe to the main process if there are several. It gets a message when this process serves.
    """
    import uvicorn

    from danet.serve.connection import Connections

    config = uvicorn.Config(
        app,
        http=Connections(limits, max_connections()).protocol,  # pyright: ignore[reportArgumentType]
        backlog=_ACCEPTED_AT_ONCE if parent is None else _ACCEPTED_AT_ONCE_SHARED,
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=GRACE,
    )
    server = uvicorn.Server(config)
    stop = partial(_stop, server, app.state.stopping, drain)
    # uvicorn makes this attribute the handler of SIGINT and SIGTERM
    server.handle_exit = stop if parent is None else lambda *_: None  # pyright: ignore[reportAttributeAccessIssue]
    asyncio.run(_serve(server, sockets, stop, parent))


async def _serve(
    server: "Server", sockets: list[socket.socket], stop: Callable[[int, Any], None], parent: Connection | None
) -> None:
    loop = asyncio.get_running_loop()
    if parent is not None:

        def closed() -> None:
            loop.remove_reader(parent.fileno())
            stop(signal.SIGTERM, None)

        loop.add_reader(parent.fileno(), closed)
        announced = asyncio.create_task(_announce(server, parent))
    gc.collect()
    gc.freeze()  # otherwise each full collection visits all of torch, and requests wait for a fifth of a second
    await server.serve(sockets)
    if parent is not None:
        announced.cancel()


async def _announce(server: "Server", parent: Connection) -> None:
    while not server.started:
        await asyncio.sleep(0.02)
    with suppress(OSError):
        parent.send_bytes(b"{}")


def _stop(server: "Server", stopping: "Stopping", drain: float, number: int, frame: Any) -> None:
    """Stop a server; before, the first time, let it say for `drain` seconds that it is not ready."""
    exit_now = partial(type(server).handle_exit, server, number, frame)
    if stopping.active or not drain:
        stopping.active = True
        exit_now()
        return
    stopping.active = True
    loop = asyncio.get_running_loop()
    loop.call_soon_threadsafe(loop.call_later, drain, exit_now)
