"""`danet serve` as a separate process, which all tests here share, queried over sockets.

Requests at the edge of HTTP and beyond, paths that try to leave the page's folder, slow clients during many uploads,
memory after many requests, and the example clients.
"""

import asyncio
import contextlib
import http.client
import io
import itertools
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlsplit

import httpx
import numpy as np
import pytest
from health_probe import probing
from memory import memory, reset_peak
from PIL import Image
from serve_client import image, send, server_process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(warm, tiny_weights, tmp_path_factory):
    """Yield a server's process and its URL. It accepts bodies up to 1 MB."""
    with server_process(warm, tiny_weights, tmp_path_factory.mktemp("server") / "log", "--max-mb", "1") as running:
        yield running


def connected(url: str) -> contextlib.closing[http.client.HTTPConnection]:
    return contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=60))


def ask(
    connection: http.client.HTTPConnection, method: str, path: str, content: bytes | None = None
) -> tuple[int, bytes]:
    connection.request(method, path, content)
    response = connection.getresponse()
    return response.status, response.read()


def exchange(url: str, content: bytes, seconds: float = 60) -> bytes:
    """Send bytes, and return all that is received until the server closes the connection or is silent for a while."""
    received = b""
    with send(url, content) as connection:
        connection.settimeout(seconds)
        try:
            while piece := connection.recv(1 << 16):
                received += piece
        except (TimeoutError, ConnectionResetError):
            pass
    return received


def status(received: bytes) -> int:
    """Return the status of the first response, or 0 if the connection was closed without one."""
    return int(received[9:12]) if received.startswith(b"HTTP/1.1 ") else 0


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
    "chunk with an invalid length": (POST + TE + b"xyz\r\n" + WHOLE, {400}),
    "chunk with a negative length": (POST + TE + b"-5\r\n" + WHOLE, {400}),
    "chunk of 2^80 bytes": (POST + TE + b"1" + b"0" * 20 + b"\r\n" + WHOLE, {0, 400, 413}),
    "chunks that never end": (POST + TE + chunked(WHOLE)[:-5], {0, 408}),
    "two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 9\r\n\r\n" + WHOLE, {400}),
    "length and chunks": (POST + b"Content-Length: 5\r\n" + TE + chunked(WHOLE), {200, 400}),
    "an invalid length": (POST + b"Content-Length: many\r\n\r\n", {400}),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", {400}),
    "a length of 10^30": (POST + b"Content-Length: 1" + b"0" * 30 + b"\r\n\r\n", {0, 400, 408, 413}),
    "a length too short": (POST + b"Content-Length: 10\r\n\r\n" + WHOLE, {422}),
    "no length": (POST + b"\r\n", {422}),
    "HEAD": (b"HEAD /v1/segment HTTP/1.1\r\n" + HOST + b"\r\n", {405}),
    "HEAD of the page": (b"HEAD / HTTP/1.1\r\n" + HOST + b"\r\n", {200}),
    "OPTIONS": (b"OPTIONS /v1/segment HTTP/1.1\r\n" + HOST + b"Origin: http://evil.example\r\n\r\n", {403, 405}),
    "OPTIONS *": (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "CONNECT": (b"CONNECT evil.example:443 HTTP/1.1\r\n" + HOST + b"\r\n", {400, 404, 405}),
    "an invalid method": (b"GE\0T / HTTP/1.1\r\n" + HOST + b"\r\n", {400}),
    "a full URL": (b"GET http://evil.example/health HTTP/1.1\r\n" + HOST + b"\r\n", {200, 400, 404}),
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


def works(url: str) -> bool:
    with connected(url) as connection:
        return ask(connection, "POST", "/v1/segment", WHOLE)[0] == 200


def test_requests_at_the_edge_of_http(server):
    """Send all requests at once, since some wait. Afterwards the server works and holds none of their bytes."""
    _, url = server
    with ThreadPoolExecutor(len(EDGES)) as pool:
        exchanges = pool.map(lambda edge: exchange(url, edge[0], 3 if 0 in edge[1] else 60), EDGES.values())
        received = dict(zip(EDGES, exchanges, strict=True))
    wrong = {name: received[name][:60] for name, (_, valid) in EDGES.items() if status(received[name]) not in valid}
    assert not wrong
    for name in EDGES:
        assert b"Traceback" not in received[name], name
        assert b"access-control" not in received[name].lower(), name
        assert received[name].count(b"HTTP/1.1 ") <= 2, f"{name}: its body was parsed as requests"
    assert received["HEAD of the page"].endswith(b"\r\n\r\n"), "a response to HEAD has no body"
    assert works(url)
    with connected(url) as connection:
        for _ in range(50):
            metrics = ask(connection, "GET", "/metrics")[1].decode()
            held = int(re.search(r"^danet_held_bytes (\d+)", metrics, re.MULTILINE)[1])
            if held == 0:
                break
            time.sleep(0.1)
    assert held == 0


ROOTS = ("/page/", "/v1/images/", "/")
DOTS = ("..", "%2e%2e", ".%2e", "%2E.", "..%00", "%252e%252e", "..;", "%c0%ae%c0%ae", "\\..", "%5c..")
TARGETS = ("app.py", "etc/passwd")
WAYS = [root + dots + "/" + dots + "/" + target for root, dots, target in itertools.product(ROOTS, DOTS, TARGETS)]
MORE = [
    *("/page//etc/passwd", "/page/%2fetc%2fpasswd", "/page/....//app.py", "/page/./../app.py", "//etc/passwd"),
    *("/page/page.js%00.html", "/page/page.js/../../app.py", "/page/C:%5cwindows%5cwin.ini", "/page/~root/.ssh/id"),
    *("/page/file:///etc/passwd", "/page/%", "/page/%zz", "/page/" + quote("‥/app.py"), "/page/.", "/page/.."),
]


def test_no_path_leads_out_of_the_page(server):
    """Try 74 spellings of ../; none may return a file."""
    _, url = server
    assert len(WAYS + MORE) >= 60
    for path in WAYS + MORE:
        received = exchange(url, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"\r\n")
        assert status(received) in (400, 404, 405, 422), (path, received[:200])
        assert b"root:" not in received, path
        assert b"import" not in received, path


@pytest.mark.parametrize(
    ("clients", "seconds", "limit"), [(60, 0, 2), pytest.param(200, 30, 0.1, marks=pytest.mark.stress)]
)
def test_slow_clients_during_uploads_delay_nobody(server, clients, seconds, limit):
    """Upload in parallel while 50 clients send a byte now and then: 200 or 503, bounded memory, a quick /health."""
    child, url = server
    content = image(size=(240, 320), kind="JPEG")
    assert works(url)
    before = reset_peak(child.pid)
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5000\r\n\r\n"
    slow = [send(url, head) for _ in range(50)]
    done, end = threading.Event(), time.monotonic() + seconds

    def drip() -> None:
        while not done.wait(0.2):
            for connection in slow:
                with contextlib.suppress(OSError):  # timed out
                    connection.send(b"\x89")

    def upload(_: int) -> list[int]:
        """Upload until the end, with a pause of a second after a 503, as its Retry-After asks for."""
        statuses = []
        while not statuses or time.monotonic() < end:
            with connected(url) as connection:
                statuses.append(ask(connection, "POST", "/v1/segment", content)[0])
            if statuses[-1] == 503 and seconds:
                time.sleep(1)
        return statuses

    with probing(url) as waited, ThreadPoolExecutor(clients + 1) as pool:
        dripping = pool.submit(drip)
        statuses = Counter(itertools.chain.from_iterable(pool.map(upload, range(clients))))
        done.set()
        dripping.result()
    for connection in slow:
        connection.close()
    assert set(statuses) <= {200, 503}
    assert statuses[200] >= 50
    p99 = waited[int(0.99 * len(waited))]
    peak = memory(child.pid, "VmHWM")
    print(f"{clients} clients: {dict(statuses)}, peak memory {peak / before:.2f} times that before")
    print(f"{len(waited)} /health: p99 {1e3 * p99:.0f} ms, longest {1e3 * waited[-1]:.0f} ms")
    assert peak < 1.5 * before
    assert p99 < limit


@pytest.mark.parametrize(("requests", "limit"), [(600, 5000), pytest.param(100_000, 1000, marks=pytest.mark.stress)])
def test_memory_and_descriptors_stay_flat(server, requests, limit):
    """Of 20 requests, one segments an image, three query attention, one is rejected, and the others ask for /health."""
    child, url = server
    contents = [image(i, (48, 64)) for i in range(40)]
    with connected(url) as connection:
        image_id = json.loads(ask(connection, "POST", "/v1/segment?keep=true", contents[0])[1])["image"]

    def mixture(first: int, last: int) -> Counter:
        statuses = Counter()
        with connected(url) as connection:
            for i in range(first, last):
                request = ("GET", "/health", None)
                if i % 20 == 0:
                    request = ("POST", "/v1/segment", contents[i // 20 % 40])
                elif i % 20 in (5, 10, 15):
                    request = ("POST", f"/v1/attention?image={image_id}&x={i % 64}&y={i % 48}", None)
                elif i % 20 == 19:
                    request = ("POST", "/v1/segment", b"no image")
                statuses[ask(connection, *request)[0]] += 1
        return statuses

    total, measured = Counter(), []
    with ThreadPoolExecutor(2) as pool:
        for part in range(11):  # the first part is for warming up
            step = requests // 10 if part else max(100, requests // 20)
            halves = pool.map(mixture, (0, step // 2), (step // 2, step))
            for half in halves:
                total += half
            measured.append((sum(total.values()), memory(child.pid, "VmRSS"), descriptors(child.pid)))
    assert total[422] == pytest.approx(sum(total.values()) / 20, rel=0.02)
    assert set(total) == {200, 422}
    counts, sizes, open_files = np.array(measured, float).T
    slope = np.polyfit(counts[1:], sizes[1:], 1)[0]
    print("requests, MB:", ", ".join(f"{n:,.0f} {size / 1e6:.1f}" for n, size in zip(counts, sizes, strict=True)))
    print(f"{slope:.0f} bytes per request; descriptors {sorted(map(int, set(open_files)))}")
    assert slope < limit
    assert max(open_files) - min(open_files) <= 2


def descriptors(pid: int) -> int:
    """Return the number of open files of a server, once the clients of this part have disconnected."""
    time.sleep(0.2)
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208


def test_200_uploads_at_once_get_200_or_503_in_bounded_memory(server):
    child, url = server
    content = image(size=(240, 320), kind="JPEG")

    async def run():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await client.post(f"{url}/v1/segment", content=content)
            before = reset_peak(child.pid)
            posts = [client.post(f"{url}/v1/segment", content=content) for _ in range(200)]
            return await asyncio.gather(*posts), before

    responses, before = asyncio.run(run())
    assert {response.status_code for response in responses} <= {200, 503}
    assert sum(response.status_code == 200 for response in responses) >= 64
    assert memory(child.pid, "VmHWM") < 1.5 * before


def strip(height: int, width: int) -> bytes:
    """Return a PNG of few bytes."""
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("output", ["overlay", "labels", "json"])
@pytest.mark.parametrize(
    ("size", "limit"),
    [
        ((65_000, 1), 100),
        ((20_000, 300), 250),
        ((1, 4_000_000), 300),
        pytest.param((40_000, 300), 400, marks=pytest.mark.stress),
        pytest.param((1, 32_000_000), 900, marks=pytest.mark.stress),
        pytest.param((32_000_000, 1), 900, marks=pytest.mark.stress),
    ],
)
def test_strips_take_memory_in_proportion_to_their_pixels(server, size, limit, output):
    child, url = server
    assert works(url)
    before = reset_peak(child.pid)
    with connected(url) as connection:
        status, content = ask(connection, "POST", f"/v1/segment?output={output}", strip(*size))
    assert status == 200
    if output != "json":
        with Image.open(io.BytesIO(content)) as answer:
            assert answer.height >= size[0]
            assert size[1] <= answer.width <= size[1] + 300
    print(f"{size}, {output}: {(memory(child.pid, 'VmHWM') - before) / 1e6:.0f} MB")
    assert memory(child.pid, "VmHWM") - before < limit * 1_000_000


def flood(url: str, done: threading.Event) -> None:
    """Send bodies in chunks of one byte until the time is over."""
    while not done.is_set():
        with send(url, POST + TE) as connection, contextlib.suppress(OSError):
            while not done.is_set():
                connection.sendall(b"1\r\nx\r\n" * 10_000)


@pytest.mark.parametrize(("clients", "seconds"), [(4, 3), pytest.param(8, 20, marks=pytest.mark.stress)])
def test_floods_of_tiny_chunks_do_not_stop_the_others(server, clients, seconds):
    """Each chunk of a byte costs as much as a large one; without limits, one client delays /health by 1.2 s."""
    _, url = server
    done = threading.Event()
    with ThreadPoolExecutor(clients) as pool, probing(url) as waited:
        flooding = [pool.submit(flood, url, done) for _ in range(clients)]
        time.sleep(seconds)
        done.set()
        for future in flooding:
            future.result()
    p99 = waited[int(0.99 * len(waited))]
    print(f"p99 of {len(waited)} /health: {1e3 * p99:.0f} ms")
    assert p99 < 0.6
    assert works(url)


@pytest.mark.parametrize("seconds", [5, pytest.param(60, marks=pytest.mark.stress)])
def test_all_floods_together_take_at_most_1_5_gb(warm, tiny_weights, tmp_path, seconds):
    """Floods of chunks, idle connections, strips, large images, and answers that nobody reads, at the same time."""
    done, answers = threading.Event(), Counter()
    with server_process(warm, tiny_weights, tmp_path / "log") as (child, url):
        assert works(url)
        before = reset_peak(child.pid)
        bodies = [strip(65_000, 1), strip(1, 8_000_000), strip(20_000, 300), image(size=(1500, 2000), kind="JPEG")]

        def segment(number: int) -> None:
            while not done.is_set():
                with connected(url) as connection, contextlib.suppress(OSError, http.client.HTTPException):
                    keep = "?keep=true" if number % 3 == 0 else "?output=overlay"
                    answers[ask(connection, "POST", f"/v1/segment{keep}", bodies[number % 4])[0]] += 1

        def leave_unread() -> None:
            content = bodies[3]
            head = b"POST /v1/segment?output=overlay HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
            held = [send(url, head % len(content) + content) for _ in range(30)]
            done.wait()
            for connection in held:
                connection.close()

        idle = [send(url, b"GET") for _ in range(300)]
        with ThreadPoolExecutor(12) as pool:
            working = [pool.submit(segment, number) for number in range(8)]
            working += [pool.submit(leave_unread), pool.submit(flood, url, done), pool.submit(flood, url, done)]
            time.sleep(seconds)
            done.set()
            for future in working:
                future.result()
        for connection in idle:
            connection.close()
        peak = memory(child.pid, "VmHWM") - before
        print(f"{dict(answers)}, {peak / 1e6:.0f} MB above the idle server")
        assert set(answers) <= {200, 503}
        assert answers[200]
        assert peak < 1_500_000_000
        assert works(url)


def test_false_lengths_disconnects_and_slow_clients(server):
    _, url = server
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
    with send(url, head + b"Content-Length: 3000000\r\n\r\n" + bytes(3_000_000)) as large:
        assert large.recv(12) == b"HTTP/1.1 413"
    with send(url, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n%s\r\n" % bytes(1 << 20) * 2) as chunks:
        assert chunks.recv(12) == b"HTTP/1.1 413"
    with send(url, head + b"Content-Length: 10\r\n\r\n" + WHOLE) as short:
        assert short.recv(12) == b"HTTP/1.1 422"
    with send(url, b"rubbish\r\n\r\n") as rubbish:
        assert rubbish.recv(12) == b"HTTP/1.1 400"
    with send(url, head.replace(b"localhost", b"evil.example") + b"Content-Length: 0\r\n\r\n") as rebound:
        response = rebound.recv(4096)
        assert response.startswith(b"HTTP/1.1 400")
        assert b"uvicorn" not in response.lower()
    slow = [send(url, head + b"Content-Length: 1000\r\n\r\nx") for _ in range(50)]
    slow += [send(url, head) for _ in range(20)]
    for _ in range(20):
        send(url, head + b"Content-Length: 100000\r\n\r\n" + bytes(1000)).close()  # disconnects halfway
    with httpx.Client(base_url=url, timeout=20) as client:
        seconds = []
        for _ in range(30):
            start = time.monotonic()
            assert client.get("/health").status_code == 200
            seconds.append(time.monotonic() - start)
        assert sorted(seconds)[-2] < 0.1
        assert client.post("/v1/segment", content=WHOLE).status_code == 200
        held = re.search(r"^danet_held_bytes (\d+)", client.get("/metrics").text, re.M)
        assert int(held[1]) <= 50, "only what the slow clients sent, and nothing of those that disconnected"
    for connection in slow:
        connection.close()


def test_the_example_clients_run(server, tmp_path):
    (tmp_path / "image.png").write_bytes(WHOLE)
    _, url = server
    command = [sys.executable, str(ROOT / "examples/client.py"), str(tmp_path / "image.png"), "--at", "10", "20"]
    done = subprocess.run([*command, "--server", url], capture_output=True, text=True, check=True, timeout=60)
    assert "looks at" in done.stdout
    for address in (url.rpartition(":")[2], url):
        command = ["bash", str(ROOT / "examples/client.sh"), "image.png", address]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size[0] > 64
    assert json.loads(done.stdout.splitlines()[0])["width"] == 64
