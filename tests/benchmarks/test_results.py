"""The tables of docs/results.md hold the numbers of the committed JSON, in its order."""

import json
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from danet.evaluate.corruptions import CORRUPTIONS

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results"
PAGE = (ROOT / "docs/results.md").read_text()


def numbers(name: str) -> dict[str, Any]:
    return json.loads((RESULTS / f"{name}.json").read_text())


def cells(after: str) -> list[list[str]]:
    """The first table after a text of the page: its rows without the heading, the cells without bold."""
    lines = PAGE[PAGE.index(after) :].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|--"))
    table = lines[start + 1 :]
    end = next((i for i, line in enumerate(table) if not line.startswith("|")), len(table))
    return [[cell.strip().replace("**", "") for cell in row.strip("|").split("|")] for row in table[:end]]


def points(fraction: float, digits: int = 1, sign: str = "") -> str:
    return f"{100 * fraction:{sign}.{digits}f}"


def difference(entry: dict[str, Any], digits: int = 1) -> str:
    """ "+1.8 [+1.3, +2.2]", in points, 95 % by images."""
    low, high = (points(end, digits, "+") for end in entry["by_images_95"])
    return f"{points(entry['mean'], digits, '+')} [{low}, {high}]"


def signed(scale: float) -> str:
    text = f"{scale:+.2f}"
    return "0.00" if float(text) == 0 else text


def gains(row: dict[str, Any], fcn: dict[str, Any]) -> str:
    """The paper's over its FCN, ResNet-50 / ResNet-101."""
    told = {
        backbone: f"{miou - fcn['published'][backbone]:+.1f}"
        for backbone, miou in row["published"].items()
        if row is not fcn
    }
    return " / ".join(told.get(backbone, "-") for backbone in fcn["published"]) if told else ""


@pytest.mark.parametrize(("name", "against"), [("ablation", 0), ("ablation_resnet50", -1)])
def test_the_ablations(name, against):
    """The first is compared with the FCN, the second row by row."""
    result = numbers(name)
    rows = [row for row in result["rows"] if row["miou"] is not None]
    mious = {row["name"]: [points(run["miou"]) for run in result["runs"] if run["name"] == row["name"]] for row in rows}
    assert [row[1:] for row in cells(f"--json benchmarks/results/{name}.json")] == [
        [
            " / ".join(mious[row["name"]]),
            difference(row["differences"][against]) if row["differences"] else "",
            ", ".join(
                f"{scale:+.2f}".replace("+0.00", "0.00").replace("-0.00", "0.00") for scale in row["scales"].values()
            ),
            gains(row, result["rows"][0]),
            f"{row['parameters'] / 1e6:.2f}",
        ]
        for row in rows
    ]


def test_the_baselines():
    rows = sorted(numbers("baselines")["rows"], key=lambda row: -row["miou"])
    assert [row[1:] for row in cells("--json benchmarks/results/baselines.json")] == [
        [
            points(row["miou"]),
            difference(row["differences"][0]) if row["differences"] else "",
            f"{1000 * row['speed']['latency']['median_s']:.{0 if row['speed']['latency']['median_s'] > 0.1 else 1}f}",
            f"{row['speed']['images_per_s']:.1f}",
            f"{row['speed']['peak_bytes'] / 1e6:.0f}",
            f"{row['parameters'] / 1e6:.2f}",
        ]
        for row in rows
    ]


@pytest.mark.parametrize("name", ["without", "without_windows"])
def test_attention_switched_off_in_testing(name):
    result = numbers(name)
    column = ["without", "without_windows"].index(name) + 1
    expected = [points(result["miou"], 2)]
    for row in result["rows"]:
        low, high = (points(end, 2, "+") for end in row["by_images_95"])
        expected.append(f"{points(row['miou'], 2)}, {points(row['difference'], 2, '+')} [{low}, {high}]")
    assert [row[column] for row in cells("--window 448 --json benchmarks/results/without_windows.json")] == expected


def test_the_corrupted_images():
    networks = sorted(numbers("robustness")["networks"], key=lambda network: -network["mean_miou"])

    def of_kind(network: dict[str, Any], kind: str) -> float:
        return mean(mean(mious) for name, mious in network["corruptions"].items() if CORRUPTIONS[name].kind == kind)

    assert [row[1:] for row in cells("--json benchmarks/results/robustness.json")] == [
        [
            points(network["clean"]),
            points(network["mean_miou"]),
            *(points(of_kind(network, kind)) for kind in ("noise", "blur", "weather", "digital")),
            points(network["kept"], 0),
            points(network["mean_degradation"], 0),
            difference(network["differences"][0]) if network["differences"] else "",
        ]
        for network in networks
    ]


def test_the_weights_that_come_with_the_package():
    found = numbers("default")
    now = cells("danet evaluate danet/default.safetensors --dataset camvid --root CAMVID")[0]
    assert now[1:] == [points(found["miou"]), *(points(iou) for iou in found["iou"].values())]


def test_the_exported_networks():
    ways = numbers("export")["ways"]
    names = ("PyTorch", "PyTorch, folded", "ONNX Runtime", "OpenVINO", "OpenVINO int8")
    rows = [row[1:] for row in cells("python -m benchmarks.export --camvid CAMVID")]
    for row, way in zip(rows, (ways[name] for name in names), strict=True):
        assert row[0] == f"{way['milliseconds']:.0f}"
        assert row[1] == (points(way["miou"], 2) if "miou" in way else "")
        if "bytes" in way:
            assert row[2] == f"{way['bytes'] / 1e6:.1f}"


def test_attention_switched_off_on_corrupted_images():
    (off,) = (network for network in numbers("robustness")["networks"] if network["name"] == "both-off")
    assert off["seeds"] == [1]
    (beside,) = (entry for entry in off["differences"] if entry["against"] == "both")
    low, high = (points(end, 2, "+") for end in beside["by_images_95"])
    assert f"{points(beside['mean'], 2, '+')} points [{low}, {high}]" in PAGE
