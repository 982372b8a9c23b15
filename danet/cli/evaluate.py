"""The command `danet evaluate`."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from danet.cli.counting import all_counted, missing_images
from danet.cli.output import print_classes, progress
from danet.cli.parsing import parse
from danet.errors import InputError
from danet.files import check_outputs, write_json

if TYPE_CHECKING:
    from danet.data.samples import Samples
    from danet.evaluate.evaluation import Evaluation
    from danet.predict.predictor import Predictor


@dataclass(frozen=True)
class Evaluate:
    """Evaluate weights on a dataset, over full images.

    Prints the IoU of each class and its mean, pixel and mean accuracy, boundary F and calibration error; for Cityscapes
    also the IoU of categories and instances.

    Example: danet evaluate runs/camvid/best.safetensors --dataset camvid --root DIR --protocol paper-multi
    """

    weights: tyro.conf.Positional[Path]
    """a .safetensors file, an exported model (.onnx, .xml), or default for the bundled weights"""
    dataset: str = "folder"
    """folder, camvid, cityscapes, voc, context, context59, coco-stuff, ade20k, toy or toy-context"""
    root: Path | None = None
    """folder of the dataset"""
    split: str = "val"
    """val, train, or another split of the dataset"""
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
    """cpu or cuda; default: the GPU if there is one, otherwise the CPU"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is about twice as fast on hardware that supports it, with nearly the same labels"""
    counts: Path | None = None
    """keep the counts of each image in this folder: the same command continues an interrupted evaluation"""
    shard: str | None = None
    """with --counts: count only part I of N, written I/N; the scores are printed when all images are counted"""
    engine: Literal["local", "ray"] = "local"
    """local: this process; ray, with --counts: a Ray cluster, or all cores of this machine"""
    workers: int | None = None
    """with --engine ray: number of processes; default: all CPUs but one, or as many as the GPUs suffice for"""
    gpus_per_worker: float | None = None
    """with --engine ray: GPUs of each process, also fractions; default: 1 if the cluster has GPUs, otherwise 0"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Evaluate, args, "evaluate")
    import torch

    from danet.data import registry
    from danet.evaluate.evaluation import check_classes, measure
    from danet.evaluate.per_image import to_csv
    from danet.evaluate.submission import submission
    from danet.files import write_atomically
    from danet.predict.predictor import load
    from danet.predict.protocols import find_protocol
    from danet.visualize import confusion_png

    _check_counts(options)
    check_outputs(options.json, options.images, options.confusion, options.report)
    if options.confusion is not None and options.confusion.suffix.lower() != ".png":
        raise InputError("confusion", f"must be a .png file, got {options.confusion}", "change the suffix")
    samples = registry.load(options.dataset, options.root, options.split)
    protocol = find_protocol(options.protocol)
    predictor = load(options.weights, options.device, getattr(torch, options.dtype))
    check_classes(predictor.card, samples, str(options.weights))
    if options.size is not None:
        predictor = predictor.with_size(options.size, protocol)
    if options.attention and not predictor.has_attention:
        what = f"{options.weights} has no attention modules to inspect"
        raise InputError("attention", what, "use the .safetensors weights of a DANet, or leave out `attention`")
    if options.counts is not None:
        if (counted := _count(options, predictor, samples)) is None:
            return 0
        result = counted
    else:
        files = nullcontext() if options.submit is None else submission(options.submit, options.dataset)
        with files as submitted, progress("evaluating") as advance:
            numbered = enumerate(predictor.predictions(samples, protocol), 1)
            predictions = (advance(i, len(samples)) or prediction for i, prediction in numbered)
            result = measure(
                predictions,
                samples,
                submitted,
                lambda sample: predictor.inspect_pixels(sample.name, sample.image) if options.attention else None,
            )
    if str(options.json) != "-":
        _print_scores(result)
        if options.submit is not None:
            print(f"{len(samples)} files in {options.submit}")
    if options.json is not None:
        origin = {"weights": str(options.weights), "sha256": predictor.card.sha256}
        origin |= {"protocol": options.protocol, "size": predictor.card.size, "dtype": options.dtype}
        origin |= {"dataset": options.dataset, "split": options.split, "images": len(samples)}
        write_json(options.json, origin | result.as_dict(), overwrite=False)
    if options.images is not None:
        write_atomically(options.images, to_csv(result.images).encode(errors="backslashreplace"), overwrite=False)
    if options.confusion is not None:
        matrix = confusion_png.confusion_png(result.confusion, samples.classes)
        write_atomically(options.confusion, matrix, overwrite=False)
    if options.report is not None:
        from danet.visualize import evaluation_page

        names = ("weights", "dataset", "split", "protocol", "dtype")
        about = {name: str(getattr(options, name)) for name in names}
        write_atomically(options.report, evaluation_page.page(result, predictor, samples, about), overwrite=False)
    return 0


def _check_counts(options: Evaluate) -> None:
    if options.counts is None:
        if options.shard is not None or options.engine == "ray":
            name = "engine" if options.shard is None else "shard"
            raise InputError(name, "needs a folder that keeps the counts", "add `counts`")
    elif options.attention or options.submit is not None:
        name = "attention" if options.attention else "submit"
        raise InputError(name, "is not kept in counts", "leave it out, or leave out `counts`")
    if options.engine == "local" and (options.workers is not None or options.gpus_per_worker is not None):
        name = "gpus_per_worker" if options.workers is None else "workers"
        raise InputError(name, "is for the engine ray", "add `engine` ray, or leave it out")


def _count(options: Evaluate, predictor: "Predictor", samples: "Samples") -> "Evaluation | None":
    """Count the missing images of the shard; return the scores if all images are counted."""
    from danet.evaluate.counts import Counts, total_evaluation
    from danet.evaluate.shards import Evaluated, count_here, count_on_ray
    from danet.predict.protocols import find_protocol
    from danet.predict.ray_workers import Workers

    workers = Workers(options.workers, options.gpus_per_worker)
    evaluated = Evaluated(**{name: getattr(options, name) for name in Evaluated.__dataclass_fields__})
    counts = Counts(options.counts or Path(), evaluated.about(predictor, samples))
    missing = missing_images(counts, len(samples), options.shard)
    with progress("evaluating", "images") as advance:
        if options.engine == "ray" and missing:
            count_on_ray(evaluated, samples, counts, missing, workers, advance)
        else:
            count_here(predictor, samples, find_protocol(options.protocol), counts, missing, advance)
    records = counts.read()
    return total_evaluation(records, samples.classes) if all_counted(records, len(samples)) else None


def _print_scores(result: "Evaluation") -> None:
    scores, names = result.confusion.scores(), result.classes.names
    if not result.confusion.matrix.any():
        print(f"no scores: {len(result.images)} images have no labeled pixels")
        return
    print_classes(result.confusion, names)
    left_out = len(names) - scores.counted
    note = f" ({left_out} in neither ground truth nor prediction are excluded)" if left_out else ""
    print(f"mIoU {100 * scores.miou:.2f} over {scores.counted} classes{note}, {len(result.images)} full images")
    print(f"pixel accuracy {100 * scores.pixel_accuracy:.2f}, mean accuracy {100 * scores.mean_accuracy:.2f}")
    f = " / ".join(f"{100 * value:.1f}" for value in result.boundary.scores().mean_f)
    print(f"boundary F within 1 / 2 / 3 / 4 / 5 pixels: {f}")
    print(f"calibration error (ECE, 15 bins): {100 * result.calibration.error:.2f}")
    if (further := result.cityscapes_scores) is not None:
        print(", ".join(f"{name} {_percent(value)}" for name, value in further.means().items()))
    if result.attention is not None:
        print(result.attention.text())


def _percent(value: float) -> str:
    return "n/a" if value != value else f"{100 * value:.2f}"
