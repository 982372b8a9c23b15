"""danet/serve: several processes on one port, and how a server stops."""

import contextlib
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from serve_client import error_of, image, send, server_process
from starlette.datastructures import Headers

from danet.serve.app import create_app
from danet.serve.limits import Limits
from danet.serve.peers import HEADER, Peers, add_metrics, internal_socket

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs abstract sockets and /proc")

SECRET = "x" * 64


@contextlib.contextmanager
def listening(app, socket) -> Iterator[None]:
    """Serve an application on a socket in a thread."""
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, args=([socket],))
    thread.start()
    try:
        yield
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def clients(predictor) -> Iterator[list[httpx.Client]]:
    """Yield a client of each of two processes of a server, which here are threads; the root path is /danet."""
    names = [f"danet-test-{os.getpid()}-{number}" for number in range(2)]
    with contextlib.ExitStack() as stack:
        clients = []
        for number, name in enumerate(names):
            peers = Peers(number, tuple(f"\0{name}" for name in names), SECRET)
            app = create_app(predictor, Limits(token="correct-horse-battery", root_path="/danet"), peers)
            stack.enter_context(listening(app, internal_socket(name)))
            transport = httpx.HTTPTransport(uds=f"\0{name}")
            headers = {"Authorization": "Bearer correct-horse-battery"}
            client = httpx.Client(transport=transport, base_url="http://localhost", headers=headers, timeout=60)
            clients.append(stack.enter_context(client))
        yield clients


def test_an_image_can_be_queried_through_each_process(clients):
    one, other = clients
    image_id = one.post("/v1/segment?keep=true", content=image()).json()["image"]
    assert image_id.startswith("0.")
    for path in ("pixels?without=position", "labels", "channels?class_id=0"):
        first, second = (client.get(f"/danet/v1/images/{image_id}/{path}") for client in clients)
        assert first.status_code == second.status_code
        assert first.content == second.content
        assert first.headers["content-type"] == second.headers["content-type"]
        assert first.headers["x-request-id"] != second.headers["x-request-id"]
    first, second = (client.post(f"/v1/attention?image={image_id}&x=1&y=2") for client in clients)
    assert first.status_code == 200
    assert first.json() == second.json()
    assert other.get(f"/v1/images/{image_id}/labels", headers={"Authorization": ""}).status_code == 401


@pytest.mark.parametrize("image_id", ["0.x", "1.x", "2.x", "99999.x", "-1.x", "²", "x", "0.%2F..%20a", "0."])
def test_unknown_ids_of_each_process_get_404(clients, image_id):
    for client in clients:
        response = client.get(f"/v1/images/{image_id}/labels")
        assert response.status_code == 404
        error_of(response)


def test_metrics_are_those_of_all_processes_and_count_a_request_once(clients):
    def requests(route: str) -> int:
        found = {
            re.search(
                rf'^danet_requests_total{{route="{route}",status="404"}} (\d+)$', client.get("/metrics").text, re.M
            )
            for client in clients
        }
        values = {match and match[1] for match in found}
        assert len(values) == 1
        return int(values.pop() or 0)

    before = requests("/v1/images/{image}/labels")
    for client in clients:
        client.get("/v1/images/0.x/labels")
    assert requests("/v1/images/{image}/labels") == before + 2


def test_only_the_secret_makes_a_request_internal(clients):
    headers = {"Authorization": "", HEADER: SECRET[:-1]}
    assert clients[0].get("/v1/model", headers=headers).status_code == 401
    assert clients[0].get("/v1/model", headers={**headers, HEADER: SECRET}).status_code == 200
    assert not Peers().sent(Headers({HEADER: ""}))


def test_a_process_that_does_not_answer_is_reported(predictor):
    name = f"danet-test-{os.getpid()}-alone"
    app = create_app(predictor, peers=Peers(0, (f"\0{name}", "\0nobody"), SECRET))
    transport = httpx.HTTPTransport(uds=f"\0{name}")
    with (
        listening(app, internal_socket(name)),
        httpx.Client(transport=transport, base_url="http://localhost") as client,
    ):
        response = client.get("/v1/images/1.x/labels")
        assert response.status_code == 503
        assert error_of(response) == "another process of the server does not answer; try again in a second"
        assert "danet_waiting 0" in client.get("/metrics").text


def test_sums_of_metrics():
    text = '# HELP a A.\n# TYPE a counter\na{x="1 2"} 2\n# HELP b B.\n# TYPE b gauge\nb 1.5\n'
    other = '# HELP a A.\n# TYPE a counter\na{x="1 2"} 3\na{x="3"} 123456789\n# HELP b B.\n# TYPE b gauge\nb 2\n'
    assert add_metrics([text, other]) == (
        '# HELP a A.\n# TYPE a counter\na{x="1 2"} 5\na{x="3"} 123456789\n# HELP b B.\n# TYPE b gauge\nb 3.5\n'
    )


def test_a_stopping_server_is_not_ready_but_answers_for_a_while(warm, tiny_weights, tmp_path):
    with server_process(warm, tiny_weights, tmp_path / "log", "--drain", "3") as (running, url):
        with httpx.Client(base_url=url, timeout=30) as client:
            assert client.get("/health/ready").status_code == 200
            os.kill(running.pid, signal.SIGTERM)
            start = time.monotonic()
            while (ready := client.get("/health/ready")).status_code == 200:
                assert time.monotonic() - start < 3
            assert error_of(ready) == "the server is stopping; try again in a second"
            live = client.get("/health/live")
            assert (live.status_code, live.headers["connection"]) == (200, "close")
            assert client.post("/v1/segment", content=image()).status_code == 200
        assert running.wait() == -signal.SIGTERM
        assert 2.5 < time.monotonic() - start < 20


def test_a_second_signal_ends_the_wait_of_a_stopping_server(warm, tiny_weights, tmp_path):
    with server_process(warm, tiny_weights, tmp_path / "log", "--drain", "600") as (running, url):
        assert httpx.get(f"{url}/health/live", timeout=60).status_code == 200  # now signals are handled
        os.kill(running.pid, signal.SIGTERM)
        while httpx.get(f"{url}/health/ready", timeout=60).status_code == 200:
            time.sleep(0.02)
        os.kill(running.pid, signal.SIGTERM)
        assert running.wait() == -signal.SIGTERM


@pytest.mark.slow
def test_several_processes_share_a_port_and_are_replaced(warm, tiny_weights, tmp_path):
    log = tmp_path / "log"
    with server_process(warm, tiny_weights, log, "--workers", "2", "--log-format", "json") as (running, url):
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")

        def workers() -> list[int]:
            names = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.read_text().split()}
            return [int(pid) for pid, name in names.items() if b"spawn_main" in name]

        assert len(workers()) == 2
        ids = set()
        for seed in range(20):
            stored = httpx.post(f"{url}/v1/segment?keep=true", content=image(seed % 4), timeout=60).json()
            ids.add(stored["image"])
            labels = httpx.get(f"{url}/v1/images/{stored['image']}/labels", timeout=60)
            assert labels.status_code == 200
        assert {image_id[:2] for image_id in ids} == {"0.", "1."}, "both processes accept connections"
        assert 'route="/v1/segment",status="200"} 20' in httpx.get(f"{url}/metrics").text
        os.kill(workers()[0], signal.SIGKILL)
        deadline = time.monotonic() + 120
        while len(workers()) < 2 and time.monotonic() < deadline:
            assert httpx.get(f"{url}/health/live", timeout=60).status_code == 200
        while (
            len({httpx.post(f"{url}/v1/segment?keep=true", content=image(1)).json()["image"][:2] for _ in "123456"}) < 2
        ):
            assert time.monotonic() < deadline
        busy = [
            send(url, b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n") for _ in range(50)
        ]
        assert all(b"200 OK" in connection.recv(1000) for connection in busy)
        started = workers()
        os.killpg(running.pid, signal.SIGTERM)
        assert running.wait() == -signal.SIGTERM
        assert not [pid for pid in started if Path(f"/proc/{pid}").exists()]
    assert '"level": "error", "message": "process ' in log.read_text()
    assert "Traceback" not in log.read_text()


@pytest.mark.slow
def test_processes_end_with_a_killed_main_process(warm, tiny_weights, tmp_path):
    with server_process(warm, tiny_weights, tmp_path / "log", "--workers", "2") as (running, url):
        assert httpx.get(f"{url}/health/ready", timeout=60).status_code == 200
        os.kill(running.pid, signal.SIGKILL)
        running.wait()
        deadline = time.monotonic() + 60
        while running.workers() and time.monotonic() < deadline:
            time.sleep(0.1)
        assert running.workers() == []
