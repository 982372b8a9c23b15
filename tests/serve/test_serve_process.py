"""`danet serve` as a separate process: signals, too few file descriptors, and a log that nobody reads."""

import asyncio
import contextlib
import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from killed import serve, serve_briefly, serve_with_few_descriptors
from serve_client import image, send, server_process


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_stops_the_server_after_its_responses(warm, tiny_weights, tmp_path, number):
    log = tmp_path / "log"
    with server_process(warm, tiny_weights, log) as (running, url):
        children = Path(f"/proc/{running.pid}/task/{running.pid}/children")

        async def run():
            async with httpx.AsyncClient(timeout=60) as client:
                segment = f"{url}/v1/segment"
                await client.post(segment, content=image())
                decoders = children.read_text().split() if children.exists() else []
                posts = [asyncio.create_task(client.post(segment, content=image(i, (400, 400)))) for i in range(10)]
                started = 0
                while started < 11:
                    await asyncio.sleep(0.01)
                    counts = re.findall(r"^danet_(?:waiting|request\S*/v1/seg\S*) (\d+)", await metrics(client), re.M)
                    started = sum(map(int, counts))
                os.kill(running.pid, number)
                return await asyncio.gather(*posts), decoders

        async def metrics(client):
            return (await client.get(f"{url}/metrics")).text

        responses, decoders = asyncio.run(run())
        start = time.monotonic()
        code = running.wait()
        assert time.monotonic() - start < 10
        assert code == (130 if number == signal.SIGINT else -signal.SIGTERM)
        assert [response.status_code for response in responses] == [200] * 10
        assert "Traceback" not in log.read_text()
        for child in decoders:
            assert not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text()


def test_requests_that_are_queued_for_too_long_at_the_end_get_503(warm, tiny_weights, tmp_path):
    log = tmp_path / "log"
    with server_process(warm, tiny_weights, log, program=serve_briefly) as (running, url):

        async def run():
            async with httpx.AsyncClient(timeout=60) as client:
                segment = f"{url}/v1/segment"
                posts = [asyncio.create_task(client.post(segment, content=image(i, (900, 900)))) for i in range(40)]
                while int(re.search(r"^danet_waiting (\d+)", (await client.get(f"{url}/metrics")).text, re.M)[1]) < 20:
                    await asyncio.sleep(0.01)
                os.kill(running.pid, signal.SIGTERM)
                return await asyncio.gather(*posts, return_exceptions=True)

        responses = asyncio.run(run())
        running.wait()
    answered = [response for response in responses if isinstance(response, httpx.Response)]
    assert {response.status_code for response in answered} <= {200, 503}
    stopped = [response.json() for response in answered if response.status_code == 503]
    assert {"error": "the server is stopping; try again in a second"} in stopped
    assert "Traceback" not in log.read_text()


def test_a_signal_to_the_process_group_loses_no_image(warm, tiny_weights, tmp_path):
    """Service managers and terminals send signals to the decoder too."""
    with server_process(warm, tiny_weights, tmp_path / "log") as (running, url):

        async def run():
            async with httpx.AsyncClient(timeout=60) as client:
                segment = f"{url}/v1/segment"
                await client.post(segment, content=image())
                posts = [asyncio.create_task(client.post(segment, content=image(i, (400, 400)))) for i in range(6)]
                await asyncio.sleep(0.2)
                os.killpg(running.pid, signal.SIGTERM)
                return await asyncio.gather(*posts, return_exceptions=True)

        responses = asyncio.run(run())
        running.wait()
    statuses = {getattr(response, "status_code", "not accepted") for response in responses}
    assert 200 in statuses
    assert statuses <= {200, "not accepted"}


def test_idle_connections_do_not_use_up_the_descriptors(warm, tiny_weights, tmp_path):
    log = tmp_path / "log"
    with server_process(warm, tiny_weights, log, program=serve_with_few_descriptors, before=(400,)) as (_, url):
        idle = [send(url, b"G") for _ in range(600)]
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/ready").status_code == 200
            for i in range(3):
                assert client.post("/v1/segment", content=image(i)).status_code == 200
        for connection in idle:
            connection.close()
    assert log.stat().st_size < 10_000


def test_a_log_that_nobody_reads_does_not_stop_the_server(warm, tiny_weights, tmp_path):
    """A pipe takes 64 kB, about 3,100 lines."""
    os.mkfifo(tmp_path / "log")
    reader = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    running = warm.start(serve, "--weights", str(tiny_weights), "--port", "0", errors=tmp_path / "log")
    try:
        printed = b""
        while not printed.endswith(b"\n"):
            time.sleep(0.05)
            with contextlib.suppress(BlockingIOError):
                printed += os.read(reader, 1000)
        with httpx.Client(base_url=printed.decode().strip(), timeout=20) as client:
            for _ in range(4000):
                assert client.get("/health").status_code == 200
            unread = b""
            while piece := read_available(reader):
                unread += piece
            assert 60_000 < len(unread) <= 1 << 16
            client.get("/health")
        assert re.match(rb"\(\d[\d,]+ log entries were dropped\)\nGET /health 200", read_available(reader))
    finally:
        running.kill()
        os.close(reader)


def read_available(descriptor: int) -> bytes:
    time.sleep(0.1)
    try:
        return os.read(descriptor, 1 << 20)
    except BlockingIOError:
        return b""
