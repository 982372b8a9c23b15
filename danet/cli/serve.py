"""`danet serve`."""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from danet.cli.parsing import parse
from danet.errors import InputError
from danet.serve.log import LogFormat


@dataclass(frozen=True)
class Serve:
    """Serve a network over HTTP: a web page that shows its attention, and a REST API (listed at /docs).

    By default, only this machine can reach the server. With another --host, it requires a token.

    Example: danet serve --port 8000
    """

    weights: Path | None = None
    """a .safetensors file, an exported model (.onnx, .xml, .pte), or hf://user/repo; default: the bundled weights"""
    host: str = "127.0.0.1"
    """address to listen on; 0.0.0.0 means all addresses of this machine"""
    port: int = 8000
    """port to listen on; 0 picks a free port"""
    token: str | None = None
    """require "Authorization: Bearer TOKEN" in requests; prefer the DANET_TOKEN environment variable: other users
    can see command lines"""
    allow_host: tuple[str, ...] = ()
    """additional host names under which browsers may reach the server"""
    allow_origin: tuple[str, ...] = ()
    """origins, such as https://app.example, whose pages may use the REST API (CORS)"""
    trusted_proxy: tuple[str, ...] = ()
    """IP addresses or networks of reverse proxies whose X-Forwarded-* and X-Request-ID headers are trusted"""
    root_path: str = ""
    """path under which a reverse proxy serves this server, such as /danet"""
    log_format: LogFormat = "text"
    """text, or json for one object per line"""
    max_mb: float = 20
    """maximum size of an upload in megabytes"""
    workers: int = 1
    """number of processes, each with its own network and memory (Linux)"""
    drain: float = 0
    """seconds for which a stopping server still accepts requests, but is not ready, so that a load balancer notices"""
    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Serve, args, "serve")
    from danet.serve import run_server

    token = options.token or os.environ.get("DANET_TOKEN") or None
    run_server.require_packages()
    run_server.check_token(options.host, token)
    _check_numbers(options)
    with run_server.listen(options.host, options.port) as socket:
        from danet.serve import access, workers
        from danet.serve.limits import Limits

        limits = Limits(
            body_bytes=round(options.max_mb * _MEGABYTE),
            token=token,
            hosts=frozenset({options.host.lower(), *access.parse_hosts(options.allow_host)}),
            origins=access.parse_origins(options.allow_origin),
            proxies=access.parse_proxies(options.trusted_proxy),
            root_path=access.parse_root_path(options.root_path),
        )
        address = run_server.url(socket, options.host)
        if options.workers > 1:
            settings = workers.Settings(options.weights, options.device, limits, options.drain, options.log_format)
            workers.serve(settings, socket, options.workers, lambda: print(address, flush=True))
            return 0
        from danet.predict.predictor import load
        from danet.serve.app import create_app

        app = create_app(load(options.weights, options.device), limits)
        print(address, flush=True)
        run_server.start_log(options.log_format)
        run_server.serve(app, [socket], limits, options.drain)
    return 0


def _check_numbers(options: Serve) -> None:
    if not 0 < options.max_mb <= 1024:
        raise InputError("max_mb", f"must be above 0 and at most 1024, got {options.max_mb:g}", "for example, use 20")
    if not round(options.max_mb * _MEGABYTE):
        raise InputError("max_mb", f"must be at least 1 byte, got {options.max_mb:g} MB", "for example, use 20")
    if not 0 <= options.drain <= 3600:
        raise InputError("drain", f"must be from 0 to 3600, got {options.drain:g}", "for example, use 10")
    if not 1 <= options.workers <= _MOST_WORKERS:
        raise InputError("workers", f"must be from 1 to {_MOST_WORKERS}, got {options.workers}", "for example, use 2")
    if options.workers > 1 and sys.platform != "linux":
        raise InputError("workers", "more than 1 needs Linux", "use 1")


_MOST_WORKERS = 64
_MEGABYTE = 1 << 20
