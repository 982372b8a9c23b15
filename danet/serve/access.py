"""Who sent a request, and whether the server answers it: reverse proxies, the Host and Origin headers, and the token.

The Host header must name this server (protection against DNS rebinding). Pages of other sites may not send requests
unless their origin is allowed (CORS). Headers about the client count only if a trusted proxy sent them.
"""

import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from danet.errors import InputError
from danet.serve.limits import Limits, Network

OPEN_PATHS = ("/", "/docs", "/health", "/health/live", "/health/ready", "/ready")
"""Paths that need no token, as do those under /page/. They reveal nothing about the network."""

SAFE_METHODS = ("GET", "HEAD")

REQUEST_ID = "X-Request-ID"

_OWN_PATHS = frozenset({"v1", "page", "docs", "health", "ready", "metrics", "openapi.json"})
_PORTS = {"http": 80, "https": 443}
_VALID_ID = re.compile(r"[\w.:+/=@-]{1,128}", re.ASCII)
_CORS = {
    "Access-Control-Expose-Headers": f"{REQUEST_ID}, Retry-After",
    "Vary": "Origin",
}
_PREFLIGHT = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST",
    "Access-Control-Allow-Headers": f"Authorization, Content-Type, {REQUEST_ID}",
    "Access-Control-Max-Age": "600",
}


class Sender(NamedTuple):
    """The client of a request, as the proxies before this server describe it.

    Args:
        address: IP address of the client, or "-" if it is unknown.
        scheme: http or https, as the client used it; None if no trusted proxy says so.
        host: the Host header of the client.
        request_id: of a trusted proxy, or a new one.
        hidden: whether a proxy that is not trusted has sent headers about the client.
    """

    address: str
    scheme: str | None
    host: str
    request_id: str
    hidden: bool


def sender(scope: Scope, headers: Headers, proxies: tuple[Network, ...]) -> Sender:
    """Return who sent a request. The X-Forwarded-* and X-Request-ID headers count only if `proxies` sent them."""
    peer = _address((scope.get("client") or ("-",))[0])
    host = headers.get("host", "")
    if not _trusted(peer, proxies):
        hidden = any(name in headers for name in ("x-forwarded-for", "x-forwarded-host", "forwarded"))
        return Sender(str(peer or "-"), None, host, secrets.token_hex(8), hidden)
    address = peer
    for hop in reversed(_list(headers, "x-forwarded-for")):
        if (known := _address(hop)) is None:
            break
        address = known
        if not _trusted(known, proxies):
            break
    scheme = next(reversed(_list(headers, "x-forwarded-proto")), "").lower()
    given = headers.get(REQUEST_ID, "")
    return Sender(
        str(address),
        scheme if scheme in _PORTS else None,
        next(reversed(_list(headers, "x-forwarded-host")), host),
        given if _VALID_ID.fullmatch(given) else secrets.token_hex(8),
        False,
    )


def rejection(method: str, path: str, headers: Headers, client: Sender, limits: Limits) -> Response | None:
    """Return the error response to a forbidden request, or None if the request is allowed.

    Args:
        method: its HTTP method.
        path: its path, without the prefix of the proxy.
        headers: its headers.
        client: who sent it.
        limits: the access rules.
    """
    if not _is_own_host(client.host, limits.hosts):
        remedy = "open the URL that danet serve printed, or start it with danet serve --allow-host NAME"
        return JSONResponse({"error": f"the Host header does not name this server; {remedy}{_hint(client)}"}, 400)
    origin = headers.get("origin")
    if method not in SAFE_METHODS and origin is not None and not _may_send(origin, client, limits):
        named = origin.lower() if _is_origin(origin.lower()) else "ORIGIN"
        what = "pages of this origin may not send requests to this server"
        remedy = f"to allow them, start it with danet serve --allow-origin {named}"
        return JSONResponse({"error": f"{what}; {remedy}{_hint(client)}"}, 403)
    if limits.token is None or path in OPEN_PATHS or path.startswith("/page/"):
        return None
    given = headers.get("authorization", "").encode()
    if hmac.compare_digest(given, f"Bearer {limits.token}".encode()):
        return None
    error = "a valid token is required; send it as Authorization: Bearer TOKEN"
    return JSONResponse({"error": error}, 401, {"WWW-Authenticate": "Bearer"})


def is_preflight(method: str, headers: Headers, limits: Limits) -> bool:
    """Return whether a browser asks if a page of an allowed origin may send a request."""
    asks = method == "OPTIONS" and "access-control-request-method" in headers
    return asks and headers.get("origin", "").lower() in limits.origins


def preflight() -> Response:
    """Return the answer to a browser that asks; `cors_headers` are added to all answers."""
    return Response(status_code=204, headers=_PREFLIGHT)


def cors_headers(headers: Headers, limits: Limits) -> dict[str, str]:
    """Return the headers that let pages of an allowed origin read an answer."""
    origin = headers.get("origin", "").lower()
    return _CORS | {"Access-Control-Allow-Origin": origin} if origin in limits.origins else {}


def parse_proxies(names: Iterable[str]) -> tuple[Network, ...]:
    """Return the networks of trusted proxies, given as IP addresses or as networks such as 10.0.0.0/8.

    Raises:
        InputError: one is neither.
    """
    try:
        return tuple(ipaddress.ip_network(name) for name in names)
    except ValueError as error:
        raise InputError("trusted_proxy", str(error), "give IP addresses, or networks such as 10.0.0.0/8") from error


def parse_hosts(names: Iterable[str]) -> frozenset[str]:
    """Return allowed host names in lower case, without the ports, which the Host header may have or not.

    Raises:
        InputError: one is not a host name, such as a URL.
    """
    hosts = []
    for name in names:
        found = re.fullmatch(r"([\w.-]+|\[[\da-f:.]+\]|[\da-f:]+)(:\d{1,5})?", name.lower(), re.ASCII)
        if found is None:
            raise InputError("allow_host", f"{name!r} is not a host name", "give one such as lab.example")
        hosts.append(found[1].strip("[]"))
    return frozenset(hosts)


def parse_origins(names: Iterable[str]) -> frozenset[str]:
    """Return allowed origins in the form in which browsers send them.

    Raises:
        InputError: one is not SCHEME://HOST or SCHEME://HOST:PORT.
    """
    origins = []
    for name in names:
        origin = name.lower().rstrip("/")
        if not _is_origin(origin):
            raise InputError("allow_origin", f"{name!r} is not an origin", "give one such as https://app.example")
        scheme, _, netloc = origin.partition("://")
        origins.append(f"{scheme}://{_without_port(netloc, scheme)}")
    return frozenset(origins)


def parse_root_path(path: str) -> str:
    """Return the path under which a proxy serves this server, without a slash at its end.

    Raises:
        InputError: it does not start with a slash, has unusual characters, or begins like a path of this server.
    """
    path = path.rstrip("/")
    if path and not re.fullmatch(r"(/[\w.~-]+)+", path, re.ASCII):
        raise InputError("root_path", f"{path!r} is not a path", "give one such as /danet")
    if path.split("/")[1:2] and path.split("/")[1] in _OWN_PATHS:
        raise InputError("root_path", f"{path!r} begins like a path of this server", "give one such as /danet")
    return path


def without_prefix(path: str, prefix: str) -> str:
    """Return a path without the prefix, which a proxy may or may not have removed."""
    return path[len(prefix) :] if prefix and (path == prefix or path.startswith(f"{prefix}/")) else path


def _may_send(origin: str, client: Sender, limits: Limits) -> bool:
    """Return whether pages of an origin may send requests that change something or are costly."""
    origin = origin.lower()
    if origin in limits.origins:
        return True
    if not _is_origin(origin):
        return False
    scheme, _, netloc = origin.partition("://")
    same = _without_port(netloc, scheme) == _without_port(client.host.lower(), scheme)
    return same and client.scheme in (None, scheme)


def _is_origin(text: str) -> bool:
    return re.fullmatch(r"https?://([\w.-]+|\[[\da-f:.]+\])(:\d{1,5})?", text, re.ASCII) is not None


def _without_port(netloc: str, scheme: str) -> str:
    return netloc.removesuffix(f":{_PORTS[scheme]}")


def _is_own_host(host: str, hosts: frozenset[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    if name == "localhost" or name in hosts:
        return True
    return _address(name) is not None  # DNS rebinding needs a host name


def _hint(client: Sender) -> str:
    return f"; behind a proxy, also with --trusted-proxy {client.address}" if client.hidden else ""


def _list(headers: Headers, name: str) -> list[str]:
    """Return the values of a header that may be given several times, each with values separated by commas."""
    return [value.strip() for line in headers.getlist(name) for value in line.split(",")]


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Parse an address, in brackets or not, with a port or not; return None if it is not valid."""
    if match := re.fullmatch(r"\[(.+)\](:\d+)?|([\d.]+):\d+", text):
        text = match[1] or match[3]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _trusted(address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, proxies: tuple[Network, ...]) -> bool:
    return address is not None and any(address in network for network in proxies)
