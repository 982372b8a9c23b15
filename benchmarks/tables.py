"""The tables of our measurements in the docs, generated from benchmarks/results by cog.

    python -m benchmarks.tables            write the tables into README.md and docs/*.md
    python -m benchmarks.tables --check    only report the files that are out of date

In a page, a table is a block `<!-- [[[cog cog.out(tables.baselines()) ]]] -->` ... `<!-- [[[end]]] -->`. Each function
below returns one table.
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from statistics import mean
from typing import Any

from danet.evaluate.corruptions import CORRUPTIONS
from danet.weights import file as weights_file

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"
PROLOGUE = "import cog\nfrom benchmarks import model_card, tables"

LABELS = {
    "both, off in testing": "same weights, attention off at test time",
    "both + random scaling": "both + random scaling (0.6 to 1.6)",
    "DeepLabV3Plus": "DeepLabV3+",
}
"""Labels in the JSON that are too short -> labels in tables and plots."""


def main() -> int:
    """Run cog on all pages and return its exit status."""
    from cogapp import Cog

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="only report the files that are out of date")
    mode = ["--check"] if parser.parse_args().check else ["-r"]
    pages = [str(ROOT / "README.md"), *map(str, sorted((ROOT / "docs").glob("*.md")))]
    return Cog().main(["cog", "-I", str(ROOT), "-p", PROLOGUE, *mode, *pages])


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


# Accuracy


def default_weights() -> str:
    """Return mIoU and IoU of the bundled weights, and of those before them."""
    now, earlier = read("default"), read("earlier_weights")["weights"]
    names = [name.removesuffix("_symbol") for name in now["iou"]]
    rows = [("**current**", now["miou"], now["iou"]), *((row["about"], row["miou"], row["iou"]) for row in earlier)]
    return markdown(
        ("", "mIoU, %", *names), [(about, percent(miou), *map(percent, iou.values())) for about, miou, iou in rows]
    )


def context() -> str:
    """Return mIoU with and without both modules where only distant context decides."""
    runs = read("context")["runs"]

    def row(network: str) -> list[str]:
        cells = [network]
        for key in ("miou", "miou_of_cars"):
            values = [run[key] for run in runs if run["network"] == network]
            cells += [" / ".join(map(percent, values)), f"**{percent(mean(values))}**"]
        return cells

    head = ("network", "mIoU, %, seeds 1 / 2 / 3", "mean", "mIoU of the two car classes, %", "mean")
    return markdown(head, [row(network) for network in dict.fromkeys(run["network"] for run in runs)])


def ablation() -> str:
    """Return Tables 1 and 2 of the paper on CamVid, compared with the FCN."""
    head = ("", "mIoU, %, seeds 1 / 2", "gain over the FCN, points [95 % over images]", "alpha, beta")
    return markdown((*head, "the paper's gain, ResNet-50 / -101", "parameters, M"), _ablation("ablation", 0))


def ablation_resnet50() -> str:
    """Return the same with ResNet-50, each row compared with the one before it."""
    head = ("", "mIoU, %", "gain over the previous row, points [95 % over images]", "alpha, beta")
    head = (*head, "the paper's gain over its FCN, ResNet-50 / -101", "parameters, M")
    return markdown(head, _ablation("ablation_resnet50", -1))


def baselines() -> str:
    """Return accuracy, speed and memory of DANet and its baselines on one backbone."""
    rows = sorted(read("baselines")["rows"], key=lambda row: -row["miou"])
    head = ("", "mIoU, %", "difference to DANet, points [95 % over images]", "ms/image", "images/s, batch of 4")
    return markdown(
        (*head, "peak memory, MB", "parameters, M"),
        [
            (
                _network(row),
                percent(row["miou"]),
                _difference(row["differences"], 0),
                _milliseconds(row["speed"]["latency"]["median_s"]),
                f"{row['speed']['images_per_s']:.1f}",
                f"{row['speed']['peak_bytes'] / 1e6:.0f}",
                f"{row['parameters'] / 1e6:.2f}",
            )
            for row in rows
        ],
    )


def without_attention() -> str:
    """Return mIoU of the bundled weights with attention switched off at test time."""
    whole, windows = read("without"), read("without_windows")
    scales = ", ".join(
        f"{name} {whole['scales'][key]:+.2f}" for name, key in (("alpha", "position"), ("beta", "channel"))
    )
    rows: list[tuple[str, ...]] = [(f"both ({scales})", percent(whole["miou"], 2), percent(windows["miou"], 2))]
    for entries in zip(whole["rows"], windows["rows"], strict=True):
        off = entries[0]["off"]
        cells = [
            f"{percent(row['miou'], 2)}, {percent(row['difference'], 2, '+')} {interval(row['by_images_95'], 2)}"
            for row in entries
        ]
        rows.append((f"without {off[0] if len(off) == 1 else 'both'}", *cells))
    head = ("attention at test time", "whole images: mIoU, %, difference in points [95 % over images]", "windows")
    return markdown(head, rows)


def robustness() -> str:
    """Return mIoU on clean and on corrupted images."""
    networks = sorted(read("robustness")["networks"], key=lambda network: -network["mean_miou"])

    def of_kind(network: Mapping[str, Any], kind: str) -> float:
        return mean(mean(mious) for name, mious in network["corruptions"].items() if CORRUPTIONS[name].kind == kind)

    kinds = ("noise", "blur", "weather", "digital")
    head = ("", "clean, mIoU, %", "corrupted", *kinds, "retained, %", "mCD, %")
    return markdown(
        (*head, "gain over the FCN on corrupted images, points [95 % over images]"),
        [
            (
                _network(network) if network["name"] != "both-off" else _attention_off(network, networks),
                percent(network["clean"]),
                percent(network["mean_miou"]),
                *(percent(of_kind(network, kind)) for kind in kinds),
                percent(network["kept"], 0),
                percent(network["mean_degradation"], 0),
                _difference(network["differences"], 0),
            )
            for network in networks
        ],
    )


def _attention_off(off: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]) -> str:
    """Return the label of a network without attention, with the numbers of the same seed with attention."""
    (seed,) = off["seeds"]
    both = next(network for network in networks if network["name"] == "both")
    difference = next(entry for entry in off["differences"] if entry["against"] == "both")
    clean, corrupted = off["clean"] - difference["mean_clean"], both["of_each"][both["seeds"].index(seed)]
    return f"DANet, seed {seed}, attention off at test time (on: {percent(clean)}, {percent(corrupted)})"


# Speed and memory


def attention() -> str:
    """Return time, memory and error of exact position attention."""
    names = {"plain": "plain", "tiled": "**tiled**", "fused": "torch's fused kernel, value in 8 heads"}
    rows = []
    for name in ("attention", "attention_backward", "attention_32768"):
        result = read(name)
        for size in result["sizes"]:
            title = f"{size['positions']:,} {'forward + backward' if result['backward'] else 'forward'}"
            for way, row in size["ways"].items():
                seconds = row["median_s"]
                rows.append(
                    (
                        title,
                        names[way],
                        f"{seconds:.3f}" if seconds < 10 else f"{seconds:.1f}",
                        "1" if way == "plain" else f"{row['of_plain']:.2f}",
                        f"{row['share_of_gemm_rate']:.0%}".replace("%", " %"),
                        megabytes(row["peak_bytes"]),
                        "" if result["backward"] else f"{row['largest_error']:.1e}".replace("e-0", "e-"),
                    )
                )
                title = ""
    head = ("N", "implementation", "s", "relative to plain", "of the matrix-product rate", "peak memory, MB")
    return markdown((*head, "error against float64"), rows)


def cost() -> str:
    """Return time and memory of attention and of the whole network as images grow."""

    def cell(entry: Mapping[str, Any], reason: str) -> str:
        if "left_out" in entry:
            return reason
        seconds = entry["median_s"]
        return f"{seconds:.{3 if seconds < 0.5 else 2 if seconds < 10 else 1}f} s, {megabytes(entry['peak_bytes'])} MB"

    rows = [
        (
            f"{size['positions']:,}",
            *(cell(size[name], "does not fit") for name in ("plain", "tiled")),
            cell(size["network"], ""),
        )
        for size in read("cost")["sizes"]
    ]
    return markdown(("N", "plain attention", "tiled attention", "whole network"), rows)


def network() -> str:
    """Return the latency of the whole network, prepared in several ways."""
    cases = read("network")["cases"]
    ways = {
        "eager": "as trained",
        "channels_last": "channels_last",
        "folded": "batch normalization folded (`danet predict`)",
        "bfloat16": "and `--dtype bfloat16`",
    }

    def cell(row: Mapping[str, Any], way: str) -> str:
        return _latency(row["median_s"]) + (f", {row['speedup']:.2f} x" if way != "eager" else "")

    rows = [(text, *(cell(case[way], way) for case in cases.values())) for way, text in ways.items()]
    return markdown(("", *cases), rows)


def protocols() -> str:
    """Return time and memory of multi-scale testing."""
    result = read("protocols")
    loop, whole, largest = result["released_loop"], result["whole"], result["largest"]

    def about(entry: Mapping[str, Any]) -> str:
        height, width = entry["image"]
        return f"{width} x {height}, {len(entry['scales'])} scales and flip, windows of {entry['crop']}"

    ways = {
        "released loop": f"{about(loop)}: the released loop",
        "ours, same network": "ours, same network",
        "ours": "ours, as `danet evaluate` runs it (folded, channels_last)",
    }
    rows = []
    for name, text in ways.items():
        row = loop["ways"][name]
        rows.append((text, f"{row['median_s']:.1f}", "1" if row["speedup"] == 1 else f"{row['speedup']:.2f}", ""))
    base = whole["ways"]["windows"]["seconds"]
    for name, text in (("windows", about(whole)), ("whole", "whole images instead")):
        row = whole["ways"][name]
        speedup = "1" if name == "windows" else f"{base / row['seconds']:.1f}"
        rows.append((text, f"{row['seconds']:.1f}", speedup, megabytes(row["peak_bytes"])))
    height, width = largest["image"]
    text = f"{width} x {height} whole at scale {largest['scale']}, N = {largest['positions']:,}"
    rows.append((text, f"{largest['seconds']:.1f}", "", megabytes(largest["peak_bytes"])))
    return markdown(("", "s", "speedup", "peak memory, MB"), rows)


def export() -> str:
    """Return latency, mIoU and file size of the exported bundled weights."""
    ways = {
        "PyTorch": "PyTorch",
        "PyTorch, folded": "PyTorch, batch normalization folded",
        "ONNX Runtime": "ONNX Runtime",
        "OpenVINO": "OpenVINO",
        "OpenVINO int8": "OpenVINO int8",
    }
    sizes = {"PyTorch": f"{megabytes(weights_file.DEFAULT.stat().st_size, 1)} (float16)"}
    rows = []
    for name, text in ways.items():
        way = read("export")["ways"][name]
        size = megabytes(way["bytes"], 1) if "bytes" in way else sizes.get(name, "")
        rows.append((text, f"{way['milliseconds']:.0f}", percent(way["miou"], 2) if "miou" in way else "", size))
    return markdown(("", "ms/image", "mIoU, %", "file, MB"), rows)


def serve() -> str:
    """Return latency, throughput and memory of the server."""
    result = read("serve")
    load, memory, health = result["load"], result["load"]["resident_mb"], result["load"]["health"]
    wide, narrow = result["hover_width_512"], result["hover_width_64"]
    height, width = wide["grid"]
    statuses = ", ".join(f"{count} answered {status}" for status, count in load["statuses"].items())

    def times(entry: Mapping[str, float]) -> str:
        return f"median {entry['p50_ms']:.1f} ms, p95 {entry['p95_ms']:.1f} ms"

    rows = [
        (f"attention of the pixel under the pointer, {height} x {width} features, 512 channels", times(wide)),
        ("the same, 64 channels", times(narrow)),
        (
            f"{load['uploads']} simultaneous uploads",
            f"{statuses}; {load['images_a_second']:.1f} images/s, {load['images_a_batch']:.1f} images/batch",
        ),
        ("resident memory, idle and peak", f"{memory['idle']:,.0f} and {memory['most']:,.0f} MB"),
        (
            "/health during the uploads",
            f"median {health['p50_ms']:.0f} ms, p95 {health['p95_ms']:.0f} ms, p99 {health['p99_ms']:.0f} ms",
        ),
    ]
    return markdown(("", ""), rows)


def data() -> str:
    """Return the time to make a training sample."""
    ways = {
        "released": "the released code's steps",
        "ours": "ours",
        "cached": "ours, `--cache`",
        "decoding alone": "decoding the two files, part of both",
    }
    rows = []
    for name, text in ways.items():
        row = read("data")["ways"][name]
        share = row["of_released"]
        rows.append(
            (text, f"{1000 * row['median_s']:.1f}", "1" if share == 1 else f"{share:.{3 if share < 0.2 else 2}f}")
        )
    return markdown(("", "ms", "relative to the released pipeline"), rows)


def highlights() -> str:
    """Return three comparisons for the README."""
    (size,) = read("attention_32768")["sizes"]
    plain, tiled, fused = (size["ways"][name] for name in ("plain", "tiled", "fused"))
    loop, whole = read("protocols")["released_loop"]["ways"], read("protocols")["whole"]["ways"]
    speedup = whole["windows"]["seconds"] / whole["whole"]["seconds"]
    ways = read("export")["ways"]
    height, width = read("export")["image"]
    int8, float32 = ways["OpenVINO int8"], ways["OpenVINO"]
    loss = percent(float32["miou"] - int8["miou"])

    def both(row: Mapping[str, Any]) -> str:
        return f"{row['median_s']:.1f} s, {megabytes(row['peak_bytes'])} MB"

    rows = [
        (
            f"exact position attention, a Cityscapes image at stride 8 (N = {size['positions']:,})",
            both(tiled),
            f"plain: {both(plain)}; torch's fused kernel: {both(fused)}",
        ),
        (
            "testing with 8 scales and flip, same results within 2e-5",
            f"{loop['ours']['median_s']:.1f} s",
            f"the released loop: {loop['released loop']['median_s']:.1f} s; whole images, which now fit into memory, "
            f"are {speedup:.1f} times as fast as windows",
        ),
        (
            "int8 on a CPU, `danet export --int8`",
            f"{int8['milliseconds']:.0f} ms per image of {width} x {height}",
            f"OpenVINO float32: {float32['milliseconds']:.0f} ms, mIoU {loss} higher",
        ),
    ]
    return markdown(("", "danet", "for comparison"), rows)


# Cells


def megabytes(count: float, digits: int = 0) -> str:
    """Format bytes in megabytes, without the unit."""
    return f"{count / 1e6:,.{digits}f}"


def interval(ends: Sequence[float], digits: int = 1) -> str:
    """Format an interval of fractions in points: "[+1.3, +2.2]"."""
    return f"[{', '.join(percent(end, digits, '+') for end in ends)}]"


def _difference(entries: Sequence[Mapping[str, Any]], index: int) -> str:
    if not entries:
        return ""
    return f"{percent(entries[index]['mean'], 1, '+')} {interval(entries[index]['by_images_95'])}"


def label(row: Mapping[str, Any]) -> str:
    """Return the label of a row of a campaign."""
    about: str = row["about"].strip()
    return LABELS.get(about, about)


def _network(row: Mapping[str, Any]) -> str:
    return f"**{label(row)}**" if label(row).startswith("DANet") else label(row)


def _latency(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{_milliseconds(seconds)} ms"


def _milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.{1 if seconds < 0.1 else 0}f}"


def _ablation(name: str, against: int) -> list[tuple[str, ...]]:
    result = read(name)
    fcn, best = result["rows"][0], max(row["miou"] or 0 for row in result["rows"])
    rows = []
    for row in result["rows"]:
        if row["miou"] is None:
            continue
        mious = " / ".join(percent(run["miou"]) for run in result["runs"] if run["name"] == row["name"])
        scales = ", ".join(f"{scale:+.2f}" if abs(scale) >= 0.005 else "0.00" for scale in row["scales"].values())
        rows.append(
            (
                label(row),
                f"**{mious}**" if row["miou"] == best else mious,
                _difference(row["differences"], against),
                scales,
                "" if row is fcn else _published_gains(row["published"], fcn["published"]),
                f"{row['parameters'] / 1e6:.2f}",
            )
        )
    return rows


def _published_gains(row: Mapping[str, float], fcn: Mapping[str, float]) -> str:
    gains = {backbone: f"{miou - fcn[backbone]:+.1f}" for backbone, miou in row.items()}
    return " / ".join(gains.get(backbone, "-") for backbone in fcn) if gains else ""


if __name__ == "__main__":
    sys.exit(main())
