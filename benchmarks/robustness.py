"""How much of their mIoU the networks of ablation.py and peers.py keep on pictures of CamVid that are spoiled: twelve
corruptions at five severities, DANet beside its own parts and its peers.

    python benchmarks/robustness.py --camvid DIR --runs runs/campaign --json benchmarks/results/robustness.json

RUNS is the --out of those campaigns. Each network's counts are kept in its run's folder: the same command goes on where
it was killed, and reads those of others that have been shown.
"""

import argparse
import io
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch
from campaign import write
from intervals import by_pictures, mean_iou

import danet
from danet import data
from danet.bench.measure import environment
from danet.devices import choose
from danet.errors import InputError
from danet.files import write_atomically
from danet.metrics import Confusion
from danet.robustness import CLEAN, CORRUPTIONS, SEVERITIES, Condition, conditions_of, study
from danet.train import folder

NETWORKS = {
    "fcn": "dilated FCN",
    "position": "position attention",
    "channel": "channel attention",
    "both": "DANet",
    "both-eq3": "DANet, Eq. 3",
    "both-8": "DANet, stride 8",
    "pspnet": "PSPNet",
    "deeplabv3": "DeepLabV3",
    "deeplabv3plus": "DeepLabV3+",
    "upernet": "UPerNet",
}
"""Their names in the campaigns."""

REFERENCE = "fcn"
CONDITIONS = conditions_of(tuple(CORRUPTIONS), SEVERITIES)
KEPT = "robustness.npz"


class Shown(NamedTuple):
    """One network with one seed.

    Args:
        matrices: P,C,K,K int64, the confusion matrix of each picture under each of CONDITIONS.
        ece: C, the expected calibration error.
    """

    matrices: np.ndarray
    ece: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the campaigns' runs")
    parser.add_argument("--only", nargs="+", help="networks to show the pictures to, of all seeds or NAME-SEED")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--threads", type=int, help="of each computation; torch's choice if not given")
    parser.add_argument("--device", help="cpu or cuda; a GPU if there is one")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found: dict[tuple[str, int], Shown] = {}
    for name, seed, run in runs(options.runs):
        if not (run / KEPT).exists():
            if options.only and not {name, run.name} & set(options.only):
                continue
            show(run, options.camvid, options.device)
            print(f"{run.name} is shown", flush=True)
        with np.load(run / KEPT) as stored:
            found[name, seed] = Shown(stored["matrices"], stored["ece"])
    compared = result(found)
    write(options.json, {"environment": environment(choose(options.device)), **compared})
    print(table(compared))


def runs(out: Path) -> list[tuple[str, int, Path]]:
    """Name, seed and folder of each finished run, seed by seed."""
    there = [(name, seed, out / f"{name}-{seed}") for seed in range(1, 11) for name in NETWORKS]
    finished = [run for run in there if (run[2] / folder.METRICS).exists()]
    if (REFERENCE, 1) not in {(name, seed) for name, seed, _ in finished}:
        raise InputError(out, f"holds no finished {REFERENCE}-1", "run benchmarks/ablation.py, and give its --out")
    return finished


def show(run: Path, camvid: Path, device: str | None) -> None:
    """Write the counts of one network over the validation pictures."""
    predictor = danet.load(run / folder.BEST, device)
    samples = data.load("camvid", camvid, "val")
    classes = len(samples.classes)
    matrices = np.zeros((len(samples), len(CONDITIONS), classes, classes), np.int64)
    place = {condition: i for i, condition in enumerate(CONDITIONS)}

    def keep(index: int, condition: Condition, _: str, picture: Confusion) -> None:
        matrices[index, place[condition]] = picture.matrix

    counted = study({run.name: predictor}, samples, CONDITIONS, seen=keep)[run.name]
    ece = np.array([counted.calibration[condition].error for condition in CONDITIONS])
    content = io.BytesIO()
    np.savez_compressed(content, matrices=matrices, ece=ece)
    write_atomically(run / KEPT, content.getvalue())


def spoiled_miou(matrices: np.ndarray) -> np.ndarray:
    """The mean over all corruptions and severities: ...,C,K,K -> ..."""
    return mean_iou(matrices)[..., 1:].mean(-1)


def result(found: dict[tuple[str, int], Shown]) -> dict[str, Any]:
    """`{"conditions", "networks": [...]}`: means over the seeds; differences from the FCN of the same seeds."""
    assert CONDITIONS[0] == CLEAN
    networks = []
    for name, about in NETWORKS.items():
        own = {seed: shown for (other, seed), shown in found.items() if other == name}
        if not own:
            continue
        miou = np.mean([mean_iou(shown.matrices.sum(0)) for shown in own.values()], 0)  # C
        ece = np.mean([shown.ece for shown in own.values()], 0)
        pairs = [(own[seed], found[REFERENCE, seed]) for seed in own if (REFERENCE, seed) in found]
        entry = {
            "name": name,
            "about": about,
            "seeds": list(own),
            "clean": float(miou[0]),
            "mean_miou": float(miou[1:].mean()),
            "kept": float(miou[1:].mean() / miou[0]),
            "of_each": [float(spoiled_miou(shown.matrices.sum(0))) for shown in own.values()],
            "ece": {"clean": float(ece[0]), "mean": float(ece[1:].mean())},
            "corruptions": {
                corruption: [float(miou[i]) for i, c in enumerate(CONDITIONS) if c.corruption == corruption]
                for corruption in CORRUPTIONS
            },
        }
        if name != REFERENCE and pairs:
            entry |= _beside(pairs)
        networks.append(entry)
    return {"conditions": [list(condition) for condition in CONDITIONS], "networks": networks}


def table(compared: dict[str, Any]) -> str:
    """For people, in %."""
    lines = [f"{'mIoU %':24}{'clean':>8}{'spoiled':>9}{'kept':>7}{'mCD':>7}  over the FCN, 95 % by pictures"]
    for entry in compared["networks"]:
        line = (
            f"{entry['about']:24}{100 * entry['clean']:8.1f}{100 * entry['mean_miou']:9.1f}{100 * entry['kept']:7.1f}"
        )
        if "difference" in entry:
            low, high = entry["by_pictures_95"]
            line += f"{100 * entry['mean_degradation']:7.1f}  {100 * entry['difference']:+.1f}"
            line += f" [{100 * low:+.1f}, {100 * high:+.1f}], clean {100 * entry['difference_clean']:+.1f}"
        lines.append(line)
    return "\n".join(lines)


def _beside(pairs: list[tuple[Shown, Shown]]) -> dict[str, Any]:
    """Differences from the reference in mean mIoU, with a 95 % interval by pictures, and mCD."""

    def degradation(ours: np.ndarray, theirs: np.ndarray) -> float:
        sums = [(1 - miou[1:]).reshape(len(CORRUPTIONS), len(SEVERITIES)).sum(1) for miou in (ours, theirs)]
        return float((sums[0] / sums[1]).mean())

    mious = [tuple(mean_iou(shown.matrices.sum(0)) for shown in pair) for pair in pairs]
    return {
        "difference": mean(float(a[1:].mean() - b[1:].mean()) for a, b in mious),
        "difference_clean": mean(float(a[0] - b[0]) for a, b in mious),
        "by_pictures_95": by_pictures([a.matrices for a, _ in pairs], [b.matrices for _, b in pairs], spoiled_miou),
        "mean_degradation": mean(degradation(a, b) for a, b in mious),
    }


if __name__ == "__main__":
    main()
