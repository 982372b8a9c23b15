"""`danet evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from danet.cli.output import write_json
from danet.cli.parsing import parse

if TYPE_CHECKING:
    from danet.metrics import Scores


@dataclass(frozen=True)
class Evaluate:
    """Score weights on a data set, over full pictures: mean IoU, IoU of each class, pixel and mean accuracy."""

    weights: tyro.conf.Positional[Path]
    """a .safetensors file"""
    dataset: str = "folder"
    """camvid, folder, toy or toy-context"""
    root: Path | None = None
    """the data set's folder"""
    split: str = "val"
    """train or val"""
    json: Path | None = None
    """write the scores and the confusion matrix to this file too; - for standard output instead of the table"""
    device: str | None = None
    """cpu or cuda; a GPU if there is one"""


def run(args: Sequence[str]) -> int:
    options = parse(Evaluate, args, "evaluate")
    from danet import data
    from danet.evaluate import check_classes, evaluate
    from danet.predict import load

    samples = data.load(options.dataset, options.root, options.split)
    predictor = load(options.weights, options.device)
    check_classes(predictor.card, samples, str(options.weights))
    confusion = evaluate(lambda images: predictor.network(images).fused, predictor.card, samples, predictor.device)
    scores = confusion.scores()
    names = samples.classes.names
    if str(options.json) != "-":
        _print_scores(scores, names, len(samples))
    if options.json is not None:
        result = {
            "weights": str(options.weights),
            "sha256": predictor.card.sha256,
            "dataset": options.dataset,
            "split": options.split,
            "pictures": len(samples),
            **scores.as_dict(names),
            "confusion": confusion.matrix.tolist(),
        }
        write_json(options.json, result)
    return 0


def _print_scores(scores: "Scores", names: Sequence[str], pictures: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("class", "IoU %")
    for name, iou in zip(names, scores.iou, strict=True):
        table.add_row(name, "n/a" if iou != iou else f"{100 * iou:.2f}")
    Console().print(table)
    left_out = len(names) - scores.counted
    note = f" ({left_out} in neither ground truth nor prediction, left out)" if left_out else ""
    print(f"mIoU {100 * scores.miou:.2f} over {scores.counted} classes{note}, {pictures} full pictures")
    print(f"pixel accuracy {100 * scores.pixel_accuracy:.2f}, mean accuracy {100 * scores.mean_accuracy:.2f}")
