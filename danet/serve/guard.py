"""ASGI middleware that checks every request before the application sees it.

Bodies are counted as they arrive, whatever their headers claim, and must arrive in time. Answers are sent in pieces,
and what a request holds in memory is charged until its answer has been taken. The Host header must name this server
(protection against DNS rebinding), pages of other sites may not send requests, and a token is required if one is set.
Response headers forbid the browser to load anything from elsewhere.
"""

import asyncio
import hmac
import ipaddress
import logging
import time
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from danet.serve.prometheus import Metrics

log = logging.getLogger("danet.serve")

OPEN_PATHS = ("/", "/docs", "/health", "/ready")
"""Paths that need no token, as do those under /page/. They reveal nothing about the network."""

PIECE = 64 << 10
"""Bytes of an answer that are sent at once."""

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """Limits and access rules of one server.

    Args:
        body_bytes: maximum size of one request's body.
        body_seconds: maximum time from the first byte of a body to the last.
        header_seconds: maximum time to send the header of a request.
        stalled_seconds: maximum time to take a piece of an answer, of `PIECE` bytes.
        answer_rate: minimum bytes per second at which an answer must be taken, after `stalled_seconds`.
        held_bytes: maximum size in memory, at one time, of all bodies, decoded images, results and answers.
        stored_bytes: maximum size in memory of the images stored for queries, unless there is only one.
        waiting: maximum number of images received and not yet answered.
        decode_seconds: maximum time to decode one image.
        token: required as `Authorization: Bearer TOKEN`; None allows all requests.
        hosts: host names allowed in the Host header in addition to localhost and IP addresses, in lower case.
    """

    body_bytes: int = 20 << 20
    body_seconds: float = 30
    header_seconds: float = 10
    stalled_seconds: float = 20
    answer_rate: float = 64 << 10
    held_bytes: int = 640 << 20
    stored_bytes: int = 512 << 20
    waiting: int = 64
    decode_seconds: float = 5
    token: str | None = None
    hosts: frozenset[str] = frozenset()


class Busy(HTTPException):
    """Status 503: asks the client to try again in a second.

    Args:
        what: the reason.
    """

    def __init__(self, what: str = "the server is busy"):
        super().__init__(503, f"{what}; try again in a second", {"Retry-After": "1"})


class Budget:
    """An amount (bytes, images) that all requests share. Beyond the limit, `acquire` raises `Busy`."""

    def __init__(self, limit: int):
        self.limit, self.held = limit, 0

    def acquire(self, amount: int) -> None:
        """Take an amount from the budget.

        Raises:
            Busy: less than that is left.
        """
        if self.held + amount > self.limit:
            raise Busy
        self.held += amount

    def release(self, amount: int) -> None:
        """Return an amount to the budget."""
        self.held -= amount


class Body:
    """A request's body as it arrives: counted, timed, and charged to the budget until `keep` or the end.

    What else the request holds in memory is charged as well.
    """

    def __init__(self, receive: Receive, limits: Limits, budget: Budget):
        self._receive, self._limits, self._budget = receive, limits, budget
        self._deadline = time.monotonic() + limits.body_seconds
        self._size = self.held = 0
        self.complete = False

    async def receive(self) -> Message:
        """Receive the next ASGI message on the application's behalf.

        Raises:
            HTTPException: 413 too large, 408 too slow, 503 too many bytes held by all requests.
        """
        if self.complete:
            return await self._receive()  # the only message left is the client's disconnect
        try:
            async with asyncio.timeout(self._deadline - time.monotonic()):
                message = await self._receive()
        except TimeoutError:
            raise HTTPException(408, f"the body took over {self._limits.body_seconds:g} s; send it faster") from None
        self._note(message)
        self._size += len(message.get("body", b""))
        if self._size > self._limits.body_bytes:
            limit = self._limits.body_bytes / (1 << 20)
            raise HTTPException(413, f"the body is larger than {limit:g} MB; send a smaller image")
        self.hold(len(message.get("body", b"")))
        return message

    def hold(self, amount: int) -> None:
        """Charge more bytes to this request.

        Raises:
            Busy: the budget is exhausted.
            HTTPException: 413, the request alone would exhaust it.
        """
        if self.held + amount > self._budget.limit:
            needed, limit = (bytes_ / (1 << 20) for bytes_ in (self.held + amount, self._budget.limit))
            what = f"the image and its result need {needed:,.0f} MB, more than this server's {limit:,.0f} MB"
            raise HTTPException(413, f"{what}; send a smaller image")
        self._budget.acquire(amount)
        self.held += amount

    def keep(self, amount: int) -> None:
        """Charge only this many bytes from now on: all else has been freed."""
        self._budget.release(self.held - amount)
        self.held = amount

    async def drain(self) -> None:
        """Read and discard the rest for a while: a client that is still sending would not read the response."""
        rest = 4 * self._limits.body_bytes
        try:
            async with asyncio.timeout(2):
                while not self.complete and rest > 0:
                    message = await self._receive()
                    self._note(message)
                    rest -= len(message.get("body", b""))
        except TimeoutError:
            self.complete = True

    def _note(self, message: MutableMapping[str, Any]) -> None:
        self.complete = message["type"] == "http.disconnect" or not message.get("more_body", False)


class Guard:
    """The middleware. It puts the `Body` into `scope["danet.body"]` for the application."""

    def __init__(self, app: ASGIApp, limits: Limits, budget: Budget, metrics: Metrics):
        self._app, self._limits, self._budget, self._metrics = app, limits, budget, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, pass it on, and record its duration and status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status = time.monotonic(), 0
        headers = Headers(scope=scope)
        body = scope["danet.body"] = Body(receive, self._limits, self._budget)

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if _has_body(headers) and status != 408:
                    await body.drain()
                response = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    response.setdefault(name, value)
            await self._send_in_pieces(message, send)

        try:
            if (rejection := self._reject(scope["method"], scope["path"], headers)) is not None:
                await rejection(scope, body.receive, respond)
            else:
                await self._app(scope, body.receive, respond)
        except ClientDisconnect:
            status = 499
        except asyncio.CancelledError:  # by uvicorn, at the end of the time to finish requests
            if not status:
                await _response(Busy("the server is stopping"))(scope, body.receive, respond)
        except Exception:
            log.exception("internal server error")
            if not status:
                error = HTTPException(500, "internal server error; see the server's log")
                await _response(error)(scope, body.receive, respond)
        finally:
            body.keep(0)
            route = getattr(scope.get("route"), "path", "(no such path)")
            status = status or 499
            seconds = time.monotonic() - start
            self._metrics.record_request(route, status, seconds)
            log.info("%s %s %d %.0f ms", scope["method"] if route[0] == "/" else "-", route, status, 1e3 * seconds)

    async def _send_in_pieces(self, message: Message, send: Send) -> None:
        """Send a message. A long body is sent in pieces, so that it is held, and charged, until it has been taken.

        Raises:
            ClientDisconnect: the client takes it too slowly.
        """
        content = memoryview(message.get("body", b""))
        if len(content) <= PIECE:
            await send(message)
            return
        try:
            async with asyncio.timeout(self._limits.stalled_seconds + len(content) / self._limits.answer_rate):
                for start in range(0, len(content), PIECE):
                    more = start + PIECE < len(content) or message.get("more_body", False)
                    await send({**message, "body": bytes(content[start : start + PIECE]), "more_body": more})
        except TimeoutError:
            raise ClientDisconnect from None

    def _reject(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        """Return the error response to a forbidden request, or None if the request is allowed."""
        host = headers.get("host", "")
        if not self._is_allowed(host):
            remedy = "open the URL that danet serve printed, or start it with danet serve --allow-host NAME"
            return JSONResponse({"error": f"the Host header does not name this server; {remedy}"}, 400)
        origin = headers.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and _netloc(origin) != host.lower():
            return JSONResponse({"error": "pages of other sites may not send requests to this server"}, 403)
        if self._limits.token is None or path in OPEN_PATHS or path.startswith("/page/"):
            return None
        given = headers.get("authorization", "").encode()
        if hmac.compare_digest(given, f"Bearer {self._limits.token}".encode()):
            return None
        error = "a valid token is required; send it as Authorization: Bearer TOKEN"
        return JSONResponse({"error": error}, 401, {"WWW-Authenticate": "Bearer"})

    def _is_allowed(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self._limits.hosts:
            return True
        try:
            ipaddress.ip_address(name)  # DNS rebinding needs a host name
        except ValueError:
            return False
        return True


def _netloc(url: str) -> str | None:
    """Return host and port of a URL in lower case, or None if it is not valid."""
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return None


def _response(error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _has_body(headers: Headers) -> bool:
    if "expect" in headers:
        return False  # the client waits for "100 Continue" before it sends
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
