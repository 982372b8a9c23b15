"""Limits and access rules of a server, and the budgets that its requests share."""

import ipaddress
from dataclasses import dataclass

from starlette.exceptions import HTTPException

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True)
class Limits:
    """Limits and access rules of one server.

    Args:
        body_bytes: maximum size of one request's body.
        body_seconds: maximum time from the first byte of a body to the last.
        header_seconds: maximum time to send the header of a request.
        stalled_seconds: maximum time to take a piece of an answer, of `PIECE` bytes.
        answer_rate: minimum bytes per second at which an answer must be taken, after `stalled_seconds`.
        held_bytes: maximum size in memory, at one time, of all bodies, decoded images, results and answers.
        stored_bytes: maximum size in memory of the images stored for queries, unless there is only one.
        waiting: maximum number of images received and not yet answered.
        decode_seconds: maximum time to decode one image.
        token: required as `Authorization: Bearer TOKEN`; None allows all requests.
        hosts: host names allowed in the Host header in addition to localhost and IP addresses, in lower case.
        origins: origins whose pages may send requests, in lower case.
        proxies: addresses whose headers about the client are trusted.
        root_path: path under which a proxy serves this server, without a slash at its end.
    """

    body_bytes: int = 20 << 20
    body_seconds: float = 30
    header_seconds: float = 10
    stalled_seconds: float = 20
    answer_rate: float = 64 << 10
    held_bytes: int = 640 << 20
    stored_bytes: int = 512 << 20
    waiting: int = 64
    decode_seconds: float = 5
    token: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()
    proxies: tuple[Network, ...] = ()
    root_path: str = ""


@dataclass
class Stopping:
    """Whether a server is about to stop: it is not ready, and closes connections after their answers."""

    active: bool = False


class Busy(HTTPException):
    """Status 503: asks the client to try again in a second.

    Args:
        what: the reason.
    """

    def __init__(self, what: str = "the server is busy"):
        super().__init__(503, f"{what}; try again in a second", {"Retry-After": "1"})


class Budget:
    """An amount (bytes, images) that all requests share. Beyond the limit, `acquire` raises `Busy`."""

    def __init__(self, limit: int):
        self.limit, self.held = limit, 0

    def acquire(self, amount: int) -> None:
        """Take an amount from the budget.

        Raises:
            Busy: less than that is left.
        """
        if self.held + amount > self.limit:
            raise Busy
        self.held += amount

    def release(self, amount: int) -> None:
        """Return an amount to the budget."""
        self.held -= amount
