"""`danet serve` as a process: signals, sockets, and the example client."""

import asyncio
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image
from web_client import image, process, send

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_ends_it_after_the_answers(tiny_weights, number):
    with process(tiny_weights) as (running, address):
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")

        async def run():
            async with httpx.AsyncClient(timeout=60) as client:
                url = f"{address}/v1/segment"
                await client.post(url, content=image())
                decoders = children.read_text().split() if children.exists() else []
                posts = [asyncio.create_task(client.post(url, content=image(i, (400, 400)))) for i in range(10)]
                begun = 0
                while begun < 11:
                    await asyncio.sleep(0.01)
                    counts = re.findall(r"^danet_(?:waiting|request\S*/v1/seg\S*) (\d+)", await told(client), re.M)
                    begun = sum(map(int, counts))
                running.send_signal(number)
                return await asyncio.gather(*posts), decoders

        async def told(client):
            return (await client.get(f"{address}/metrics")).text

        answers, decoders = asyncio.run(run())
        begun = time.monotonic()
        code = running.wait(15)
        assert time.monotonic() - begun < 10
        assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
        assert [answer.status_code for answer in answers] == [200] * 10
        assert "Traceback" not in running.stderr.read()
        for child in decoders:
            assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()


@pytest.fixture(scope="module")
def running(tiny_weights):
    """A server's process, of at most 1 MB a body, and its address."""
    with process(tiny_weights, "--max-mb", "1") as found:
        yield found


def test_two_hundred_at_once_get_200_or_503_in_bounded_memory(running):
    child, address = running
    resident = Path(f"/proc/{child.pid}/status")
    content = image(size=(240, 320), kind="JPEG")

    def megabytes(key: str) -> float:
        return int(re.search(rf"{key}:\s+(\d+)", resident.read_text())[1]) / 1024

    async def run():
        limits = httpx.Limits(max_connections=200)
        async with httpx.AsyncClient(timeout=60, limits=limits) as client:
            await client.post(f"{address}/v1/segment", content=content)
            before = megabytes("VmRSS")
            posts = [client.post(f"{address}/v1/segment", content=content) for _ in range(200)]
            return await asyncio.gather(*posts), before

    answers, before = asyncio.run(run())
    assert {answer.status_code for answer in answers} <= {200, 503}
    assert sum(answer.status_code == 200 for answer in answers) >= 64
    if resident.exists():
        assert megabytes("VmHWM") < 1.5 * before


def test_lies_drops_and_slow_clients_over_a_real_socket(running):
    _, address = running
    head = b"POST /v1/segment HTTP/1.1\r\nHost: localhost\r\n"
    with send(address, head + b"Content-Length: 3000000\r\n\r\n" + bytes(3_000_000)) as large:
        assert large.recv(12) == b"HTTP/1.1 413"
    with send(
        address, head + b"Transfer-Encoding: chunked\r\n\r\n" + b"100000\r\n%s\r\n" % bytes(1 << 20) * 2
    ) as chunked:
        assert chunked.recv(12) == b"HTTP/1.1 413"
    with send(address, head + b"Content-Length: 10\r\n\r\n" + image()) as short:
        assert short.recv(12) == b"HTTP/1.1 422"
    with send(address, b"rubbish\r\n\r\n") as rubbish:
        assert rubbish.recv(12) == b"HTTP/1.1 400"
    with send(address, head.replace(b"localhost", b"evil.example") + b"Content-Length: 0\r\n\r\n") as rebound:
        answer = rebound.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400")
        assert b"uvicorn" not in answer.lower()
    slow = [send(address, head + b"Content-Length: 1000\r\n\r\nx") for _ in range(50)]
    slow += [send(address, head) for _ in range(20)]
    for _ in range(20):
        send(address, head + b"Content-Length: 100000\r\n\r\n" + bytes(1000)).close()  # left in the middle
    with httpx.Client(base_url=address, timeout=20) as client:
        seconds = []
        for _ in range(30):
            begun = time.monotonic()
            assert client.get("/health").status_code == 200
            seconds.append(time.monotonic() - begun)
        assert sorted(seconds)[-2] < 0.1
        assert client.post("/v1/segment", content=image()).status_code == 200
        held = re.search(r"^danet_held_bytes (\d+)", client.get("/metrics").text, re.M)
        assert int(held[1]) <= 50, "what the slow ones sent, and nothing of those that left"
    for connection in slow:
        connection.close()


def test_the_example_client(running, tmp_path):
    (tmp_path / "image.png").write_bytes(image())
    _, address = running
    command = [sys.executable, str(ROOT / "examples/client.py"), str(tmp_path / "image.png"), "--at", "10", "20"]
    done = subprocess.run([*command, "--server", address], capture_output=True, text=True, check=True, timeout=60)
    assert "looks at" in done.stdout
    script = (ROOT / "examples/client.sh").read_text().replace("http://127.0.0.1:8000", address)
    done = subprocess.run(
        ["bash", "-c", script, "client.sh", "image.png"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "overlay.png") as overlay:
        assert overlay.size[0] > 64
    assert json.loads(done.stdout.splitlines()[0])["width"] == 64
