"""`danet serve` behind nginx, with the configuration in docs/deploy.md, and queried by curl and wget."""

import asyncio
import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from serve_client import error_of, image, send, server_process

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
pytestmark = [
    pytest.mark.skipif(NGINX is None, reason="nginx is not installed"),
    pytest.mark.skipif(sys.platform != "linux", reason="starts nginx"),
]

ROOT = Path(__file__).parents[2]
CONFIGURATION = re.search(r"```nginx\n(.*?)```", (ROOT / "docs/deploy.md").read_text(), re.DOTALL)[1]
COMMAND = ["--allow-host", "lab.example", "--trusted-proxy", "127.0.0.1", "--log-format", "json"]
TEMPORARY = " ".join(f"{kind}_temp_path tmp;" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
VARIANTS = {
    "path removed": ("/danet", lambda text: text),
    "path kept": ("/danet", lambda text: text.replace("http://danet/;", "http://danet;")),
    "no path": ("", lambda text: text.replace("location /danet/", "location /")),
}
"""Name -> the path under which clients reach the server, and how the documented configuration differs."""


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextlib.contextmanager
def nginx(folder: Path, text: str, behind: str) -> Iterator[str]:
    """Run nginx with these `upstream` and `server` blocks, and yield its URL."""
    port = free_port()
    blocks = text.replace("127.0.0.1:8000", urlsplit(behind).netloc).replace("listen 80;", f"listen 127.0.0.1:{port};")
    settings = "daemon off; pid nginx.pid; error_log error.log; events { worker_connections 8192; }"
    user = "user root;" if os.geteuid() == 0 else ""
    (folder / "nginx.conf").write_text(f"{user} {settings} http {{ access_log off; {TEMPORARY}\n{blocks} }}")
    command = [NGINX, "-p", str(folder), "-c", "nginx.conf", "-e", "error.log"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as running:
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                assert running.poll() is None, (folder / "error.log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            running.terminate()


@pytest.fixture(scope="module", params=["/danet", ""])
def server(request, warm, tiny_weights, tmp_path_factory) -> Iterator[tuple[str, str, Path]]:
    """Yield a server's URL, its root path, and its log."""
    log = tmp_path_factory.mktemp("server") / "log"
    path = ["--root-path", request.param] if request.param else []
    with server_process(warm, tiny_weights, log, *COMMAND, *path) as (_, url):
        yield url, request.param, log


@pytest.fixture(params=sorted(VARIANTS))
def site(request, server, tmp_path) -> Iterator[tuple[str, str, Path]]:
    """Yield the URL of a server behind nginx as documented, the Host header of a browser, and the server's log."""
    url, root_path, log = server
    prefix, variant = VARIANTS[request.param]
    if prefix != root_path and request.param != "path removed":
        pytest.skip("not a valid combination")
    with nginx(tmp_path, variant(CONFIGURATION), url) as outside:
        yield f"{outside}{prefix}", f"lab.example:{urlsplit(outside).port}", log


def test_the_page_and_the_interface_work_behind_nginx(site):
    url, host, log = site
    with httpx.Client(headers={"Host": host}, timeout=60) as client:
        for path in ("/", "/docs"):
            page = client.get(url + path)
            assert page.status_code == 200
            names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
            assert len(names) >= 4
            for name in names:
                answer = client.get(httpx.URL(url + path).join(name))
                assert answer.status_code == 200, name
                assert "not found" not in answer.text
        own = client.post(f"{url}/v1/segment?keep=true", content=image(), headers={"Origin": f"http://{host}"})
        assert own.status_code == 200
        labels = client.get(f"{url}/v1/images/{own.json()['image']}/labels", headers={"X-Request-ID": "mine"})
        assert labels.headers["content-type"] == "image/png"
        assert re.fullmatch("[0-9a-f]{32}", labels.headers["x-request-id"]), "nginx's, not the client's"
        other = client.post(f"{url}/v1/segment", content=image(), headers={"Origin": "http://evil.example"})
        assert other.status_code == 403
        assert "--allow-origin http://evil.example" in error_of(other)
        assert client.get(f"{url}/health/ready", headers={"Host": "evil.example"}).status_code == 400
        assert client.head(f"{url}/health/live").status_code == 200
    entries = [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]
    entry = next(entry for entry in entries if entry.get("request_id") == labels.headers["x-request-id"])
    assert (entry["route"], entry["status"], entry["client"]) == ("/v1/images/{image}/labels", 200, "127.0.0.1")


@pytest.mark.browser
def test_the_page_runs_in_a_browser_behind_nginx(site, tmp_path):
    url, _, _ = site
    quiet = ["--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync"]
    once = [f"--user-data-dir={tmp_path}", "--virtual-time-budget=20000", "--dump-dom"]
    page = run(["chromium", "--headless", *quiet, *once, f"{url}/"], tmp_path)
    assert 'data-model="ready"' in page.stdout
    docs = run(["chromium", "--headless", *quiet, *once, f"{url}/docs"], tmp_path)
    assert f'<span class="here">{url}</span>/v1/segment' in docs.stdout
    assert "<b>POST</b>/v1/segment" in docs.stdout


def test_the_path_without_a_slash_leads_to_the_page(site):
    url, host, _ = site
    answer = httpx.get(url, headers={"Host": host})
    if not url.endswith("/danet"):
        assert answer.status_code == 200
        return
    assert answer.status_code in (301, 308)
    assert urlsplit(answer.headers["location"]).path == "/danet/"


def test_curl_and_wget_query_a_server_behind_nginx(site, tmp_path):
    url, _, _ = site
    (tmp_path / "image.png").write_bytes(image(size=(900, 900)))  # over 1 MB: curl sends Expect: 100-continue
    upload = ["curl", "-sSf", "-H", "Expect: 100-continue", "--data-binary", "@image.png"]
    done = run([*upload, f"{url}/v1/segment"], tmp_path)
    assert json.loads(done.stdout)["width"] == 900
    for path in ("/", "/docs", "/health/live", "/v1/model"):
        run(["wget", "-q", "--spider", url + path], tmp_path)
    script = ["bash", str(ROOT / "examples/client.sh"), "image.png", url]
    assert json.loads(run(script, tmp_path).stdout.splitlines()[0])["width"] == 900


def run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done


def test_a_proxy_without_any_configuration_is_explained(server, tmp_path):
    url, _, _ = server
    with nginx(tmp_path, f"server {{ listen 80; location / {{ proxy_pass {url}; }} }}", url) as outside:
        assert httpx.get(outside).status_code == 200
        assert httpx.post(f"{outside}/v1/segment", content=image(), timeout=60).status_code == 200
        refused = httpx.post(f"{outside}/v1/segment", content=image(), headers={"Origin": outside}, timeout=60)
        assert refused.status_code == 403
        assert f"danet serve --allow-origin {outside}" in error_of(refused)


def test_a_body_that_is_too_large_is_refused_before_curl_sends_it(server, tmp_path):
    url, _, _ = server
    (tmp_path / "large").write_bytes(bytes(30 << 20))
    command = ["curl", "-sS", "-v", "-H", "Expect: 100-continue", "--data-binary", "@large", f"{url}/v1/segment"]
    done = run(command, tmp_path)
    assert "HTTP/1.1 413" in done.stderr
    assert "100 Continue" not in done.stderr
    assert "larger than 20 MB" in done.stdout


@pytest.mark.parametrize("behind", [False, True])
def test_pipelined_requests_are_answered_in_order(server, tmp_path, behind):
    url, prefix, _ = server
    variant = VARIANTS["path removed" if prefix else "no path"][1]
    content = image()
    head = f"Host: lab.example\r\nContent-Length: {len(content)}\r\n\r\n".encode()
    requests = b""
    for number in range(10):
        requests += f"GET {prefix}/page/icon.svg HTTP/1.1\r\nHost: lab.example\r\n\r\n".encode()
        requests += f"POST {prefix}/v1/segment HTTP/1.1\r\n".encode() + head + content
        requests += f"HEAD {prefix}/v1/nothing{number} HTTP/1.1\r\nHost: lab.example\r\n\r\n".encode()
    requests += f"GET {prefix}/health/live HTTP/1.1\r\nHost: lab.example\r\nConnection: close\r\n\r\n".encode()
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(nginx(tmp_path, variant(CONFIGURATION), url)) if behind else url
        connection = stack.enter_context(send(address, requests))
        connection.settimeout(60)
        received = b""
        while piece := connection.recv(1 << 16):
            received += piece
    statuses = re.findall(rb"HTTP/1\.1 (\d+) ", received)
    assert statuses == [b"200", b"200", b"404"] * 10 + [b"200"]
    assert received.endswith(b'{"status":"ok"}')


@pytest.mark.stress
@pytest.mark.parametrize("behind", [False, True])
def test_a_thousand_connections_are_answered_at_once(server, tmp_path, behind):
    url, prefix, _ = server
    variant = VARIANTS["path removed" if prefix else "no path"][1]
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(nginx(tmp_path, variant(CONFIGURATION), url)) if behind else url
        statuses, seconds = asyncio.run(thousand(address, prefix))
    print(f"\n{'nginx' if behind else 'direct'}: 1,000 connections, 3 requests each, {seconds:.1f} s")
    assert statuses == [200] * 3000


async def thousand(address: str, prefix: str) -> tuple[list[int], float]:
    """Open 1,000 connections, and only then send three requests on each."""
    host, port = urlsplit(address).hostname, urlsplit(address).port
    start = time.monotonic()
    connections = await asyncio.gather(*(asyncio.open_connection(host, port) for _ in range(1000)))

    async def talk(reader, writer) -> list[int]:
        statuses = []
        for path in ("/health/live", "/v1/model", "/page/page.js"):
            writer.write(f"GET {prefix}{path} HTTP/1.1\r\nHost: lab.example\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            statuses.append(int(head.split()[1]))
            await reader.readexactly(int(re.search(rb"content-length: (\d+)", head, re.IGNORECASE)[1]))
        writer.close()
        return statuses

    found = await asyncio.gather(*(talk(*connection) for connection in connections))
    return [status for statuses in found for status in statuses], time.monotonic() - start
