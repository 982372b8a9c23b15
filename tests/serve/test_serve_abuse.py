"""danet serve as a process, asked by sockets: requests at the edge of HTTP and beyond, ways out of the page's folder,
slow clients beside many uploads, and 100,000 requests.
"""

import contextlib
import http.client
import itertools
import json
import os
import re
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import numpy as np
import pytest
from web_client import image, process, send

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(scope="module")
def server(tiny_weights):
    """A server's process, of at most 1 MB a body, and its address."""
    with serving(tiny_weights, "--max-mb", "1") as found:
        yield found


@contextlib.contextmanager
def serving(weights: Path, *args: str):
    """A server's process whose log is read, so that it never waits for a reader; and its address."""
    with process(weights, *args) as (child, address):
        reader = threading.Thread(target=child.stderr.read)
        reader.start()
        try:
            yield child, address
        finally:
            child.kill()
            reader.join()


def connected(address: str) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection(urlsplit(address).netloc, timeout=60))


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, content)
    answer = connection.getresponse()
    return answer.status, answer.read()


def answers(address: str, content: bytes, seconds: float = 60) -> bytes:
    """All that comes back until the server closes, or says nothing for so long."""
    said = b""
    with send(address, content) as connection:
        connection.settimeout(seconds)
        try:
            while piece := connection.recv(1 << 16):
                said += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return said


def status(said: bytes) -> int:
    """Of the first answer; 0 where the connection was closed without one."""
    return int(said[9:12]) if said.startswith(b"HTTP/1.1 ") else 0


def chunked(*parts: bytes) -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, b""))


WHOLE = image()
HOST = b"Host: localhost\r\nConnection: close\r\n"
POST = b"POST /v1/segment HTTP/1.1\r\n" + HOST
LENGTH = b"Content-Length: %d\r\n\r\n" % len(WHOLE)
TE = b"Transfer-Encoding: chunked\r\n\r\n"

EDGES: dict[str, tuple[bytes, set[int]]] = {
    "whole": (POST + LENGTH + WHOLE, {200}),
    "chunked": (POST + TE + chunked(WHOLE[:100], WHOLE[100:]), {200}),
    "chunked, a byte each": (POST + TE + chunked(*(WHOLE[i : i + 1] for i in range(300)), WHOLE[300:]), {200}),
    "chunk of a length that is none": (POST + TE + b"xyz\r\n" + WHOLE, {400}),
    "chunk of a negative length": (POST + TE + b"-5\r\n" + WHOLE, {400}),
    "chunk of 2^80 bytes": (POST + TE + b"1" + b"0" * 20 + b"\r\n" + WHOLE, {0, 400, 413}),
    "chunks that never end": (POST + TE + chunked(WHOLE)[:-5], {0, 408}),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n" + WHOLE, {400}),
    "length and chunks": (POST + b"Content-Length: 5\r\n" + TE + chunked(WHOLE), {200, 400}),
    "a length that is none": (POST + b"Content-Length: many\r\n\r\n", {400}),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", {400}),
    "a length of 10^30": (POST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n", {0, 400, 408, 413}),
    "a length too short": (POST + b"Content-Length: 10\r\n\r\n" + WHOLE, {422}),
    "no length": (POST + b"\r\n", {422}),
    "HEAD": (b"HEAD /v1/segment HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "HEAD of the page": (b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", {200}),
    "OPTIONS": (b"OPTIONS /v1/segment HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", {403, 405}),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "CONNECT": (b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "a method that is none": (b"GE\0T / HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "an address": (b"GET http://evil.example/health HTTP/1.1\r\n" + HOST + b"\r\n", {200, 400, 404}),
    "no host": (b"GET /health HTTP/1.1\r\nConnection: close\r\n\r\n", {400}),
    "two hosts": (b"GET /health HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", {400}),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n", {200}),
    "HTTP/9": (b"GET /health HTTP/9.9\r\nHost: localhost\r\n\r\n", {200, 400, 505}),
    "HTTP/2 at once": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", {400, 404, 405}),
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(100), {0, 400}),
    "a path of 100 kB": (b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 414, 431}),
    "a header of 100 kB": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: " + b"x" * 100_000 + b"\r\n\r\n", {200, 400, 431}),
    "10,000 headers": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: y\r\n" * 10_000 + b"\r\n", {200, 400, 431}),
    "NUL in a header": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n", {400}),
    "a folded header": (b"GET /health HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n", {200, 400}),
    "a web socket": (
        b"GET /v1/segment HTTP/1.1\r\n" + HOST + b"Upgrade: websocket\r\nSec-WebSocket-Key: eA==\r\n\r\n",
        {400, 405, 426},
    ),
}


def alive(address: str) -> bool:
    with connected(address) as connection:
        return ask(connection, "POST", "/v1/segment", WHOLE)[0] == 200


def test_requests_at_the_edge_of_http(server):
    """All at once, since some wait; then the server answers as before and holds nothing of them."""
    _, address = server
    with ThreadPoolExecutor(len(EDGES)) as pool:
        said = dict(
            zip(
                EDGES,
                pool.map(lambda edge: answers(address, edge[0], 3 if 0 in edge[1] else 60), EDGES.values()),
                strict=True,
            )
        )
    wrong = {name: said[name][:60] for name, (_, expected) in EDGES.items() if status(said[name]) not in expected}
    assert not wrong
    for name in EDGES:
        assert b"Traceback" not in said[name], name
        assert b"access-control" not in said[name].lower(), name
        assert said[name].count(b"HTTP/1.1 ") <= 2, f"{name}: its body was taken for requests"
    assert said["HEAD of the page"].endswith(b"\r\n\r\n"), "an answer to HEAD has no body"
    assert alive(address)
    with connected(address) as connection:
        for _ in range(50):
            told = ask(connection, "GET", "/metrics")[1].decode()
            held = int(re.search(r"^danet_held_bytes (\d+)", told, re.MULTILINE)[1])
            if held == 0:
                break
            time.sleep(0.1)
    assert held == 0


ROOTS = ("/page/", "/v1/images/", "/")
DOTS = ("..", "%2e%2e", ".%2e", "%2E.", "..%00", "%252e%252e", "..;", "%c0%ae%c0%ae", "\\..", "%5c..")
TARGETS = ("server.py", "etc/passwd")
WAYS = [root + dots + "/" + dots + "/" + target for root, dots, target in itertools.product(ROOTS, DOTS, TARGETS)]
MORE = [
    *("/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/....//server.py", "/page/./../server.py", "//etc/passwd"),
    *("/page/page.js%00.html", "/page/page.js/../../server.py", "/page/C:%5cwindows%5cwin.ini", "/page/~root/.ssh/id"),
    *("/page/file:///etc/passwd", "/page/%", "/page/%zz", "/page/" + quote("‥/server.py"), "/page/.", "/page/.."),
]


def test_no_path_leads_out_of_the_page(server):
    """75 ways to write ../; none is answered by a file."""
    _, address = server
    assert len(WAYS + MORE) >= 60
    for path in WAYS + MORE:
        said = answers(address, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        assert status(said) in (400, 404, 405, 422), (path, said[:200])
        assert b"root:" not in said, path
        assert b"import" not in said, path


@pytest.mark.parametrize(("uploads", "strict"), [(60, False), pytest.param(200, True, marks=pytest.mark.stress)])
def test_slow_clients_beside_many_uploads_hold_up_nobody(tiny_weights, uploads, strict):
    """Parallel uploads beside 50 clients that send a byte now and then: 200 or 503, memory bounded, /health quick."""
    content = image(size=(240, 320), kind="JPEG")
    with serving(tiny_weights, "--max-mb", "1") as (child, address):
        assert alive(address)
        before = resident(child.pid, "VmRSS")
        head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
        slow = [send(address, head) for _ in range(50)]
        done = threading.Event()

        def drip() -> None:
            while not done.wait(0.2):
                for connection in slow:
                    with contextlib.suppress(OSError):  # its time is up
                        connection.send(b"\x89")

        def upload(_: int) -> int:
            with connected(address) as connection:
                return ask(connection, "POST", "/v1/segment", content)[0]

        def health() -> list[float]:
            seconds = []
            with connected(address) as connection:
                while not done.wait(0.01):
                    begun = time.perf_counter()
                    assert ask(connection, "GET", "/health") == (200, b'{"status":"ok"}')
                    seconds.append(time.perf_counter() - begun)
            return seconds

        with ThreadPoolExecutor(uploads + 2) as pool:
            asked = pool.submit(health)
            dripping = pool.submit(drip)
            statuses = Counter(pool.map(upload, range(uploads)))
            done.set()
            seconds = sorted(asked.result())
            dripping.result()
        for connection in slow:
            connection.close()
        assert set(statuses) <= {200, 503}
        assert statuses[200] >= 50
        p99 = seconds[int(0.99 * len(seconds))]
        peak = resident(child.pid, "VmHWM")
        print(f"{uploads} uploads: {dict(statuses)}, peak memory {peak / before:.2f} of the idle server's")
        print(f"p99 of {len(seconds)} /health: {1e3 * p99:.0f} ms")
        assert peak < 1.5 * before
        assert p99 < (0.1 if strict else 2)


def resident(pid: int, key: str) -> int:
    """VmRSS or VmHWM of a process, in bytes."""
    return 1024 * int(Path(f"/proc/{pid}/status").read_text().split(f"{key}:")[1].split()[0])


@pytest.mark.parametrize(("requests", "limit"), [(600, 5000), pytest.param(100_000, 1000, marks=pytest.mark.stress)])
def test_memory_and_descriptors_stay_flat(tiny_weights, requests, limit):
    """Of 20 requests one segments an image, three ask where a pixel looks, one is refused, the others ask /health."""
    contents = [image(i, (48, 64)) for i in range(40)]
    with serving(tiny_weights) as (child, address):
        with connected(address) as connection:
            name = json.loads(ask(connection, "POST", "/v1/segment?keep=true", contents[0])[1])["image"]

        def mixture(first: int, last: int) -> Counter:
            statuses = Counter()
            with connected(address) as connection:
                for i in range(first, last):
                    request = ("GET", "/health", None)
                    if i % 20 == 0:
                        request = ("POST", "/v1/segment", contents[i // 20 % 40])
                    elif i % 20 in (5, 10, 15):
                        request = ("POST", f"/v1/attention?image={name}&x={i % 64}&y={i % 48}", None)
                    elif i % 20 == 19:
                        request = ("POST", "/v1/segment", b"no image")
                    statuses[ask(connection, *request)[0]] += 1
            return statuses

        total, measured = Counter(), []
        with ThreadPoolExecutor(2) as pool:
            for part in range(11):  # the first is for warming up
                step = requests // 10 if part else max(100, requests // 20)
                halves = pool.map(mixture, (0, step // 2), (step // 2, step))
                for half in halves:
                    total += half
                measured.append((sum(total.values()), resident(child.pid, "VmRSS"), descriptors(child.pid)))
        assert total[422] == pytest.approx(sum(total.values()) / 20, rel=0.02)
        assert set(total) == {200, 422}
        counts, sizes, open_files = np.array(measured, float).T
        slope = np.polyfit(counts[1:], sizes[1:], 1)[0]
        print("requests, MB:", ", ".join(f"{n:,.0f} {size / 1e6:.1f}" for n, size in zip(counts, sizes, strict=True)))
        print(f"{slope:.0f} bytes a request; descriptors {sorted(map(int, set(open_files)))}")
        assert slope < limit
        assert max(open_files) - min(open_files) <= 2


def descriptors(pid: int) -> int:
    """Open files of a server between two parts of the load, when its clients have gone."""
    time.sleep(0.2)
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208
