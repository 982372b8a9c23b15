"""mIoU on corrupted CamVid images of the networks of ablation.py and baselines.py.

Twelve corruptions at five severities; DANet is compared with its parts and its baselines.

    python -m benchmarks.robustness --camvid DIR --runs runs/campaign --json benchmarks/results/robustness.json

RUNS is the --out of those campaigns. The counts of each network are stored in the folder of its run: the same command
resumes an interrupted evaluation, and reads the results of the networks that are finished.
"""

import io
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.intervals import SEEDS
from benchmarks.measure import environment
from benchmarks.validation import load_predictor
from danet.data import registry
from danet.errors import InputError
from danet.evaluate.confusion import Confusion
from danet.evaluate.corruptions import CORRUPTIONS, SEVERITIES
from danet.evaluate.intervals import by_images, mean_iou
from danet.evaluate.robustness import CLEAN, Condition, evaluate_corrupted, list_conditions
from danet.files import write_atomically
from danet.model.device import resolve_device
from danet.train import run_folder


class Network(NamedTuple):
    """A network to evaluate.

    Args:
        about: label in the table.
        run: the campaigns' row whose weights are evaluated; "" for its own.
        off: modules whose attention is switched off (alpha or beta 0).
        against: networks to compare with, seed by seed.
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
    "decoder": Network("DANet, decoder"),
    "dranet": Network("DRANet"),
    "robust": Network("DANet, degraded training", against=("fcn", "both")),
    "robust-decoder": Network("  + decoder", against=("fcn", "decoder")),
    "pspnet": Network("PSPNet"),
    "deeplabv3": Network("DeepLabV3"),
    "deeplabv3plus": Network("DeepLabV3+"),
    "upernet": Network("UPerNet"),
}
"""Networks by their names in the campaigns."""

REFERENCE = "fcn"
CONDITIONS = list_conditions(tuple(CORRUPTIONS), SEVERITIES)


class Result(NamedTuple):
    """The result of a network with one seed.

    Args:
        matrices: confusion matrix of each image under each of CONDITIONS, P,C,K,K int64.
        ece: expected calibration error under each condition.
    """

    matrices: np.ndarray
    ece: np.ndarray


@dataclass(frozen=True)
class Options:
    """Measure the mIoU on corrupted CamVid images of the networks of ablation.py and baselines.py.

    The same command resumes an interrupted evaluation.

    Example: python -m benchmarks.robustness --camvid DIR --runs runs/campaign --json robustness.json
    """

    camvid: Path
    """folder of CamVid"""
    runs: Path
    """folder of the campaigns' runs"""
    only: tuple[str, ...] | None = None
    """evaluate only these networks, NAME for all seeds or NAME-SEED; finished ones are still read"""
    json: JsonFile = None
    threads: int | None = None
    """CPU threads; default: torch's choice"""
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""


def run(options: Options) -> dict[str, Any]:
    """Evaluate what is missing, and compare all finished networks."""
    if options.threads:
        torch.set_num_threads(options.threads)
    results: dict[tuple[str, int], Result] = {}
    for name, seed, folder in find_runs(options.runs):
        file = folder / f"{'-without-'.join(('robustness', *NETWORKS[name].off))}.npz"
        if not file.exists():
            if options.only and not {name, f"{name}-{seed}"} & set(options.only):
                continue
            evaluate(folder, NETWORKS[name].off, file, options.camvid, options.device)
            print(f"{name}-{seed} is evaluated", flush=True)
        with np.load(file) as stored:
            results[name, seed] = Result(stored["matrices"], stored["ece"])
    return {"environment": environment(resolve_device(options.device)), **compare(results)}


def find_runs(out: Path) -> list[tuple[str, int, Path]]:
    """Return name, seed and folder of each finished run, seed by seed."""
    possible = [
        (name, seed, out / f"{network.run or name}-{seed}")
        for seed in range(1, SEEDS + 1)
        for name, network in NETWORKS.items()
    ]
    finished = [run for run in possible if (run[2] / run_folder.METRICS).exists()]
    if (REFERENCE, 1) not in {(name, seed) for name, seed, _ in finished}:
        raise InputError(
            out, f"contains no finished {REFERENCE}-1", "run benchmarks.ablation first, and name its --out"
        )
    return finished


def evaluate(run: Path, off: tuple[str, ...], file: Path, camvid: Path, device: str | None) -> None:
    """Evaluate a network on the validation images and write its counts."""
    predictor = load_predictor(run / run_folder.BEST, device, off)
    samples = registry.load("camvid", camvid, "val")
    classes = len(samples.classes)
    matrices = np.zeros((len(samples), len(CONDITIONS), classes, classes), np.int64)
    place = {condition: i for i, condition in enumerate(CONDITIONS)}

    def keep(index: int, condition: Condition, _: str, image: Confusion) -> None:
        matrices[index, place[condition]] = image.matrix

    counted = evaluate_corrupted({run.name: predictor}, samples, CONDITIONS, on_image=keep)[run.name]
    ece = np.array([counted.calibration[condition].error for condition in CONDITIONS])
    content = io.BytesIO()
    np.savez_compressed(content, matrices=matrices, ece=ece)
    write_atomically(file, content.getvalue())


def corrupted_miou(matrices: np.ndarray, left_out: np.ndarray | bool = False) -> np.ndarray:
    """Return the mean mIoU over all corruptions and severities: ...,C,K,K -> ...; see `mean_iou`."""
    return mean_iou(matrices, left_out)[..., 1:].mean(-1)


def compare(results: dict[tuple[str, int], Result]) -> dict[str, Any]:
    """Return `{"conditions", "networks": [...]}`: means over the seeds, mCD and differences for equal seeds."""
    assert CONDITIONS[0] == CLEAN
    networks = []
    for name, network in NETWORKS.items():
        own = {seed: result for (other, seed), result in results.items() if other == name}
        if not own:
            continue
        miou = np.mean([mean_iou(result.matrices.sum(0)) for result in own.values()], 0)  # C
        ece = np.mean([result.ece for result in own.values()], 0)
        entry = {
            "name": name,
            "about": network.about,
            "seeds": list(own),
            "clean": float(miou[0]),
            "mean_miou": float(miou[1:].mean()),
            "kept": float(miou[1:].mean() / miou[0]),
            "of_each": [float(corrupted_miou(result.matrices.sum(0))) for result in own.values()],
            "ece": {"clean": float(ece[0]), "mean": float(ece[1:].mean())},
            "corruptions": {
                corruption: [float(miou[i]) for i, c in enumerate(CONDITIONS) if c.corruption == corruption]
                for corruption in CORRUPTIONS
            },
        }
        if references := [(own[seed], results[REFERENCE, seed]) for seed in own if (REFERENCE, seed) in results]:
            entry["mean_degradation"] = mean(_degradation(*pair) for pair in references)
        entry["differences"] = [
            _difference(other, {seed: (own[seed], results[other, seed]) for seed in own if (other, seed) in results})
            for other in network.against
            if any((other, seed) in results for seed in own)
        ]
        networks.append(entry)
    return {"conditions": [list(condition) for condition in CONDITIONS], "networks": networks}


def table(result: dict[str, Any]) -> str:
    """Format the result, in %."""
    lines = [f"{'mIoU, %':24}{'clean':>8}{'corrupted':>10}{'retained':>9}{'mCD':>7}  difference [95% over images]"]
    for entry in result["networks"]:
        shares = (entry["clean"], entry["mean_miou"], entry["kept"], entry.get("mean_degradation", float("nan")))
        line = "{:24}{:8.1f}{:10.1f}{:9.1f}{:7.1f}".format(entry["about"], *(100 * share for share in shares))
        for difference in entry["differences"]:
            low, high = (100 * end for end in difference["by_images_95"])
            line += f"  {100 * difference['mean']:+.1f} [{low:+.1f}, {high:+.1f}] vs {difference['against']}"
            line += f" (clean {100 * difference['mean_clean']:+.1f})"
        lines.append(line)
    return "\n".join(lines)


def _degradation(result: Result, reference: Result) -> float:
    """Return mCD, see `danet.evaluate.robustness.Robustness.mean_degradation`."""
    own, base = (1 - mean_iou(each.matrices.sum(0))[1:].reshape(len(CORRUPTIONS), -1) for each in (result, reference))
    return float((own.sum(1) / base.sum(1)).mean())


def _difference(other: str, pairs: dict[int, tuple[Result, Result]]) -> dict[str, Any]:
    """Return the differences of the corrupted mIoU, with interval, and of the clean mIoU."""
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
    sys.exit(command.main("robustness", Options, run, table, overwrite=True))
