"""Counts of a server, in Prometheus' text format at /metrics."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds, in seconds, of the histogram of requests."""


class Counters:
    """What happened since the start; gauges are asked when the page is.

    Args:
        gauges: name -> (what it is, function that gives its value).
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]):
        self._gauges = gauges
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request was answered; 499: its client left before."""
        self._requests[route, status] += 1
        self._seconds += seconds
        self._buckets[next((bound for bound in BUCKETS if seconds <= bound), float("inf"))] += 1

    def text(self) -> str:
        """The page."""
        lines = ["# HELP danet_requests_total Requests answered.", "# TYPE danet_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'danet_requests_total{{route="{route}",status="{status}"}} {count}')
        lines += ["# HELP danet_request_seconds Time to answer.", "# TYPE danet_request_seconds histogram"]
        total = 0
        for bound in (*BUCKETS, float("inf")):
            total += self._buckets[bound]
            lines.append(f'danet_request_seconds_bucket{{le="{f"{bound:g}".replace("inf", "+Inf")}"}} {total}')
        lines += [f"danet_request_seconds_sum {self._seconds:.6f}", f"danet_request_seconds_count {total}"]
        for name, (about, value) in self._gauges.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value():g}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> float:
    """This process's memory; NaN where /proc does not tell."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return next((1024.0 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0.0)
