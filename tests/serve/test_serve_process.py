"""`danet serve` as a separate process: signals."""

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import httpx
import pytest
from serve_client import image, server_process


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
