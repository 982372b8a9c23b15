"""How much of their mIoU the networks of ablation.py and baselines.py keep on corrupted images of CamVid: twelve
corruptions at five severities, DANet beside its own parts and its baselines.

    python -m benchmarks.robustness --camvid DIR --runs runs/campaign --json benchmarks/results/robustness.json

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

from benchmarks.campaign import write
from benchmarks.intervals import SEEDS, by_images, mean_iou
from benchmarks.measure import environment
from benchmarks.shown import loaded
from danet.data import registry
from danet.errors import InputError
from danet.evaluate.confusion import Confusion
from danet.evaluate.corruptions import CORRUPTIONS, SEVERITIES
from danet.evaluate.robustness import CLEAN, Condition, evaluate_corrupted, list_conditions
from danet.files import write_atomically
from danet.model.device import resolve_device
from danet.train import run_folder


class Network(NamedTuple):
    """What is shown the images.

    Args:
        about: what it is, in a few words.
        run: the campaigns' row whose weights it has; "" for its own.
        off: the modules whose attention is switched off: alpha or beta 0.
        against: the networks that it is compared with, seed by seed.
    """

    about: str
    run: str = ""
    off: tuple[str, ...] = ()
    against: tuple[str, ...] = ("fcn",)


NETWORKS = {
    "fcn": Network("dilated FCN", against=()),
    "position": Network("position attention"),
    "channel": Network("channel attention"),
    "both": Network("DANet"),
    "both-off": Network("DANet, attention off", "both", ("position", "channel"), ("fcn", "both")),
    "both-eq3": Network("DANet, Eq. 3"),
    "both-8": Network("DANet, stride 8"),
    "pspnet": Network("PSPNet"),
    "deeplabv3": Network("DeepLabV3"),
    "deeplabv3plus": Network("DeepLabV3+"),
    "upernet": Network("UPerNet"),
}
"""By their names in the campaigns."""

REFERENCE = "fcn"
CONDITIONS = list_conditions(tuple(CORRUPTIONS), SEVERITIES)


class Shown(NamedTuple):
    """One network with one seed.

    Args:
        matrices: P,C,K,K int64, the confusion matrix of each image under each of CONDITIONS.
        ece: C, the expected calibration error.
    """

    matrices: np.ndarray
    ece: np.ndarray


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--camvid", type=Path, required=True, help="CamVid's folder")
    parser.add_argument("--runs", type=Path, required=True, help="folder of the campaigns' runs")
    parser.add_argument("--only", nargs="+", help="networks to show the images to, of all seeds or NAME-SEED")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parser.add_argument("--threads", type=int, help="of each computation; torch's choice if not given")
    parser.add_argument("--device", help="cpu or cuda; a GPU if there is one")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    found: dict[tuple[str, int], Shown] = {}
    for name, seed, run in runs(options.runs):
        kept = run / f"{'-without-'.join(('robustness', *NETWORKS[name].off))}.npz"
        if not kept.exists():
            if options.only and not {name, f"{name}-{seed}"} & set(options.only):
                continue
            show(run, NETWORKS[name].off, kept, options.camvid, options.device)
            print(f"{name}-{seed} is shown", flush=True)
        with np.load(kept) as stored:
            found[name, seed] = Shown(stored["matrices"], stored["ece"])
    compared = result(found)
    write(options.json, {"environment": environment(resolve_device(options.device)), **compared})
    print(table(compared))


def runs(out: Path) -> list[tuple[str, int, Path]]:
    """Name, seed and folder of each finished run, seed by seed."""
    there = [
        (name, seed, out / f"{network.run or name}-{seed}")
        for seed in range(1, SEEDS + 1)
        for name, network in NETWORKS.items()
    ]
    finished = [run for run in there if (run[2] / run_folder.METRICS).exists()]
    if (REFERENCE, 1) not in {(name, seed) for name, seed, _ in finished}:
        raise InputError(out, f"holds no finished {REFERENCE}-1", "run benchmarks/ablation.py, and give its --out")
    return finished


def show(run: Path, off: tuple[str, ...], file: Path, camvid: Path, device: str | None) -> None:
    """Write the counts of one network over the validation images."""
    predictor = loaded(run / run_folder.BEST, device, off)
    samples = registry.load("camvid", camvid, "val")
    classes = len(samples.classes)
    matrices = np.zeros((len(samples), len(CONDITIONS), classes, classes), np.int64)
    place = {condition: i for i, condition in enumerate(CONDITIONS)}

    def keep(index: int, condition: Condition, _: str, image: Confusion) -> None:
        matrices[index, place[condition]] = image.matrix

    counted = study({run.name: predictor}, samples, CONDITIONS, seen=keep)[run.name]
    ece = np.array([counted.calibration[condition].error for condition in CONDITIONS])
    content = io.BytesIO()
    np.savez_compressed(content, matrices=matrices, ece=ece)
    write_atomically(file, content.getvalue())


def corrupted_miou(matrices: np.ndarray) -> np.ndarray:
    """The mean over all corruptions and severities: ...,C,K,K -> ..."""
    return mean_iou(matrices)[..., 1:].mean(-1)


def result(found: dict[tuple[str, int], Shown]) -> dict[str, Any]:
    """`{"conditions", "networks": [...]}`: means over the seeds; mCD against the FCN, and differences, of the same
    seeds.
    """
    assert CONDITIONS[0] == CLEAN
    networks = []
    for name, network in NETWORKS.items():
        own = {seed: shown for (other, seed), shown in found.items() if other == name}
        if not own:
            continue
        miou = np.mean([mean_iou(shown.matrices.sum(0)) for shown in own.values()], 0)  # C
        ece = np.mean([shown.ece for shown in own.values()], 0)
        entry = {
            "name": name,
            "about": network.about,
            "seeds": list(own),
            "clean": float(miou[0]),
            "mean_miou": float(miou[1:].mean()),
            "kept": float(miou[1:].mean() / miou[0]),
            "of_each": [float(corrupted_miou(shown.matrices.sum(0))) for shown in own.values()],
            "ece": {"clean": float(ece[0]), "mean": float(ece[1:].mean())},
            "corruptions": {
                corruption: [float(miou[i]) for i, c in enumerate(CONDITIONS) if c.corruption == corruption]
                for corruption in CORRUPTIONS
            },
        }
        if references := [(own[seed], found[REFERENCE, seed]) for seed in own if (REFERENCE, seed) in found]:
            entry["mean_degradation"] = mean(_degradation(*pair) for pair in references)
        entry["differences"] = [
            _difference(other, {seed: (own[seed], found[other, seed]) for seed in own if (other, seed) in found})
            for other in network.against
            if any((other, seed) in found for seed in own)
        ]
        networks.append(entry)
    return {"conditions": [list(condition) for condition in CONDITIONS], "networks": networks}


def table(compared: dict[str, Any]) -> str:
    """For people, in %."""
    lines = [f"{'mIoU %':24}{'clean':>8}{'corrupted':>9}{'kept':>7}{'mCD':>7}  difference, 95 % by images"]
    for entry in compared["networks"]:
        shares = (entry["clean"], entry["mean_miou"], entry["kept"], entry.get("mean_degradation", float("nan")))
        line = "{:24}{:8.1f}{:9.1f}{:7.1f}{:7.1f}".format(entry["about"], *(100 * share for share in shares))
        for difference in entry["differences"]:
            low, high = (100 * end for end in difference["by_images_95"])
            line += f"  {100 * difference['mean']:+.1f} [{low:+.1f}, {high:+.1f}] over {difference['against']}"
            line += f" (clean {100 * difference['mean_clean']:+.1f})"
        lines.append(line)
    return "\n".join(lines)


def _degradation(shown: Shown, reference: Shown) -> float:
    """mCD, see `danet.robustness.Robustness.mean_degradation`."""
    lost = [1 - mean_iou(counted.matrices.sum(0))[1:].reshape(len(CORRUPTIONS), -1) for counted in (shown, reference)]
    return float((lost[0].sum(1) / lost[1].sum(1)).mean())


def _difference(other: str, pairs: dict[int, tuple[Shown, Shown]]) -> dict[str, Any]:
    """In mean mIoU over the corruptions, and in mIoU on the clean images; the interval is the former's."""
    ours, theirs = zip(*((a.matrices, b.matrices) for a, b in pairs.values()), strict=True)
    gains = [mean_iou(a.sum(0)) - mean_iou(b.sum(0)) for a, b in zip(ours, theirs, strict=True)]  # C each
    return {
        "against": other,
        "seeds": list(pairs),
        "mean": mean(float(gain[1:].mean()) for gain in gains),
        "mean_clean": mean(float(gain[0]) for gain in gains),
        "of_each": [float(gain[1:].mean()) for gain in gains],
        "by_images_95": by_images(ours, theirs, corrupted_miou),
    }


if __name__ == "__main__":
    main()
