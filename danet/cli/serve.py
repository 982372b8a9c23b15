"""`danet serve`."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from danet.cli.parsing import parse
from danet.errors import InputError


@dataclass(frozen=True)
class Serve:
    """The network over HTTP: a page to look at images with, and a REST interface (see /docs there).

    Only this machine can reach it unless --host says otherwise; then a token is needed, which each request must bring.

    For example: danet serve --port 8000
    """

    weights: Path | None = None
    """a .safetensors file, or an exported model; the weights that come with the package if not given"""
    host: str = "127.0.0.1"
    """the address to listen at; 0.0.0.0 is all of this machine's"""
    port: int = 8000
    """0 takes one that is free"""
    token: str | None = None
    """what requests must bring as "Authorization: Bearer TOKEN"; better in the environment, as DANET_TOKEN"""
    allow_host: tuple[str, ...] = ()
    """names under which browsers reach the server, if they do by a name"""
    max_mb: float = 20
    """size of the largest upload, in megabytes"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


def run(args: Sequence[str]) -> int:
    options = parse(Serve, args, "serve")
    from danet.serve import run_server

    token = options.token or os.environ.get("DANET_TOKEN") or None
    run_server.require_packages()
    run_server.check_token(options.host, token)
    if not 0 < options.max_mb <= 1024:
        raise InputError(f"--max-mb {options.max_mb:g}", "is not above 0 and up to 1024", "give megabytes")
    with run_server.listen(options.host, options.port) as socket:
        from danet.predict.predictor import load
        from danet.serve.app import create_app
        from danet.serve.guard import Limits

        hosts = frozenset(name.lower() for name in (options.host, *options.allow_host))
        limits = Limits(body_bytes=round(options.max_mb * (1 << 20)), token=token, hosts=hosts)
        app = create_app(load(options.weights, options.device), limits)
        print(run_server.address(socket, options.host), flush=True)
        run_server.serve(app, socket)
    return 0
