"""The plots of docs/results.md, drawn by matplotlib from benchmarks/results. The same numbers give the same bytes.

python -m benchmarks.plots
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
from collections.abc import Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.markdown import label
from danet.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROOT = Path(__file__).parents[1]
RESULTS, DOCS = ROOT / "benchmarks/results", ROOT / "docs"

ENOUGH_SEEDS = 3
"""Minimum for an interval over seeds: with two, Student's t is 12.7."""

BLUE, ORANGE, GRAY = "#1f5fa8", "#d9730d", "#8a8a8a"
COLORS = (GRAY, BLUE, ORANGE, "#2a9d6f", "#8f5bb5", "#c23b4b", "#6b7a1f")

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "danet",  # reproducible ids
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.titlesize": 11,
    "grid.color": "#dddddd",
    "legend.frameon": False,
}


class Gain(NamedTuple):
    """A gain in points of mIoU: its mean, its interval, and the value of each seed."""

    mean: float
    low: float
    high: float
    of_each: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--out", type=Path, default=DOCS, help="folder for the plots")
    options = parser.parse_args()
    for name, content in draw_all(options.results).items():
        write_atomically(options.out / name, content)
        print(options.out / name)


def draw_all(results: Path) -> dict[str, bytes]:
    """Return file name -> SVG for each plot whose JSON exists."""
    files = {name: results / f"{name}.json" for name in PLOTS}
    return {f"{name}.svg": draw(name, json.loads(file.read_text())) for name, file in files.items() if file.exists()}


def draw(name: str, result: dict[str, Any]) -> bytes:
    """Return a plot as SVG."""
    import matplotlib as mpl

    data = hashlib.sha256(json.dumps(result, sort_keys=True).encode()).hexdigest()
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure = PLOTS[name](result)
        metadata = {"Date": None, "Description": f"Data: benchmarks/results/{name}.json, SHA-256 {data}"}
        figure.savefig(content, format="svg", metadata=metadata, bbox_inches="tight", pad_inches=0.12)
    return content.getvalue()


def ablation(result: dict[str, Any]) -> Figure:
    """Draw each row's gain over the dilated FCN with its 95% interval, and the paper's gain."""
    rows = [row for row in result["rows"] if row["miou"] is not None]
    fcn = next(row for row in rows if row["name"] == "fcn")
    figure, axes = _figure(5.6, 1.2 + 0.36 * len(rows))
    places = _draw_gains(axes, rows, ("fcn",))
    for backbone, marker in (("ResNet-50", "o"), ("ResNet-101", "D")):
        paper = {place: _published_gain(row, fcn, backbone) for place, row in zip(places, rows, strict=True)}
        known = {place: gain for place, gain in paper.items() if gain is not None}
        axes.plot(list(known.values()), list(known), marker, color=ORANGE, fillstyle="none", gid=backbone)
    notes = [
        "gain over the dilated FCN on CamVid, points of mIoU",
        _intervals(rows),
        "Circles and diamonds: the paper's gain on Cityscapes, ResNet-50 and -101.",
    ]
    axes.set_xlabel("\n".join(notes))
    axes.set_title("Contribution of each part", pad=18)
    return figure


def twins(result: dict[str, Any], images: str) -> Figure:
    """Draw the gain of each form of attention over the same network trained without attention, on some images."""
    references = ("twin", "decoder-twin", "slow-twin", "frozen-twin")
    trained = [row for row in result["rows"] if row["miou"] is not None and not row["name"].endswith("-off")]
    rows = [row for row in trained if row["name"] in references or row["differences"]]
    figure, axes = _figure(5.6, 1.2 + 0.36 * len(rows))
    _draw_gains(axes, rows, references)
    axes.set_xlabel(f"gain over the twin without attention on {images}, points of mIoU\n{_intervals(rows)}")
    axes.set_title("What attention is worth", pad=18)
    return figure


def baselines(result: dict[str, Any]) -> Figure:
    """Draw each network's mIoU, with latency and parameters; lines are the standard deviation over the seeds."""
    rows = [row for row in result["rows"] if row["miou"] is not None and "speed" in row]
    rows.sort(key=lambda row: -row["miou"])
    figure, axes = _figure(5.6, 1.0 + 0.28 * len(rows))
    places = list(range(len(rows)))
    colors = [BLUE if "DANet" in row["about"] or row["name"] == "dranet" else GRAY for row in rows]
    spreads = [100 * (row["spread"] or 0) for row in rows]
    errors = {"xerr": spreads, "capsize": 3} if any(spreads) else {}
    axes.barh(places, [100 * row["miou"] for row in rows], height=0.6, color=colors, alpha=0.75, **errors)
    axes.set_yticks(places, [label(row) for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=min(100 * row["miou"] for row in rows) // 5 * 5 - 5)
    axes.grid(axis="x")
    table = axes.get_yaxis_transform()
    columns = {
        "mIoU, %": (1.12, [f"{100 * row['miou']:.1f}" for row in rows]),
        "ms": (1.26, [f"{1000 * row['speed']['latency']['median_s']:.0f}" for row in rows]),
        "parameters": (1.5, [f"{row['parameters'] / 1e6:.1f} M" for row in rows]),
    }
    for head, (x, texts) in columns.items():
        axes.text(x, -1, head, ha="right", va="center", transform=table, color=GRAY)
        for place, text in enumerate(texts):
            axes.text(x, place, text, ha="right", va="center", transform=table)
    width = result["recipe"]["data"]["size"]
    seeds = "\nLines: standard deviation over the seeds." if any(spreads) else ""
    axes.set_xlabel(f"mIoU on CamVid, %; milliseconds for an image of {width} x {width * 3 // 4}{seeds}")
    axes.set_title("Same backbone, recipe and number of steps", pad=18)
    return figure


def robustness(result: dict[str, Any]) -> Figure:
    """Draw each network's mIoU on clean images, for each corruption, and averaged over the corruptions.

    Single modules and the network without attention are only in the table.
    """
    networks = [network for network in result["networks"] if network["name"] not in ("position", "channel", "both-off")]
    names = ["clean", *networks[0]["corruptions"], "mean of the corruptions"]
    figure, axes = _figure(6.8, 1.2 + 0.32 * len(names))
    values = [
        [network["clean"], *map(mean, network["corruptions"].values()), network["mean_miou"]] for network in networks
    ]
    for place in range(len(names)):
        row = [100 * network[place] for network in values]
        axes.plot([min(row), max(row)], [place, place], color="#cccccc", linewidth=1.5, zorder=1)
    for i, (network, mious) in enumerate(zip(networks, values, strict=True)):
        points = [100 * miou for miou in mious]
        axes.plot(points, range(len(names)), "o", color=COLORS[i % len(COLORS)], label=label(network), markersize=7)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.set_xlabel("mIoU, %, CamVid; mean over five severities and the seeds of each network")
    axes.set_title("Accuracy on corrupted images", pad=26)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=len(networks), columnspacing=1, handletextpad=0.1)
    return figure


def cost(result: dict[str, Any]) -> Figure:
    """Draw the time of position attention and of whole networks, over the number of positions."""
    figure, axes = _figure(6.8, 4.4)
    colors = {"plain": ORANGE, "tiled": BLUE, "compact": BLUE, "network": GRAY, "dranet": GRAY}
    for name, text in COST_CURVES.items():
        sizes = [size for size in result["sizes"] if "median_s" in size.get(name, ())]
        if sizes:
            points = [size["positions"] for size in sizes], [size[name]["median_s"] for size in sizes]
            style = "o--" if name in ("compact", "dranet") else "o-"
            axes.plot(*points, style, color=colors[name], label=text, markersize=5)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks([size["positions"] for size in result["sizes"]])
    _plain_ticks(axes.xaxis, "{:,.0f}")
    _plain_ticks(axes.yaxis)
    axes.grid()
    axes.set_xlabel("positions N of the feature grid")
    axes.set_ylabel("seconds")
    axes.set_title(f"Position attention with {result['channels']} channels, and DANet with {result['backbone']}")
    axes.legend()
    return figure


COST_CURVES = {
    "plain": "plain attention",
    "tiled": "tiled attention",
    "compact": "compact attention",
    "network": "whole network",
    "dranet": "whole DRANet",
}
"""Name in the sizes of cost.json -> text."""

PLOTS: dict[str, Callable[[dict[str, Any]], Figure]] = {
    "ablation": ablation,
    "twins": partial(twins, images="CamVid"),
    "twins_msrc21": partial(twins, images="MSRC-21"),
    "baselines": baselines,
    "robustness": robustness,
    "cost": cost,
}
"""Name of the JSON and of the plot -> the function that draws it."""


def _figure(width: float, height: float) -> tuple[Figure, Axes]:
    from matplotlib.figure import Figure

    figure = Figure((width, height))
    return figure, figure.subplots()


def _plain_ticks(axis: Any, text: str = "{:g}") -> None:
    """Label a logarithmic axis with plain numbers."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    axis.set_major_formatter(FuncFormatter(lambda value, _: text.format(value)))
    axis.set_minor_formatter(NullFormatter())


def _draw_gains(axes: Axes, rows: Sequence[dict[str, Any]], references: Collection[str]) -> list[int]:
    """Draw the rows' gains over one of `references`, with intervals, seeds and numbers; return the rows' places."""
    gains, places = [_gain(row, references, _over_seeds(rows)) for row in rows], list(range(len(rows)))
    axes.barh(places, [gain.mean for gain in gains], height=0.55, color=BLUE, alpha=0.75)
    for place, gain in zip(places, gains, strict=True):
        if gain.low < gain.high:
            errors = [[gain.mean - gain.low], [gain.high - gain.mean]]
            axes.errorbar(gain.mean, place, xerr=errors, color="black", capsize=3, linewidth=1.2)
        if len(gain.of_each) > 1:
            axes.plot(gain.of_each, [place] * len(gain.of_each), "o", color="black", markersize=3, gid="seed")
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(places, [label(row) for row in rows])
    axes.invert_yaxis()
    axes.grid(axis="x")
    table = axes.get_yaxis_transform()
    axes.text(1.1, -0.75, "gain", ha="right", va="center", transform=table, color=GRAY)
    axes.text(1.26, -0.75, "mIoU, %", ha="right", va="center", transform=table, color=GRAY)
    for place, (row, gain) in enumerate(zip(rows, gains, strict=True)):
        if gain.of_each:
            axes.text(1.1, place, f"{gain.mean:+.1f}", ha="right", va="center", transform=table)
        axes.text(1.26, place, f"{100 * row['miou']:.1f}", ha="right", va="center", transform=table)
    return places


def _intervals(rows: Sequence[dict[str, Any]]) -> str:
    """Say what the lines and dots of `_draw_gains` are."""
    seeds = [len(row["seeds"]) for row in rows]
    sample = f"{min(seeds)} seeds" if _over_seeds(rows) else "the images"
    return f"Lines: 95% interval over {sample}. {'One seed.' if max(seeds) == 1 else 'Dots: each seed.'}"


def _over_seeds(rows: Sequence[dict[str, Any]]) -> bool:
    return min(len(row["seeds"]) for row in rows) >= ENOUGH_SEEDS


def _gain(row: dict[str, Any], references: Collection[str], over_seeds: bool) -> Gain:
    """Return the gain over one of these rows; nothing for a row that is one of them."""
    for entry in row["differences"]:
        if entry["against"] in references and row["name"] not in references:
            of_each = [100 * gain for gain in entry["of_each"]]
            low, high = entry["by_seeds_95" if over_seeds else "by_images_95"]
            return Gain(100 * entry["mean"], 100 * low, 100 * high, of_each)
    return Gain(0.0, 0.0, 0.0, [])


def _published_gain(row: dict[str, Any], fcn: dict[str, Any], backbone: str) -> float | None:
    if row is fcn or backbone not in row["published"]:
        return None
    return row["published"][backbone] - fcn["published"][backbone]


if __name__ == "__main__":
    main()
