"""The plots of docs/results.md, from the numbers in benchmarks/results alone; the same numbers give the same bytes.

python -m benchmarks.plots
"""

import argparse
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from benchmarks import cost
from benchmarks.chart import log_ticks
from danet.files import write_atomically
from danet.visualize.html import escape
from danet.visualize.svg import Frame, color, image, ticks

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks/results", ROOT / "docs"

ENOUGH_SEEDS = 3
"""For an interval by seeds: Student's t for two is 12.7."""

LABEL = 15  # from a line of text to the next
LEFT, RIGHT, TOP, ROW, BOTTOM, WIDTH = 190, 120, 40, 30, 70, 720  # of the ablation's bars


class Gain(NamedTuple):
    """In points of mIoU: the mean, the ends of its interval, and each seed's."""

    mean: float
    low: float
    high: float
    of_each: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for the images")
    options = parser.parse_args()
    for name, content in drawn(options.results).items():
        write_atomically(options.out / name, content)
        print(options.out / name)


def drawn(results: Path) -> dict[str, bytes]:
    """File name -> SVG, of those whose numbers are there."""
    files = {name: results / f"{name}.json" for name in PLOTS}
    return {
        f"{name}.svg": PLOTS[name](json.loads(file.read_text())).encode()
        for name, file in files.items()
        if file.exists()
    }


def ablation(result: dict[str, Any]) -> str:
    """Bars of each row's gain over the dilated FCN with its 95 % interval, and the paper's gain beside it."""
    rows = [row for row in result["rows"] if row["miou"] is not None]
    fcn = next(row for row in rows if row["name"] == "fcn")
    gains = {row["name"]: _gain(row) for row in rows}
    papers = {row["name"]: _published_gains(row, fcn) for row in rows}
    values = [value for gain in gains.values() for value in (*gain[:3], *gain.of_each)]
    values += [value for paper in papers.values() for value in paper.values()]
    steps = ticks(min(*values, 0), max(*values, 1))
    floor = TOP + ROW * len(rows)

    def x(points: float) -> float:
        return LEFT + (points - steps[0]) / (steps[-1] - steps[0]) * (WIDTH - LEFT - RIGHT)

    parts = []
    for step in steps:
        ends = f'x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{TOP}" y2="{floor}"'
        parts.append(f'<line class="{"grid" if step else "axis"}" {ends}/>')
        parts.append(_text(x(step), floor + 16, f"{step:+g}" if step else "0", "middle"))
    for i, row in enumerate(rows):
        parts += _bar(x, TOP + ROW * (i + 0.5), row, gains[row["name"]], papers[row["name"]])
    seeds = min(len(row["seeds"]) for row in rows), max(len(row["seeds"]) for row in rows)
    sample = f"{seeds[0]} seeds" if seeds[0] >= ENOUGH_SEEDS else "the images"
    each = " One seed." if seeds[1] == 1 else " Dots: each seed."
    parts += [_text(WIDTH - RIGHT + 40, TOP - 6, "gain", "end"), _text(WIDTH - 20, TOP - 6, "mIoU %", "end")]
    bars = f"Bars: gain in points, CamVid; lines: its 95 % interval over {sample}.{each}"
    parts.append(_text(12, floor + 38, bars, kind="soft"))
    marks = "Circles and diamonds: the paper's gain on Cityscapes, ResNet-50 and ResNet-101."
    parts.append(_text(12, floor + 56, marks, kind="soft"))
    return image(WIDTH, floor + BOTTOM, "What each part is worth: gain in mIoU over the dilated FCN", "\n".join(parts))


def baselines(result: dict[str, Any]) -> str:
    """mIoU of each network, with its spread over the seeds, against its latency."""
    rows = [row for row in result["rows"] if row["miou"] is not None and "speed" in row]
    latencies = [1000 * row["speed"]["latency"]["median_s"] for row in rows]
    ends = [100 * (row["miou"] + sign * (row["spread"] or 0)) for row in rows for sign in (-1, 1)]
    up, (low, high) = ticks(min(ends), max(ends)), (min(latencies) / 1.2, 2 * max(latencies))
    frame = Frame((math.log(low), math.log(high)), (up[0], up[-1]), 360, 640)
    width = result["recipe"]["data"]["size"]
    about = "mIoU %, CamVid; lines: standard deviation over the seeds" if rows[0]["spread"] else "mIoU %, CamVid"
    parts = [frame.axes([], up, f"milliseconds for an image of {width} x {width * 3 // 4}", about)]
    for value in log_ticks(low, high):
        at = frame.x(math.log(value))
        parts.append(
            f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{frame.y(up[0]):.1f}" y2="{frame.y(up[-1]):.1f}"/>'
        )
        parts.append(_text(at, frame.y(up[0]) + 17, f"{value:g}", "middle"))
    lowest = 0.0  # a label stands below those before it
    for row, latency in sorted(zip(rows, latencies, strict=True), key=lambda pair: -pair[0]["miou"]):
        x, y, spread = frame.x(math.log(latency)), frame.y(100 * row["miou"]), 100 * (row["spread"] or 0)
        lowest = max(y, lowest + LABEL)
        parts.append(_text(x + 9, lowest + 4, f"{row['about']}, {row['parameters'] / 1e6:.1f} M", kind="halo"))
        fill = color(1 if row["name"].startswith("both") else 0)
        if spread:
            low, high = (frame.y(100 * row["miou"] + sign * spread) for sign in (-1, 1))
            parts.append(_line(x, low, x, high, fill))
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" style="fill:{fill}"/>')
    content = f'<g transform="translate(12 36)">{"".join(parts)}</g>'
    return image(664, 400, "Equal backbone, recipe and budget", content)


def robustness(result: dict[str, Any]) -> str:
    """A row for the clean images and for each corruption, a dot for each network's mIoU; one module alone, and
    attention switched off, are left to the table.
    """
    left_out = ("position", "channel", "both-off")
    networks = [network for network in result["networks"] if network["name"] not in left_out]
    rows = {"clean": [100 * network["clean"] for network in networks]}
    for name in networks[0]["corruptions"]:
        rows[name] = [100 * mean(network["corruptions"][name]) for network in networks]
    rows["mean of the corruptions"] = [100 * network["mean_miou"] for network in networks]
    steps = ticks(0, max(value for values in rows.values() for value in values))
    top, floor = TOP + LABEL, TOP + LABEL + ROW * len(rows)

    def x(points: float) -> float:
        return LEFT + points / steps[-1] * (WIDTH - LEFT - 30)

    parts = []
    for step in steps:
        parts.append(f'<line class="grid" x1="{x(step):.1f}" x2="{x(step):.1f}" y1="{top}" y2="{floor}"/>')
        parts.append(_text(x(step), floor + 16, f"{step:g}", "middle"))
    for i, (name, values) in enumerate(rows.items()):
        y = top + ROW * (i + 0.5)
        parts.append(_text(LEFT - 10, y + 4, name, "end"))
        parts.append(_line(x(min(values)), y, x(max(values)), y, "var(--line)"))
        for j, (network, value) in enumerate(zip(networks, values, strict=True)):
            told = f"<title>{escape(network['about'])}, {escape(name)}: {value:.1f} %</title>"
            parts.append(f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="5" style="fill:{color(j)}">{told}</circle>')
    for j, network in enumerate(networks):
        at = LEFT + (WIDTH - LEFT) * j / len(networks)
        parts.append(f'<circle cx="{at:.1f}" cy="{TOP:.1f}" r="5" style="fill:{color(j)}"/>')
        parts.append(_text(at + 10, TOP + 4, network["about"]))
    note = "mIoU %, CamVid, mean over five severities and the seeds of each network"
    parts.append(_text(12, floor + 38, note, kind="soft"))
    return image(WIDTH, floor + BOTTOM - 18, "What is left on corrupted images", "\n".join(parts))


PLOTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "ablation": ablation,
    "baselines": baselines,
    "robustness": robustness,
    "cost": cost.chart,
}
"""Name of the JSON and of the image -> what draws it."""


def _gain(row: dict[str, Any]) -> Gain:
    """Points of mIoU over the FCN, the ends of their interval, and those of each seed."""
    for entry in row["differences"]:
        if entry["against"] == "fcn":
            of_each = entry["of_each"]
            low, high = entry["by_seeds_95" if len(of_each) >= ENOUGH_SEEDS else "by_images_95"]
            return Gain(100 * entry["mean"], 100 * low, 100 * high, [100 * gain for gain in of_each])
    return Gain(0.0, 0.0, 0.0, [])


def _published_gains(row: dict[str, Any], fcn: dict[str, Any]) -> dict[str, float]:
    if row is fcn:
        return {}
    return {backbone: miou - fcn["published"][backbone] for backbone, miou in row["published"].items()}


def _bar(
    x: Callable[[float], float], y: float, row: dict[str, Any], gain: Gain, paper: dict[str, float]
) -> Iterator[str]:
    """A row: name, bar, interval, the paper's marks, numbers."""
    mean, low, high, of_each = gain
    start, end = sorted((x(0), x(mean)))
    yield _text(LEFT - 10, y + 4, row["about"].strip(), "end")
    yield f'<rect x="{start:.1f}" y="{y - 8:.1f}" width="{end - start:.1f}" height="16" style="fill:{color(0)}"/>'
    if low < high:
        yield _line(x(low), y, x(high), y, "var(--ink)")
        yield from (_line(x(value), y - 4, x(value), y + 4, "var(--ink)") for value in (low, high))
    if len(of_each) > 1:
        yield from (f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="3" style="fill:var(--ink)"/>' for value in of_each)
    for backbone, value in paper.items():
        yield _mark(x(value), y, backbone)
    if row["name"] != "fcn":
        yield _text(WIDTH - RIGHT + 40, y + 4, f"{mean:+.1f}", "end")
    yield _text(WIDTH - 20, y + 4, f"{100 * row['miou']:.1f}", "end")


def _mark(x: float, y: float, backbone: str) -> str:
    style = f'style="fill:var(--paper);stroke:{color(1)};stroke-width:2"'
    told = f"<title>the paper, {escape(backbone)}</title>"
    if backbone == "ResNet-50":
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4.5" {style}>{told}</circle>'
    return f'<path d="M{x:.1f} {y - 6:.1f}l6 6l-6 6l-6 -6z" {style}>{told}</path>'


def _line(x0: float, y0: float, x1: float, y1: float, stroke: str) -> str:
    ends = f'x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}"'
    return f'<line {ends} style="stroke:{stroke};stroke-width:1.5"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    return f'<text class="{kind}" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text, 120)}</text>'


if __name__ == "__main__":
    main()
