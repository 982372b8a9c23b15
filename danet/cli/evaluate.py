"""The command `danet evaluate`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from danet.cli.counting import all_counted
from danet.cli.output import print_classes, progress
from danet.cli.parsing import parse
from danet.errors import InputError, print_note
from danet.files import check_outputs, write_json

if TYPE_CHECKING:
    from danet.evaluate.evaluation import Evaluation

_OUTPUTS = "json", "images", "confusion", "report"
"""Options that the command itself follows; `danet.evaluate` takes the others."""


@dataclass(frozen=True)
class Evaluate:
    """Evaluate weights on a dataset, over full images.

    Prints the IoU of each class and its mean, pixel and mean accuracy, boundary F and calibration error; for Cityscapes
    also the IoU of categories and instances.

    Examples: danet evaluate runs/folder/best.safetensors; danet evaluate --predictions DIR --root my_images;
    danet evaluate default --dataset camvid --root DIR --protocol paper-multi
    """

    weights: tyro.conf.Positional[Path | None] = None
    """a .safetensors file, an exported model (.onnx, .xml, .pte), hf://user/repo, or default for the bundled weights"""
    predictions: Path | None = None
    """score the PNG files of any tool in this folder instead of weights; they are named after the images or masks"""
    encoding: Literal["train-ids", "masks"] | None = None
    """with --predictions: whether the values are class ids (train-ids, the default), or those of the dataset's masks"""
    dataset: str | None = None
    """folder, camvid, cityscapes, voc, context, context59, coco-stuff, ade20k, toy or toy-context; default: folder, or
    without --root what the weights were trained on"""
    root: Path | None = None
    """folder of the dataset (or --data.root); default: the folder that the weights were trained on"""
    split: str | None = None
    """val, train, or another split of the dataset; default: val, or train with --fold"""
    fold: str | None = None
    """only the images on which fold I of K is validated, see danet train --fold"""
    attention: bool = False
    """also measure where attention looks, against ground truth, and what it is worth"""
    protocol: str = "whole"
    """test-time protocol: whole, paper-multi, released-single-cityscapes, released-multi-cityscapes, released-multi,
    mmseg-whole, mmseg-whole-512, mmseg-whole-512-multi, mmseg-slide-769 or mmseg-slide-769-multi"""
    size: int | None = None
    """resize images to this long side, in pixels, before the network; default: the size used in training"""
    json: Path | None = None
    """write all scores to this file as well; - prints them instead of the table"""
    images: Path | None = None
    """write the scores of each image to this CSV file"""
    confusion: Path | None = None
    """write the confusion matrix to this PNG file"""
    report: Path | None = None
    """write all results to this HTML file, with the worst and best images"""
    submit: Path | None = None
    """write submission files for the Cityscapes or VOC test server to this new folder"""
    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is about twice as fast on hardware that supports it, with nearly the same labels"""
    counts: Path | None = None
    """keep the counts of each image in this folder: the same command continues an interrupted evaluation"""
    shard: str | None = None
    """with --counts: count only part I of N; the scores are printed when all images are counted"""
    engine: Literal["local", "ray"] = "local"
    """local: this process; ray, with --counts: a Ray cluster, or all cores of this machine"""
    workers: int | None = None
    """with --engine ray: number of processes; default: all CPUs but one, or as many as the GPUs suffice for"""
    gpus_per_worker: float | None = None
    """with --engine ray: GPUs of each process, also fractions; default: 1 if the cluster has GPUs, otherwise 0"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Evaluate, args, "evaluate", aliases={"data.fold": "--fold"})
    if options.weights is None and options.predictions is None:
        what = "WEIGHTS is missing"
        raise InputError("danet evaluate", what, "specify a .safetensors file, default, or `predictions`")
    from danet.evaluate.per_image import to_csv
    from danet.evaluate.start import evaluate
    from danet.files import write_atomically
    from danet.predict.predictor import Predictor
    from danet.visualize import confusion_png

    check_outputs(options.json, options.images, options.confusion, options.report)
    if options.confusion is not None and options.confusion.suffix.lower() != ".png":
        raise InputError("confusion", f"must be a .png file, got {options.confusion}", "change the suffix")
    options = _with_data(options)
    given = {name: value for name, value in vars(options).items() if name not in _OUTPUTS}
    with progress("evaluating", None if options.counts is None else "images") as advance:
        evaluated = evaluate(**given, advance=advance)
    samples, source, result = evaluated.samples, evaluated.source, evaluated.evaluation
    if options.counts is not None:
        all_counted(evaluated.counted, len(samples))
    if result is None:
        return 0
    if str(options.json) != "-":
        _print_scores(result)
        if options.submit is not None:
            print(f"{len(samples)} files in {options.submit}")
    if options.json is not None:
        origin: dict[str, object] = {"predictions": str(options.predictions)}
        if isinstance(source, Predictor):
            origin = {"weights": str(options.weights), "sha256": source.card.sha256}
            origin |= {"protocol": options.protocol, "size": source.card.size, "dtype": options.dtype}
        origin |= {"dataset": options.dataset, "split": evaluated.split, "fold": options.fold, "images": len(samples)}
        write_json(options.json, origin | result.as_dict(), overwrite=False)
    if options.images is not None:
        write_atomically(options.images, to_csv(result.images).encode(errors="backslashreplace"), overwrite=False)
    if options.confusion is not None:
        matrix = confusion_png.confusion_png(result.confusion, samples.classes)
        write_atomically(options.confusion, matrix, overwrite=False)
    if options.report is not None:
        from danet.visualize import evaluation_page

        own = ("weights", "protocol", "dtype") if isinstance(source, Predictor) else ("predictions", "encoding")
        about = {name: str(getattr(options, name)) for name in (*own, "dataset")}
        fold = "" if options.fold is None else f", fold {options.fold}"
        about["split"] = f"{evaluated.split}{fold}"
        write_atomically(options.report, evaluation_page.page(result, source, samples, about), overwrite=False)
    return 0


def _with_data(options: Evaluate) -> Evaluate:
    """Return the options with dataset and folder filled in."""
    from danet.weights.card import missing_weights, peek, resolve

    if options.weights is None:
        return replace(options, dataset=options.dataset or "folder")
    dataset, root, weights = options.dataset, options.root, resolve(options.weights)
    if not weights.is_file():
        raise missing_weights(weights)
    card = peek(weights)
    if root is None and card is not None:
        from danet.train.trained_on import find_dataset

        dataset, root = find_dataset(weights, card, dataset)
        if root is not None:
            what = f"note: evaluating on {root}, the dataset folder of the run that made the weights"
            print_note(what)
    return replace(options, dataset=dataset or "folder", root=root)


def _print_scores(result: "Evaluation") -> None:
    scores, names = result.confusion.scores(), result.classes.names
    if not result.confusion.matrix.any():
        print(f"no scores: {len(result.images)} images have no labeled pixels")
        return
    print_classes(result.confusion, names)
    left_out = len(names) - scores.counted
    note = f" ({left_out} in neither ground truth nor prediction are excluded)" if left_out else ""
    print(f"mIoU {100 * scores.miou:.2f}% over {scores.counted} classes{note}, {len(result.images)} full images")
    print(f"pixel accuracy {100 * scores.pixel_accuracy:.2f}%, mean accuracy {100 * scores.mean_accuracy:.2f}%")
    f = " / ".join(f"{100 * value:.1f}" for value in result.boundary.scores().mean_f)
    print(f"boundary F within 1 / 2 / 3 / 4 / 5 pixels, in %: {f}")
    if result.calibration.pixels.any():
        print(f"calibration error (ECE, 15 bins): {100 * result.calibration.error:.2f}%")
    if (further := result.cityscapes_scores) is not None:
        print(", ".join(f"{name} {_percent(value)}" for name, value in further.means().items()))
    if result.attention is not None:
        print(result.attention.text())


def _percent(value: float) -> str:
    return "n/a" if value != value else f"{100 * value:.2f}%"
