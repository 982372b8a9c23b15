"""Pass requests between the processes of one server: images are stored in the process that received them.

Each process has an internal socket beside the public one. The id of a stored image begins with the number of its
process, so a request for an image of another process is passed on to it, as are requests for its metrics.
"""

import asyncio
import hmac
import socket
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass
from urllib.parse import quote

import h11
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response

from danet.serve.access import without_prefix
from danet.serve.limits import Busy

HEADER = "X-Danet-Peer"
"""Header of internal requests; its value is the secret of the server."""

SECONDS = 30
"""Time limit for the answer of another process."""

_METRICS_SECONDS = 2
_READ_BYTES = 1 << 16
_PASSED_ON = (b"content-type", b"content-encoding", b"retry-after")


@dataclass(frozen=True)
class Peers:
    """The processes of a server, as one of them sees them.

    Args:
        number: of this process, from 0.
        addresses: of the internal sockets of all processes.
        secret: known to these processes only.
    """

    number: int = 0
    addresses: tuple[str, ...] = ()
    secret: str = ""

    @property
    def prefix(self) -> str:
        """What the ids of images in this process begin with."""
        return f"{self.number}." if self.addresses else ""

    def owner(self, image_id: str) -> int | None:
        """Return the number of the other process that may have an image, or None."""
        number, dot, _ = image_id.partition(".")
        if not dot or not number.isdecimal() or not number.isascii() or len(number) > 3:
            return None
        return int(number) if int(number) < len(self.addresses) and int(number) != self.number else None

    def sent(self, headers: Headers) -> bool:
        """Return whether one of these processes has sent a request."""
        given = headers.get(HEADER, "").encode()
        return bool(self.secret) and hmac.compare_digest(given, self.secret.encode())

    async def forward(self, request: Request, number: int) -> Response:
        """Return another process's answer to a request without a body.

        Raises:
            Busy: it does not answer.
        """
        target = quote(without_prefix(request.scope["path"], request.scope.get("root_path", "")))
        if query := request.scope["query_string"].decode("ascii"):
            target = f"{target}?{query}"
        try:
            status, headers, content = await self._ask(number, request.method, target, SECONDS)
        except (OSError, TimeoutError, h11.ProtocolError) as error:
            raise Busy("another process of the server does not answer") from error
        request.scope["danet.body"].hold(len(content))
        kept = {name.decode(): value.decode("latin-1") for name, value in headers if name in _PASSED_ON}
        return Response(content, status, kept)

    async def metrics(self, own: str) -> str:
        """Return the sums of the metrics of all processes that answer.

        Args:
            own: those of this process.
        """
        others = [number for number in range(len(self.addresses)) if number != self.number]
        answers = await asyncio.gather(
            *(self._ask(number, "GET", "/metrics", _METRICS_SECONDS) for number in others), return_exceptions=True
        )
        return add_metrics([own, *(answer[2].decode() for answer in answers if not isinstance(answer, BaseException))])

    async def _ask(
        self, number: int, method: str, target: str, seconds: float
    ) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Return status, headers and content of another process's answer."""
        headers = [("Host", "localhost"), ("Connection", "close"), (HEADER, self.secret)]
        http, content = h11.Connection(h11.CLIENT), bytearray()
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(self.addresses[number])
            with closing(writer):
                writer.write(http.send(h11.Request(method=method, target=target, headers=headers)) or b"")
                writer.write(http.send(h11.EndOfMessage()) or b"")
                status, received = 0, []
                while not isinstance(event := http.next_event(), h11.EndOfMessage):
                    if event is h11.NEED_DATA:
                        http.receive_data(await reader.read(_READ_BYTES))
                    elif isinstance(event, h11.Response):
                        status, received = event.status_code, list(event.headers)
                    elif isinstance(event, h11.Data):
                        content += event.data
        return status, received, bytes(content)


def internal_socket(name: str) -> socket.socket:
    """Return a listening socket that has no file: its address is in Linux's abstract namespace."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listening.bind(f"\0{name}")
    listening.listen()
    return listening


def add_metrics(texts: list[str]) -> str:
    """Return metrics in the Prometheus text format whose values are the sums of those in `texts`."""
    comments: dict[str, None] = {}
    sums: dict[str, dict[str, float]] = defaultdict(dict)
    for text in texts:
        heading = ""
        for line in text.splitlines():
            if line.startswith("#"):
                comments[line], heading = None, line.split()[2]
            else:
                name, _, value = line.rpartition(" ")
                sums[heading][name] = sums[heading].get(name, 0.0) + float(value)
    lines = []
    for comment in comments:
        lines.append(comment)
        if comment.startswith("# TYPE"):
            lines += [f"{name} {value:.17g}" for name, value in sums[comment.split()[2]].items()]
    return "\n".join(lines) + "\n"
