"""Ask a server for /health, from a process of its own, whose delays are not those of the threads of a test.

`python health_probe.py ADDRESS` asks until its standard input ends, and prints the seconds of each request as JSON.
"""

import contextlib
import http.client
import json
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

PAUSE = 0.01  # seconds between two requests


@contextlib.contextmanager
def probing(url: str) -> Iterator[list[float]]:
    """Yield a list which at the end has the seconds of each request, in ascending order."""
    seconds: list[float] = []
    command = [sys.executable, __file__, urlsplit(url).netloc]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()  # the first request has been answered
        yield seconds
        seconds += sorted(json.loads(process.communicate()[0]))


def probe(address: str) -> list[float]:
    """Return the seconds of each request."""
    connection, seconds = http.client.HTTPConnection(address, timeout=60), []
    while not seconds or not select.select([sys.stdin], [], [], PAUSE)[0]:
        start = time.perf_counter()
        connection.request("GET", "/health")
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b'{"status":"ok"}')
        seconds.append(time.perf_counter() - start)
        if len(seconds) == 1:
            print("started", flush=True)
    return seconds


if __name__ == "__main__":
    print(json.dumps(probe(sys.argv[1])))
