"""Request counters and gauges, in the Prometheus text format."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the request duration histogram, in seconds."""


class Metrics:
    """Counters of one server since it started, and gauges that are read on request.

    Args:
        gauges: metric name -> (help text, function that returns the value).
    """

    def __init__(self, gauges: dict[str, tuple[str, Callable[[], float]]]):
        self._gauges = gauges
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: Counter[float] = Counter()
        self._seconds = 0.0

    def record_request(self, route: str, status: int, seconds: float) -> None:
        """Count a finished request. Status 499 means that the client disconnected first."""
        self._requests[route, status] += 1
        self._seconds += seconds
        self._buckets[next((bound for bound in BUCKETS if seconds <= bound), float("inf"))] += 1

    def render(self) -> str:
        """Return all metrics in the Prometheus text format."""
        lines = ["# HELP danet_requests_total Requests answered.", "# TYPE danet_requests_total counter"]
        for (route, status), count in sorted(self._requests.items()):
            lines.append(f'danet_requests_total{{route="{route}",status="{status}"}} {count}')
        lines += ["# HELP danet_request_seconds Request duration.", "# TYPE danet_request_seconds histogram"]
        total = 0
        for bound in (*BUCKETS, float("inf")):
            total += self._buckets[bound]
            lines.append(f'danet_request_seconds_bucket{{le="{f"{bound:g}".replace("inf", "+Inf")}"}} {total}')
        lines += [f"danet_request_seconds_sum {self._seconds:.6f}", f"danet_request_seconds_count {total}"]
        for name, (about, value) in self._gauges.items():
            lines += [f"# HELP {name} {about}", f"# TYPE {name} gauge", f"{name} {value():g}"]
        return "\n".join(lines) + "\n"


def resident_bytes() -> float:
    """Return the resident memory of this process, or NaN if /proc does not exist."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return float("nan")
    return next((1024.0 * int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")), 0.0)
