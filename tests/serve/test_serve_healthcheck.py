"""danet/serve/healthcheck.py: the check of a container."""

import asyncio
import sys

import pytest

from danet.serve.healthcheck import is_ready, listening_ports


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_health_check_finds_the_port_of_its_processes():
    async def run() -> tuple[set[int], bool, bool]:
        async def answer(reader, writer) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\nConnection: close\r\n\r\n{"status":"ready"}')
            writer.close()

        async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            ready = await asyncio.to_thread(is_ready, port)
            return {port} & listening_ports(), ready, await asyncio.to_thread(is_ready, 1)

    found, ready, nobody = asyncio.run(run())
    assert (len(found), ready, nobody) == (1, True, False)
