"""A socket, and the server on it until a signal comes. Command: `danet serve`."""

import logging
import socket
from importlib.util import find_spec
from ipaddress import ip_address

from danet.errors import InputError

GRACE = 10
"""Seconds for the requests that are being answered when SIGTERM or SIGINT comes."""


def require_packages() -> None:
    """Raises InputError where what serving needs is not installed."""
    for package in ("fastapi", "uvicorn", "python_multipart"):
        if find_spec(package) is None:
            raise InputError("danet serve", f"{package} is not installed", "pip install 'danet[serve]'")


def check_token(host: str, token: str | None) -> None:
    """Raises InputError for a server that others can reach and that asks for no token, or for a weak one."""
    if token is None and not is_local(host):
        raise InputError(
            f"--host {host}", "other machines could use the server", "give --token or set DANET_TOKEN, or leave it out"
        )
    if token is not None and (len(token) < 16 or not token.isascii() or not token.isprintable() or " " in token):
        raise InputError("the token", "is too short or holds odd characters", "give 16 letters and digits or more")


def is_local(host: str) -> bool:
    """Whether only this machine can reach it."""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0: one that is free.

    Raises:
        InputError: the port is taken, or the address is not this machine's.
    """
    if not 0 <= port < 1 << 16:
        raise InputError(f"--port {port}", "is no port", "give 1 to 65535, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        found = socket.socket(
            family, kind, protocol
        )  # without the protocol asyncio sets no TCP_NODELAY: 40 ms an answer
    except (OSError, UnicodeError) as error:
        raise InputError(f"--host {host}", "is no address of this machine", "give 127.0.0.1 or 0.0.0.0") from error
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
        found.listen(2048)
    except OSError as error:
        found.close()
        remedy = "give another --port, or --port 0 for one that is free"
        raise InputError(f"{host}:{port}", f"cannot be listened at ({error.strerror})", remedy) from error
    return found


def address(listening: socket.socket, host: str) -> str:
    """What to open in a browser."""
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{listening.getsockname()[1]}"


def serve(app: object, listening: socket.socket) -> None:
    """Answer until SIGINT or SIGTERM; requests begun are answered, for `GRACE` seconds at most."""
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
