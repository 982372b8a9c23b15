"""What the server takes, and from whom: a layer that every request passes. Used by `danet serve`.

Bodies are counted as they arrive, whatever their headers say, and must arrive in time; a request must name this host
(DNS rebinding), a page elsewhere may not send one, and where a token is set it must be shown. Answers carry the headers
that keep a browser from loading anything else.
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

from danet.serve.prometheus import Counters

log = logging.getLogger("danet.serve")

OPEN_PATHS = ("/", "/docs", "/health")
"""Together with /page/, what is answered without a token: it tells nothing of the network."""

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
    """What one server takes.

    Args:
        body_bytes: of one request.
        body_seconds: from a request's first byte to its last.
        held_bytes: of all bodies and decoded images that are held at one time.
        waiting: images received and not yet answered.
        decode_seconds: to decode an image.
        token: what a request must bring as `Authorization: Bearer TOKEN`; None: nothing.
        hosts: names that the Host header may give besides localhost and IP addresses, in lower case.
    """

    body_bytes: int = 20 << 20
    body_seconds: float = 30
    held_bytes: int = 512 << 20
    waiting: int = 64
    decode_seconds: float = 5
    token: str | None = None
    hosts: frozenset[str] = frozenset()


class Busy(HTTPException):
    """503: the client is to come again in a second."""

    def __init__(self) -> None:
        super().__init__(503, "the server is busy; try again in a second", {"Retry-After": "1"})


class Budget:
    """Bytes and images that all requests hold together; over a limit `take` raises Busy."""

    def __init__(self, limit: int):
        self.limit, self.held = limit, 0

    def take(self, amount: int) -> None:
        """Hold more."""
        if self.held + amount > self.limit:
            raise Busy
        self.held += amount

    def give_back(self, amount: int) -> None:
        """Hold less."""
        self.held -= amount


class Body:
    """A request's body as it arrives: counted, timed, and held in the budget until `release`."""

    def __init__(self, receive: Receive, limits: Limits, budget: Budget):
        self._receive, self._limits, self._budget = receive, limits, budget
        self._deadline = time.monotonic() + limits.body_seconds
        self._size = self.held = 0
        self.whole = False

    async def receive(self) -> Message:
        """The application's `receive`.

        Raises:
            HTTPException: 413 too large, 408 too slow, 503 too much held.
        """
        if self.whole:
            return await self._receive()  # what comes now is that the client leaves
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
        """Count more bytes on this request's behalf."""
        self._budget.take(amount)
        self.held += amount

    async def drain(self) -> None:
        """Read on for a while and forget it: a client that is still sending would not see the answer."""
        rest = 4 * self._limits.body_bytes
        try:
            async with asyncio.timeout(2):
                while not self.whole and rest > 0:
                    message = await self._receive()
                    self._note(message)
                    rest -= len(message.get("body", b""))
        except TimeoutError:
            self.whole = True

    def release(self) -> None:
        """The request is over."""
        self._budget.give_back(self.held)
        self.held = 0

    def _note(self, message: MutableMapping[str, Any]) -> None:
        self.whole = message["type"] == "http.disconnect" or not message.get("more_body", False)


class Guard:
    """The ASGI layer. Leaves `scope["danet.body"]`, the `Body`, for the application."""

    def __init__(self, app: ASGIApp, limits: Limits, budget: Budget, counters: Counters):
        self._app, self._limits, self._budget, self._counters = app, limits, budget, counters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status = time.monotonic(), 0
        headers = Headers(scope=scope)
        body = scope["danet.body"] = Body(receive, self._limits, self._budget)

        async def answer(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if _has_body(headers) and status != 408:
                    await body.drain()
                own = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    own.setdefault(name, value)
            await send(message)

        try:
            if (refusal := self._refusal(scope["method"], scope["path"], headers)) is not None:
                await refusal(scope, body.receive, answer)
            else:
                await self._app(scope, body.receive, answer)
        except ClientDisconnect:
            status = 499
        except Exception:
            log.exception("an error of the server's own")
            if not status:
                await JSONResponse({"error": "the server failed; its log says why"}, 500)(scope, body.receive, answer)
        finally:
            body.release()
            route = getattr(scope.get("route"), "path", "(no such path)")
            status = status or 499
            seconds = time.monotonic() - begun
            self._counters.request(route, status, seconds)
            log.info("%s %s %d %.0f ms", scope["method"] if route[0] == "/" else "-", route, status, 1e3 * seconds)

    def _refusal(self, method: str, path: str, headers: Headers) -> JSONResponse | None:
        host = headers.get("host", "")
        if not self._is_ours(host):
            text = "the Host header names another server; open the address that danet serve printed, or start it with"
            return JSONResponse({"error": f"{text} --allow-host NAME"}, 400)
        origin = headers.get("origin")
        if method not in ("GET", "HEAD") and origin is not None and urlsplit(origin).netloc.lower() != host.lower():
            return JSONResponse({"error": "another site's page may not send requests here"}, 403)
        if self._limits.token is None or path in OPEN_PATHS or path.startswith("/page/"):
            return None
        given = headers.get("authorization", "").encode()
        if hmac.compare_digest(given, f"Bearer {self._limits.token}".encode()):
            return None
        return JSONResponse(
            {"error": "a token is needed; send Authorization: Bearer TOKEN"}, 401, {"WWW-Authenticate": "Bearer"}
        )

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if name == "localhost" or name in self._limits.hosts:
            return True
        try:
            ipaddress.ip_address(name)  # a rebinding attack needs a name
        except ValueError:
            return False
        return True


def _has_body(headers: Headers) -> bool:
    if "expect" in headers:
        return False  # the client waits for leave to send
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
