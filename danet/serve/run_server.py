"""Open a listening socket, and serve an application on it until a signal arrives."""

import errno
import logging
import socket
from importlib.util import find_spec
from ipaddress import ip_address

from danet.errors import InputError, missing_package

GRACE = 10
"""Seconds that running requests get to finish after SIGTERM or SIGINT."""


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
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        what = f"{host!r} is not an address of this machine"
        raise InputError("host", what, "use 127.0.0.1 or 0.0.0.0") from error
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(2048)
    except OSError as error:
        listening.close()
        remedy = "choose another `port`, or 0 for any free port"
        what = (
            "is already in use" if error.errno == errno.EADDRINUSE else f"cannot be used at {host} ({error.strerror})"
        )
        raise InputError("port", f"{port} {what}", remedy) from error
    return listening


def url(listening: socket.socket, host: str) -> str:
    """Return the URL to open in a browser."""
    name = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{name}:{listening.getsockname()[1]}"


def serve(app: object, listening: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then finish the running requests within `GRACE` seconds."""
    import uvicorn

    log = logging.getLogger("danet.serve")
    log.addHandler(logging.StreamHandler())
    log.setLevel(logging.INFO)
    config = uvicorn.Config(
        app,  # pyright: ignore[reportArgumentType]
        http="h11",
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
