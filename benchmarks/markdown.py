"""Read the results in benchmarks/results, and format them as Markdown tables."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"

LABELS = {
    "both, off in testing": "same weights, attention off at test time",
    "both + random scaling": "both + random scaling (0.6 to 1.6)",
    "DeepLabV3Plus": "DeepLabV3+",
}
"""Labels in the JSON that are too short -> labels in tables and plots."""


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with empty lines around it."""
    lines = [f"| {' | '.join(row)} |".replace("|  |", "| |").replace("|  |", "| |") for row in (head, *rows)]
    return "\n".join(["", lines[0], "|---" * len(head) + "|", *lines[1:], "", ""])


@cache
def read(name: str) -> dict[str, Any]:
    """Return the contents of benchmarks/results/NAME.json."""
    return json.loads((RESULTS / f"{name}.json").read_text())


def percent(fraction: float | None, digits: int = 1, sign: str = "") -> str:
    """Format a fraction in percent, without the unit."""
    return "n/a" if fraction is None else f"{100 * fraction:{sign}.{digits}f}"


def miou_and_minutes(row: Mapping[str, Any]) -> str:
    """Format the mIoU of a run in percent, and its minutes if they are known."""
    minutes = "" if row["minutes"] is None else f" ({row['minutes']:.0f} min)"
    return f"{percent(row['miou'])}{minutes}"


def megabytes(count: float, digits: int = 0) -> str:
    """Format bytes in megabytes, without the unit."""
    return f"{count / 1e6:,.{digits}f}"


def interval(ends: Sequence[float], digits: int = 1) -> str:
    """Format an interval of fractions in points: "[+1.3, +2.2]"."""
    return f"[{', '.join(percent(end, digits, '+') for end in ends)}]"


def difference(entries: Sequence[Mapping[str, Any]], index: int) -> str:
    """Format the difference to another row, in points, with its interval; "" for a row without differences."""
    if not entries:
        return ""
    return f"{percent(entries[index]['mean'], 1, '+')} {interval(entries[index]['by_images_95'])}"


def label(row: Mapping[str, Any]) -> str:
    """Return the label of a row of a campaign."""
    about: str = row["about"].strip()
    return LABELS.get(about, about)


def network_label(row: Mapping[str, Any]) -> str:
    """Return the label of a row, in bold type for DANet."""
    return f"**{label(row)}**" if label(row).startswith("DANet") else label(row)


def latency(seconds: float) -> str:
    """Format a time in seconds or milliseconds, with the unit."""
    return f"{seconds:.2f} s" if seconds >= 1 else f"{milliseconds(seconds)} ms"


def milliseconds(seconds: float) -> str:
    """Format a time in milliseconds, without the unit."""
    return f"{1000 * seconds:.{1 if seconds < 0.1 else 0}f}"
