"""The tables of accuracy in the docs: mIoU of the bundled weights, the ablations, the baselines and robustness."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from benchmarks.markdown import (
    LABELS,
    difference,
    interval,
    label,
    markdown,
    milliseconds,
    miou_and_minutes,
    network_label,
    percent,
    read,
)
from danet.evaluate.corruptions import CORRUPTIONS

SCORES_OF_LOSSES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "rare_iou": "IoU of rare classes",
    "boundary_f": "boundary F",
}
"""What benchmarks/losses.py measures, and its name in the table."""

_DATASETS = {"msrc21": "MSRC-21", "labelmefacade": "LabelMeFacade", "idd_lite": "IDD Lite"}


def default_weights() -> str:
    """Return mIoU and IoU of the bundled weights, and of those before them."""
    now, earlier = read("default"), read("earlier_weights")["weights"]
    names = [name.removesuffix("_symbol") for name in now["iou"]]
    rows = [("**current**", now["miou"], now["iou"]), *((row["about"], row["miou"], row["iou"]) for row in earlier)]
    return markdown(
        ("", "mIoU, %", *names), [(about, percent(miou), *map(percent, iou.values())) for about, miou, iou in rows]
    )


def attention() -> str:
    """Return where the attention of the bundled weights looks and what it is worth, next to their twin and 0.1.0."""
    measured = [read(name)["attention"] for name in ("default", "attention_twin", "attention_0_1_0")]
    rows = [
        (f"{words}, %", *(percent(found["position"][key]) for found in measured))
        for words, key in (
            ("attention on the pixel's own class", "own"),
            ("by chance", "chance"),
            ("the same beyond the 5 x 5 neighborhood", "own_beyond"),
            ("by chance", "chance_beyond"),
            ("entropy / log N", "entropy"),
            ("cosine between the rows of two pixels", "cosine"),
        )
    ]
    for module in ("position", "channel"):
        cells = (
            f"{found['modules'][module]['scale']:+.2f}, {percent(found['modules'][module]['size'])}"
            for found in measured
        )
        name = "alpha" if module == "position" else "beta"
        rows.append((f"{name}, and how much {module} attention changes the features, %", *cells))
    rows.append(("mIoU, %", *(percent(found["without"]["none"]["miou"], 2) for found in measured)))
    for module, words in (("position", "position attention"), ("channel", "channel attention"), ("both", "both")):
        pairs = (found["without"][module] for found in measured)
        cells = (f"{percent(row['difference'], 2, '+')} {interval(row['by_images_95'], 2)}" for row in pairs)
        rows.append((f"without {words}, points [95% over images]", *cells))
    twin = read("bundled_twin")["rows"][-1]
    gain = f"{percent(twin['difference'], 2, '+')} {interval(twin['by_images_95'], 2)}"
    rows.append(("trained without attention, points [95% over images]", gain, "", ""))
    return markdown(("", "bundled weights", "their twin", "those of 0.1.0"), rows)


def attention_by_class() -> str:
    """Return where the attention of the bundled weights looks from the pixels of each class."""
    classes = read("default")["attention"]["position"]["classes"]
    keys = ("own", "chance", "own_beyond", "chance_beyond")
    head = ("class", "on the own class, %", "by chance, %", "beyond the 5 x 5 neighborhood, %", "by chance, %")
    rows = ((name.removesuffix("_symbol"), *(percent(row[key]) for key in keys)) for name, row in classes.items())
    return markdown(head, rows)


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
    head = ("", "mIoU, %, seeds 1 / 2", "gain over the FCN, points [95% over images]", "alpha, beta")
    return markdown((*head, "the paper's gain, ResNet-50 / -101", "parameters, M"), _ablation("ablation", 0))


def ablation_resnet50() -> str:
    """Return the same with ResNet-50, each row compared with the one before it."""
    head = ("", "mIoU, %", "gain over the previous row, points [95% over images]", "alpha, beta")
    head = (*head, "the paper's gain over its FCN, ResNet-50 / -101", "parameters, M")
    return markdown(head, _ablation("ablation_resnet50", -1))


def baselines() -> str:
    """Return accuracy, speed and memory of DANet and its baselines on one backbone."""
    trained = (row for row in read("baselines")["rows"] if row["miou"] is not None)
    rows = sorted(trained, key=lambda row: -row["miou"])
    head = ("", "mIoU, %", "difference to DANet, points [95% over images]", "ms/image", "images/s, batch of 4")
    return markdown(
        (*head, "peak memory, MB", "parameters, M"),
        [
            (
                network_label(row),
                percent(row["miou"]),
                difference(row["differences"], 0),
                milliseconds(row["speed"]["latency"]["median_s"]),
                f"{row['speed']['images_per_s']:.1f}",
                f"{row['speed']['peak_bytes'] / 1e6:.0f}",
                f"{row['parameters'] / 1e6:.2f}",
            )
            for row in rows
        ],
    )


def twins(name: str = "twins") -> str:
    """Return what forms of attention are worth next to networks that were trained without it, of a result's name."""
    result = read(name)
    abouts = {row["name"]: label(row) for row in result["rows"]}
    rows = []
    for row in result["rows"]:
        if row["miou"] is None:
            continue
        entry, shares = next(iter(row["differences"]), None), row["attention"]
        seeds = [percent(run["miou"]) for run in result["runs"] if run["name"] == row["name"]]
        rows.append(
            (
                abouts[row["name"]],
                " / ".join(seeds),
                percent(row["miou"]),
                f"{percent(shares['attention_own'], 0)} ({percent(shares['attention_chance'], 0)})" if shares else "",
                "" if entry is None else f"{percent(entry['mean'], 1, '+')} ({abouts[entry['against']]})",
                "" if entry is None or entry["by_seeds_95"] is None else interval(entry["by_seeds_95"]),
                "" if entry is None else interval(entry["by_images_95"]),
            )
        )
    head = ("", "mIoU, %, by seed", "mean", "attention on the own class, % (by chance)")
    return markdown((*head, "difference, points (to which row)", "95% over seeds", "95% over images"), rows)


def small_data() -> str:
    """Return mIoU and minutes of trainings on few images."""
    rows = read("small_data")["rows"]
    ways: list[str] = list(dict.fromkeys(row["way"] for row in rows))
    cell = {(row["dataset"], row["images"], row["way"]): miou_and_minutes(row) for row in rows}

    subsets = dict.fromkeys((row["dataset"], row["images"]) for row in rows)
    lines = [
        (_DATASETS[name], str(count), *(cell.get((name, count, way), "") for way in ways)) for name, count in subsets
    ]
    return markdown(("", "images", *(LABELS.get(way, way) for way in ways)), lines)


def losses(result: Mapping[str, Any] | None = None) -> str:
    """Return the scores of trainings on few images with one loss after another, means over seeds.

    Args:
        result: of benchmarks/losses.py; None: the one in benchmarks/results.
    """
    groups: dict[tuple[str, int, str], list[dict[str, Any]]] = {}
    for row in (result or read("losses"))["rows"]:
        groups.setdefault((row["dataset"], row["images"], row["loss"]), []).append(row)
    lines = []
    for (dataset, images, loss), rows in groups.items():
        scores = (percent(mean(row[score] for row in rows)) for score in SCORES_OF_LOSSES)
        lines.append((_DATASETS.get(dataset, dataset), str(images), loss, str(len(rows)), *scores))
    return markdown(("", "images", "loss", "seeds", *(f"{name}, %" for name in SCORES_OF_LOSSES.values())), lines)


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
    head = ("attention at test time", "whole images: mIoU, %, difference in points [95% over images]", "windows")
    return markdown(head, rows)


def robustness() -> str:
    """Return mIoU on clean and on corrupted images."""
    networks = sorted(read("robustness")["networks"], key=lambda network: -network["mean_miou"])
    head = ("", "clean, mIoU, %", "corrupted", *_KINDS, "retained, %", "mCD, %")
    return markdown(
        (*head, "gain over the FCN on corrupted images, points [95% over images]"),
        [
            (
                network_label(network) if network["name"] != "both-off" else _attention_off(network, networks),
                percent(network["clean"]),
                percent(network["mean_miou"]),
                *_by_kind(network["corruptions"]),
                percent(network["kept"], 0),
                percent(network["mean_degradation"], 0),
                difference(network["differences"], 0),
            )
            for network in networks
        ],
    )


def robustness_of_weights() -> str:
    """Return mIoU of the bundled weights and of those of 0.1.0 on clean and on corrupted images."""
    labels = {"danet/default.safetensors": "**bundled weights**", "0.1.0.safetensors": "those of 0.1.0"}
    head = ("", "clean, mIoU, %", "corrupted", *_KINDS, "retained, %", "mCD, %", "ECE, clean, %", "corrupted")
    rows = [
        (
            labels[network["weights"]],
            percent(network["clean"]["miou"]),
            percent(network["mean_miou"]),
            *_by_kind({name: found["miou"] for name, found in network["corruptions"].items()}),
            percent(network["kept"], 0),
            percent(network["mean_degradation"], 0),
            percent(network["clean"]["ece"]),
            percent(network["mean_ece"]),
        )
        for network in read("robustness_default")["networks"]
    ]
    return markdown(head, rows)


_KINDS = ("noise", "blur", "weather", "digital")


def _by_kind(mious: Mapping[str, Sequence[float]]) -> list[str]:
    """Format the mean mIoU over the corruptions of each kind."""
    return [percent(mean(mean(mious[name]) for name in mious if CORRUPTIONS[name].kind == kind)) for kind in _KINDS]


def _attention_off(off: Mapping[str, Any], networks: Sequence[Mapping[str, Any]]) -> str:
    """Return the label of a network without attention, with the numbers of the same seed with attention."""
    (seed,) = off["seeds"]
    both = next(network for network in networks if network["name"] == "both")
    difference = next(entry for entry in off["differences"] if entry["against"] == "both")
    clean, corrupted = off["clean"] - difference["mean_clean"], both["of_each"][both["seeds"].index(seed)]
    return f"DANet, seed {seed}, attention off at test time (on: {percent(clean)}, {percent(corrupted)})"


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
                difference(row["differences"], against),
                scales,
                "" if row is fcn else _published_gains(row["published"], fcn["published"]),
                f"{row['parameters'] / 1e6:.2f}",
            )
        )
    return rows


def _published_gains(row: Mapping[str, float], fcn: Mapping[str, float]) -> str:
    gains = {backbone: f"{miou - fcn[backbone]:+.1f}" for backbone, miou in row.items()}
    return " / ".join(gains.get(backbone, "-") for backbone in fcn) if gains else ""
