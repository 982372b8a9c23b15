"""danet/serve/connection.py: limits on time, on bytes that are no content, and on the number of connections."""

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from serve_client import send

from danet.serve import run_server
from danet.serve.connection import FRAMING_BYTES, LEFTOVER_BYTES, Connections
from danet.serve.guard import Guard
from danet.serve.limits import Budget, Limits
from danet.serve.prometheus import Metrics

LARGE = 8 << 20
HOST = b"Host: localhost\r\n"


class Served:
    """An application behind the guard, on a real socket, in a thread: /large is an answer of `LARGE` bytes."""

    def __init__(self, limits: Limits, maximum: int = 100):
        self.budget, self.bodies, self.statuses = Budget(limits.held_bytes), [], []
        metrics = Metrics({})
        metrics.record_request = lambda _route, status, _seconds: self.statuses.append(status)
        guard = Guard(self._app, limits, self.budget, metrics)
        self.connections = Connections(limits, maximum)
        config = uvicorn.Config(
            guard, http=self.connections.protocol, lifespan="off", log_config=None, timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self.socket = run_server.listen("127.0.0.1", 0)
        self.url = run_server.url(self.socket, "127.0.0.1")
        self._thread = threading.Thread(target=self._server.run, args=([self.socket],))

    def __enter__(self) -> "Served":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()

    async def _app(self, scope, receive, send) -> None:
        content, body = b"ok", b""
        while (message := await receive()).get("more_body"):
            body += message["body"]
        self.bodies.append(body + message.get("body", b""))
        if scope["path"] == "/large":
            scope["danet.body"].hold(LARGE)
            content = bytes(LARGE)
        length = [(b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        await send({"type": "http.response.body", "body": content})

    def get(self, path: str = "/") -> bytes:
        with send(self.url, b"GET %s HTTP/1.1\r\nConnection: close\r\n%s\r\n" % (path.encode(), HOST)) as connection:
            return received(connection)


def received(connection: socket.socket, seconds: float = 20) -> bytes:
    """Return all that arrives until the server closes the connection."""
    connection.settimeout(seconds)
    content = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := connection.recv(1 << 16):
            content += piece
    return content


def eventually(condition) -> bool:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()


@pytest.fixture
def served() -> Iterator[Served]:
    with Served(Limits(header_seconds=0.5, stalled_seconds=1)) as server:
        yield server


HEAD = b"POST / HTTP/1.1\r\n" + HOST


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost: local"])
def test_a_header_that_does_not_arrive_in_time_ends_the_connection(served, sent):
    with send(served.url, sent) as connection:
        start = time.monotonic()
        assert received(connection) == b""
        assert 0.3 < time.monotonic() - start < 5
    assert b"200 OK" in served.get()


def test_a_byte_now_and_then_does_not_extend_the_time_for_a_header(served):
    with send(served.url, b"GET / HTTP/1.1\r\n") as connection:
        start = time.monotonic()
        with contextlib.suppress(OSError):
            while time.monotonic() - start < 10:
                connection.sendall(b"X")
                time.sleep(0.05)
        assert time.monotonic() - start < 5


def test_the_time_for_a_header_begins_anew_for_each_request(served):
    with send(served.url, b"") as connection:
        for _ in range(4):
            time.sleep(0.3)
            connection.sendall(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n")
            answer = b""
            while not answer.endswith(b"ok"):
                answer += connection.recv(1 << 16)
            assert answer.startswith(b"HTTP/1.1 200")


def test_a_body_in_useful_chunks_is_received_whole(served):
    sizes = [1] * 2000 + [300] * 3000 + [20_000] * 20
    body = b"".join(b"%x\r\n%s\r\n" % (size, bytes(size)) for size in sizes)
    with send(
        served.url, HEAD + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n" + body + b"0\r\n\r\n"
    ) as connection:
        assert b"200 OK" in received(connection)
    assert served.bodies == [bytes(sum(sizes))]


@pytest.mark.parametrize("chunk", [b"1\r\nx\r\n", b"a;%s\r\n0123456789\r\n" % (b"e" * 1000)])
def test_a_body_in_useless_chunks_ends_the_connection(served, chunk):
    count = 3 * FRAMING_BYTES // (len(chunk) - 1)
    with send(served.url, HEAD + b"Transfer-Encoding: chunked\r\n\r\n") as connection:
        with contextlib.suppress(OSError):
            connection.sendall(chunk * count)
        assert received(connection) == b""
    assert b"200 OK" in served.get()
    assert eventually(lambda: not served.budget.held)


def test_what_follows_the_last_request_is_ignored(served):
    with send(served.url, HEAD + b"Connection: close\r\nContent-Length: 2\r\n\r\nab") as connection:
        with contextlib.suppress(OSError):  # the server may have closed the connection by then
            for _ in range(20):
                connection.sendall(b"rubbish")
        assert received(connection).startswith(b"HTTP/1.1 200")
    assert served.bodies == [b"ab"]


def test_what_follows_an_answer_is_read_only_for_a_while(served):
    head = b"POST /large HTTP/1.1\r\nContent-Length: 1000000000\r\n"  # no Host: the answer comes at once
    with send(served.url, head + b"\r\n") as connection:
        sent = 0
        with contextlib.suppress(OSError):
            while sent < 400 << 20:
                sent += connection.send(bytes(1 << 16))
    assert sent < 4 * 20 * (1 << 20) + 40 * LEFTOVER_BYTES, "as far as the guard and the system's buffers go"


def test_an_answer_that_nobody_takes_is_held_and_charged_for_a_while(served):
    with contextlib.ExitStack() as unread:
        for _ in range(3):
            unread.enter_context(send(served.url, b"GET /large HTTP/1.1\r\n" + HOST + b"\r\n"))
        assert eventually(lambda: served.budget.held == 3 * LARGE)
        assert b"200 OK" in served.get()
        assert eventually(lambda: not served.connections.open)
        assert eventually(lambda: served.budget.held == 0)
        assert eventually(lambda: len(served.statuses) == 4)


def test_an_answer_that_is_taken_slowly_but_steadily_arrives_whole():
    with Served(Limits(stalled_seconds=1)) as served:
        with send(served.url, b"GET /large HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n") as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
            content = b""
            while piece := connection.recv(1 << 18):
                content += piece
                time.sleep(0.05)
        assert len(content.partition(b"\r\n\r\n")[2]) == LARGE


def test_an_answer_below_the_minimum_rate_is_given_up():
    with Served(Limits(stalled_seconds=1, answer_rate=1e9)) as served:
        with send(served.url, b"GET /large HTTP/1.1\r\nConnection: close\r\n" + HOST + b"\r\n") as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
            content = b""
            while piece := connection.recv(1 << 14):
                content += piece
                time.sleep(0.02)
        assert len(content) < LARGE
        assert eventually(lambda: served.statuses == [499])


def test_idle_connections_give_way_to_new_ones():
    with Served(Limits(header_seconds=60), maximum=8) as served, contextlib.ExitStack() as idle:
        for _ in range(30):
            idle.enter_context(send(served.url, b"G"))
        for _ in range(20):
            assert b"200 OK" in served.get()
        assert len(served.connections.open) <= 8


def test_connections_beyond_the_limit_get_503_while_all_others_are_busy():
    with Served(Limits(), maximum=4) as served:
        busy = [send(served.url, HEAD + b"Content-Length: 10\r\n\r\nx") for _ in range(4)]
        assert eventually(lambda: [connection.idle for connection in served.connections.open] == [False] * 4)
        refusal = served.get()
        assert refusal.startswith(b"HTTP/1.1 503")
        head, _, body = refusal.partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert json.loads(body)["error"] == "too many connections; try again in a second"
        busy[0].sendall(b"123456789")
        assert busy[0].recv(100).startswith(b"HTTP/1.1 200"), "connections in use are not closed"
        for connection in busy:
            connection.close()


def test_a_cancelled_request_gets_503_without_a_traceback(caplog):
    async def run() -> list[dict]:
        started, sent = asyncio.Event(), []

        async def app(_scope, _receive, _send) -> None:
            started.set()
            await asyncio.sleep(60)

        async def collect(message) -> None:
            sent.append(message)

        async def receive() -> dict:
            return {"type": "http.request", "body": b"", "more_body": False}

        guard = Guard(app, Limits(), Budget(100), Metrics({}))
        scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
        task = asyncio.create_task(guard(scope, receive, collect))
        await started.wait()
        task.cancel()
        await task
        return sent

    start, body = asyncio.run(run())
    assert start["status"] == 503
    assert (b"retry-after", b"1") in start["headers"]
    assert json.loads(body["body"]) == {"error": "the server is stopping; try again in a second"}
    assert "Traceback" not in caplog.text
