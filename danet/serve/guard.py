"""ASGI middleware that checks every request before the application sees it.

Bodies are counted as they arrive, whatever their headers claim, and must arrive in time. Answers are sent in pieces,
and what a request holds in memory is charged until its answer has been taken. `access` decides who may send requests.
Response headers forbid the browser to load anything from elsewhere. HEAD is answered like GET, without the body.
"""

import asyncio
import logging
import time
from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from danet.serve import access
from danet.serve.access import Sender
from danet.serve.limits import Budget, Busy, Limits, Stopping
from danet.serve.log import Answered, log_answered, request_id
from danet.serve.peers import Peers
from danet.serve.prometheus import Metrics

log = logging.getLogger("danet.serve")

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
            raise _too_large(self._limits)
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
    """The middleware. It puts the `Body` into `scope["danet.body"]` for the application.

    `scope["danet.internal"]` is true if another process of the server has sent the request.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        budget: Budget,
        metrics: Metrics,
        peers: Peers | None = None,
        stopping: Stopping | None = None,
    ):
        self._app, self._limits, self._budget, self._metrics = app, limits, budget, metrics
        self._peers, self._stopping = peers or Peers(), stopping or Stopping()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check a request, pass it on, and record its duration and status."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start, status, method = time.monotonic(), 0, scope["method"]
        headers = Headers(scope=scope)
        client = access.sender(scope, headers, self._limits.proxies)
        request_id.set(client.request_id)
        body = Body(receive, self._limits, self._budget)
        internal = self._peers.sent(headers)
        scope = {
            **scope,
            "danet.body": body,
            "danet.internal": internal,
            "method": "GET" if method == "HEAD" else method,
        }
        scope |= {"scheme": client.scheme or scope.get("scheme", "http"), "root_path": self._limits.root_path}

        async def respond(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if _has_body(headers) and status != 408:
                    await body.drain()
                response = MutableHeaders(scope=message)
                for name, value in (HEADERS | access.cors_headers(headers, self._limits)).items():
                    response.setdefault(name, value)
                response[access.REQUEST_ID] = client.request_id
                if self._stopping.active:
                    response["Connection"] = "close"
            elif method == "HEAD":
                message = {**message, "body": b""}
            await self._send_in_pieces(message, send)

        try:
            if not internal and (answer := self._answer(method, headers, client, scope)) is not None:
                await answer(scope, body.receive, respond)
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
            if not internal:  # the process that the client sent it to records it
                status, seconds, route = status or 499, time.monotonic() - start, _route(scope)
                self._metrics.record_request(route, status, seconds)
                log_answered(Answered(method if route[0] == "/" else "-", route, status, 1e3 * seconds, client.address))

    def _answer(self, method: str, headers: Headers, client: Sender, scope: Scope) -> Response | None:
        """Return the answer to a request that the application does not get, or None."""
        if access.is_preflight(method, headers, self._limits):
            return access.preflight()
        prefix = self._limits.root_path
        path = access.without_prefix(scope["path"], prefix)
        if (refused := access.rejection(method, path or "/", headers, client, self._limits)) is not None:
            return refused
        if int(headers.get("content-length", "0")) > self._limits.body_bytes:  # its value has been checked by h11
            return _response(_too_large(self._limits))
        if not path:  # the URLs of the page are relative
            return RedirectResponse(f"{prefix}/", 308)
        return None

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


def _response(error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the body is larger than {limits.body_bytes / (1 << 20):g} MB; send a smaller image")


def _route(scope: Scope) -> str:
    """Return the pattern of a request's path. A request that was refused has not been routed."""
    if (route := scope.get("route")) is None and "app" in scope:
        matches = ((route.matches(scope)[0], route) for route in scope["app"].routes)
        found = sorted((pair for pair in matches if pair[0] != Match.NONE), key=lambda pair: -pair[0].value)
        route = found[0][1] if found else None
    return getattr(route, "path", "(no such path)")


def _has_body(headers: Headers) -> bool:
    if "expect" in headers:
        return False  # the client waits for "100 Continue" before it sends
    return headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
