"""mIoU of weights trained on CamVid on streets of other cities: India (IDD Lite) and facades (LabelMeFacade).

Classes are compared by name where the datasets agree; CamVid's classes that belong to one of the other dataset are
merged. A prediction of any other class is wrong. Pixels whose ground truth has no counterpart are ignored.

    python -m benchmarks.other_cities --data DATA --weights NEW OLD --json benchmarks/results/other_cities.json

DATA has one folder per dataset: images/val, labels/val and classes.txt.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import danet
from benchmarks import command
from benchmarks.command import JsonFile
from benchmarks.markdown import markdown
from benchmarks.measure import environment
from danet.data.classes import IGNORE
from danet.errors import InputError
from danet.evaluate.confusion import Confusion
from danet.evaluate.intervals import by_images
from danet.model.device import resolve_device
from danet.weights import file as weights_file

SAME_CLASSES: dict[str, dict[str, tuple[Sequence[str], Sequence[str]]]] = {
    "idd_lite": {
        "road": (["drivable"], ["road"]),
        "pavement": (["non_drivable"], ["pavement"]),
        "people": (["living_things"], ["pedestrian", "bicyclist"]),
        "vehicles": (["vehicles"], ["car"]),
        "beside the road": (["roadside_objects"], ["pole", "sign_symbol", "fence"]),
        "buildings and trees": (["far_objects"], ["building", "tree"]),
        "sky": (["sky"], ["sky"]),
    },
    "labelmefacade": {
        "building": (["building", "door", "window"], ["building"]),
        "car": (["car"], ["car"]),
        "pavement": (["pavement"], ["pavement"]),
        "road": (["road"], ["road"]),
        "sky": (["sky"], ["sky"]),
        "tree": (["vegetation"], ["tree"]),
    },
}
"""For each dataset, the classes that are compared: their classes in the dataset, and in CamVid."""


@dataclass(frozen=True)
class Options:
    """Measure the mIoU of weights trained on CamVid on streets of other cities.

    Example: python -m benchmarks.other_cities --data DATA --weights runs/camvid/best.safetensors default
    """

    data: Path
    """folder of the datasets"""
    weights: tuple[Path, ...] = (weights_file.DEFAULT,)
    """weights files; the others are compared with the first"""
    json: JsonFile = None
    device: str | None = None
    """cpu or cuda; default: a GPU if available"""


def run(options: Options) -> dict[str, Any]:
    """Evaluate all weights on all datasets."""
    rows = []
    for dataset, same in SAME_CLASSES.items():
        first = None
        for path in options.weights:
            predictor = danet.load(path, options.device)
            matrices = confusion_matrices(predictor, options.data / dataset, same)
            first = matrices if first is None else first
            iou = class_iou(matrices.sum(0))
            row = {"dataset": dataset, "weights": path.name, "sha256": predictor.card.sha256, "images": len(matrices)}
            row |= {"miou": float(iou.mean()), "iou": dict(zip(same, iou.tolist(), strict=True))}
            rows.append(row | {"first_minus_this_95": by_images([first], [matrices], mean_class_iou)})
    return {"environment": environment(resolve_device(options.device)), "rows": rows}


def confusion_matrices(
    predictor: danet.Predictor, root: Path, same: Mapping[str, tuple[Sequence[str], Sequence[str]]]
) -> np.ndarray:
    """Return the confusion matrix of each validation image, P,K+1,K+1 int64; the last class is all others.

    Args:
        predictor: a network with CamVid's classes.
        root: folder of the dataset.
        same: the K classes, as in `SAME_CLASSES`.

    Raises:
        InputError: the network lacks one of the classes.
    """
    names, their_names = predictor.classes.names, (root / "classes.txt").read_text().split()
    if missing := [name for _, ours in same.values() for name in ours if name not in names]:
        raise InputError("weights", f"have no class {missing[0]}", "use weights trained on CamVid")
    truth = np.full(256, IGNORE)
    predicted = np.full(256, len(same))
    for i, (theirs, ours) in enumerate(same.values()):
        truth[[their_names.index(name) for name in theirs]] = i
        predicted[[names.index(name) for name in ours]] = i
    matrices = []
    for image in sorted((root / "images/val").iterdir()):
        labels = np.asarray(Image.open(root / "labels/val" / f"{image.stem}.png"))
        confusion = Confusion(len(same) + 1)
        confusion.update(truth[labels], predicted[predictor(image).labels])
        matrices.append(confusion.matrix)
    return np.array(matrices)


def class_iou(matrices: np.ndarray) -> np.ndarray:
    """Return the IoU of the first K classes of confusion matrices ...,K+1,K+1; 0 if a class never occurs."""
    true = np.diagonal(matrices, axis1=-2, axis2=-1)
    return (true / np.maximum(matrices.sum(-1) + matrices.sum(-2) - true, 1))[..., :-1]


def mean_class_iou(matrices: np.ndarray, left_out: np.ndarray) -> np.ndarray:
    """Return the mean of `class_iou` over the classes that are not left out, ...,K+1 bool."""
    return class_iou(matrices).mean(-1, where=~left_out[..., :-1])


def table(result: dict[str, Any]) -> str:
    """Format the result."""
    rows = []
    for row in result["rows"]:
        low, high = (f"{100 * end:+.1f}" for end in row["first_minus_this_95"])
        classes = ", ".join(f"{name} {100 * iou:.1f}" for name, iou in row["iou"].items())
        rows.append((row["dataset"], row["weights"], f"{100 * row['miou']:.1f}", f"[{low} {high}]", classes))
    return markdown(("images", "weights", "mIoU, %", "first minus this, points [95% over images]", "IoU, %"), rows)


if __name__ == "__main__":
    sys.exit(command.main("other_cities", Options, run, table))
