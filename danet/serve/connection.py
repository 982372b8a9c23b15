"""Limits on a connection that HTTP servers usually leave to a reverse proxy: on its time, and on useless bytes.

uvicorn parses the requests. Each connection gets its own time to send the header of a request and to take the answer,
reads only a little at once, so that no client keeps the others waiting, and may not send a body in tiny chunks, each of
which costs as much as a large one.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from danet.serve.limits import Limits

READ_BYTES, FEW_BYTES = 1 << 14, 1 << 11
"""Maximum number of bytes that are read and parsed at once: in a body of large chunks, and otherwise."""

FRAMING_BYTES, FRAMING_SHARE = 1 << 14, 32
"""A body may have this many bytes beside its content, the sizes of its chunks, and a 32nd of its content more."""

LEFTOVER_BYTES = 1 << 20
"""Bytes of a request that are still read after its answer."""

_REFUSAL = b"""\
HTTP/1.1 503 Service Unavailable\r
Retry-After: 1\r
Connection: close\r
Content-Type: application/json\r
Content-Length: 55\r
\r
{"error":"too many connections; try again in a second"}"""


class Connections:
    """The connections of one server.

    Args:
        limits: limits on requests.
        maximum: number of connections. If more arrive, the one that has been idle longest is closed.
    """

    def __init__(self, limits: Limits, maximum: int):
        self.limits, self.maximum = limits, maximum
        self.open: dict[Connection, None] = {}  # least recently used first
        self.buffer = memoryview(bytearray(READ_BYTES))

    def protocol(self, **options: Any) -> "Connection":
        """Return the protocol of a new connection; the arguments are those of uvicorn's protocol."""
        return Connection(self, H11Protocol(**options))

    def admit(self, connection: "Connection") -> bool:
        """Add a connection and return whether there was a place for it."""
        if len(self.open) >= self.maximum:
            idle = next((other for other in self.open if other.idle), None)
            if idle is None:
                return False
            idle.abort()
        self.open[connection] = None
        return True

    def note_use(self, connection: "Connection") -> None:
        """Make a connection the most recently used one."""
        if connection in self.open:
            del self.open[connection]
            self.open[connection] = None


class Connection(asyncio.BufferedProtocol):
    """One connection, with uvicorn's protocol for its requests."""

    def __init__(self, connections: Connections, http: H11Protocol):
        self._all, self._limits, self._http = connections, connections.limits, http
        self._timers: dict[Callable[[], None], asyncio.TimerHandle] = {}
        self._cycle: object = None  # of the request whose body is counted
        self._content = self._framing = self._leftover = 0
        self._next_bytes = FEW_BYTES

    @property
    def idle(self) -> bool:
        """Whether no request is being answered."""
        cycle = self._http.cycle
        return cycle is None or cycle.response_complete

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first request."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        transport.set_write_buffer_limits(0)  # so that a client that takes nothing is noticed at once
        self._http.connection_made(transport)
        if self._all.admit(self):
            self._watch_for_requests()
        else:
            transport.write(_REFUSAL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        for timer in self._timers.values():
            timer.cancel()
        self._all.open.pop(self, None)
        self._http.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return the buffer for the next bytes, which all connections share."""
        return self._all.buffer[: self._next_bytes]

    def buffer_updated(self, nbytes: int) -> None:
        """Parse bytes that have arrived."""
        cycle = self._http.cycle
        before = 0 if cycle is None else len(cycle.body)
        if self._http.conn.their_state is h11.MUST_CLOSE:  # uvicorn would answer what follows the last request
            self._leftover += nbytes
        else:
            self._http.data_received(bytes(self._all.buffer[:nbytes]))
        self._count(nbytes, before)
        self._all.note_use(self)
        self._watch_for_requests()

    def eof_received(self) -> None:
        """Note that the client sends no more."""
        self._http.eof_received()

    def pause_writing(self) -> None:
        """Wait for the client to take what was sent, but not forever."""
        self._set_timer(self.abort, self._limits.stalled_seconds)
        self._http.pause_writing()

    def resume_writing(self) -> None:
        """Go on sending."""
        self._cancel_timer(self.abort)
        self._http.resume_writing()

    def abort(self) -> None:
        """Close the connection at once, without sending the rest."""
        self._all.open.pop(self, None)
        self._transport.abort()

    def _count(self, arrived: int, before: int) -> None:
        """Close the connection if too little of what it sends is content, or too much follows the answer."""
        cycle = self._http.cycle
        self._next_bytes = FEW_BYTES
        if cycle is not self._cycle:
            self._cycle, self._content, self._framing, self._leftover = cycle, 0, 0, 0
        elif self.idle:
            self._leftover += arrived
        elif cycle.more_body:
            content = len(cycle.body) - before
            self._content += content
            self._framing += arrived - content
            self._next_bytes = READ_BYTES if content > arrived // 2 else FEW_BYTES
        if self._framing > FRAMING_BYTES + self._content // FRAMING_SHARE or self._leftover > LEFTOVER_BYTES:
            self.abort()

    def _watch_for_requests(self) -> None:
        """Start a timer if no request is being answered: the next one must arrive in time."""
        if not self.idle:
            self._cancel_timer(self._end_waiting)
        elif self._end_waiting not in self._timers:
            self._set_timer(self._end_waiting, self._limits.header_seconds)

    def _end_waiting(self) -> None:
        del self._timers[self._end_waiting]
        if self.idle:  # otherwise, a request that was sent early is being answered
            self.abort()

    def _set_timer(self, function: Callable[[], None], seconds: float) -> None:
        self._cancel_timer(function)
        self._timers[function] = asyncio.get_running_loop().call_later(seconds, function)

    def _cancel_timer(self, function: Callable[[], None]) -> None:
        if (timer := self._timers.pop(function, None)) is not None:
            timer.cancel()
