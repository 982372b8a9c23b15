"""The command `danet robustness`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from danet.cli.counting import all_counted
from danet.cli.output import plain, progress
from danet.cli.parsing import parse
from danet.errors import InputError
from danet.files import check_outputs, write_json

if TYPE_CHECKING:
    from danet.data.samples import Samples
    from danet.evaluate.robustness import Condition, Robustness
    from danet.predict.predictor import Predictor


@dataclass(frozen=True)
class RobustnessOptions:
    """Evaluate weights on corrupted images: noise, blur, weather and compression.

    Prints mIoU and calibration error for twelve corruptions at five severities. Several networks get the same images,
    and are compared with the first one.

    Example: danet robustness a.safetensors b.safetensors --dataset camvid --root DIR --severities 1 3 5
    """

    weights: tyro.conf.Positional[tuple[Path, ...]]
    """.safetensors files, exported models (.onnx, .xml, .pte), hf://user/repo, or default for the bundled weights"""
    dataset: str = "folder"
    """folder, camvid, cityscapes, voc, context, context59, coco-stuff, ade20k, toy or toy-context"""
    root: Path | None = None
    """folder of the dataset"""
    split: str = "val"
    """val, train, or another split of the dataset"""
    corruptions: tuple[str, ...] | None = None
    """one or more of gaussian-noise, shot-noise, impulse-noise, defocus-blur, glass-blur, motion-blur, snow, fog,
    brightness, contrast, pixelate and jpeg; default: all"""
    severities: tuple[int, ...] = (1, 2, 3, 4, 5)
    """severities from 1 to 5"""
    seed: int = 0
    """random seed of the corruptions"""
    protocol: str = "whole"
    """test-time protocol, see danet evaluate"""
    json: Path | None = None
    """write all results to this file as well; - prints them instead of the table"""
    device: str | None = None
    """cpu, cuda or mps; default: an NVIDIA GPU if there is one, otherwise the CPU"""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """bfloat16 is about twice as fast on hardware that supports it, with nearly the same labels"""
    counts: Path | None = None
    """keep the counts of each image in this folder: the same command continues an interrupted evaluation"""
    shard: str | None = None
    """with --counts: count only part I of N; the results are printed when all images are counted"""
    engine: Literal["local", "ray"] = "local"
    """with --counts: local, this process; or ray, a Ray cluster, or all cores of this machine"""
    workers: int | None = None
    """with --engine ray: number of processes; default: all CPUs but one, or as many as the GPUs suffice for"""
    gpus_per_worker: float | None = None
    """with --engine ray: GPUs of each process, also fractions; default: 1 if the cluster has GPUs, otherwise 0"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(RobustnessOptions, args, "robustness")
    from danet.data import registry
    from danet.evaluate.corruptions import CORRUPTIONS
    from danet.evaluate.counts import check_counting
    from danet.evaluate.evaluation import check_classes
    from danet.evaluate.robustness import evaluate_corrupted, list_conditions
    from danet.predict.predictor import load
    from danet.predict.protocols import find_protocol

    check_counting(options.counts, options.shard, options.engine, (options.workers, options.gpus_per_worker))
    if not options.weights:
        raise InputError("danet robustness", "no weights given", "specify a .safetensors file, or default")
    if len(set(options.weights)) != len(options.weights):
        raise InputError("weights", "a file is given twice", "list each file once")
    check_outputs(options.json)
    corruptions = tuple(CORRUPTIONS) if options.corruptions is None else options.corruptions
    conditions = list_conditions(corruptions, options.severities)
    protocol = find_protocol(options.protocol)
    samples = registry.load(options.dataset, options.root, options.split)
    networks = {str(path): load(path, options.device, options.dtype) for path in options.weights}
    for name, predictor in networks.items():
        check_classes(predictor.card, samples, name)
    if options.counts is not None:
        counted = _count(options, networks, samples, conditions)
        if counted is None:
            return 0
        results = counted
    else:
        total = len(samples) * len(conditions) * len(networks)
        with progress("evaluating") as advance:
            done = iter(range(1, total + 1))
            settings = options.seed, protocol, lambda *_: advance(next(done), total)
            results = evaluate_corrupted(networks, samples, conditions, *settings)
    if str(options.json) != "-":
        _print(results, len(samples))
    if options.json is not None:
        reference = next(iter(results.values()))
        numbers = [
            {"weights": name, "sha256": networks[name].card.sha256, **result.as_dict(reference)}
            for name, result in results.items()
        ]
        origin = {name: getattr(options, name) for name in ("dataset", "split", "protocol", "dtype", "seed")}
        origin |= {"images": len(samples), "severities": sorted({c.severity for c in conditions[1:]})}
        write_json(options.json, origin | {"networks": numbers}, overwrite=False)
    return 0


def _count(
    options: RobustnessOptions,
    networks: "dict[str, Predictor]",
    samples: "Samples",
    conditions: "Sequence[Condition]",
) -> "dict[str, Robustness] | None":
    """Count the missing images of the shard; return the results if all images are counted."""
    from danet.data import fingerprint
    from danet.evaluate.counts import Counts, missing_images, total_robustness
    from danet.evaluate.shards import Corrupted, Evaluated, count_corrupted, count_on_ray
    from danet.predict.protocols import find_protocol
    from danet.predict.ray_workers import Workers

    workers = Workers(options.workers, options.gpus_per_worker)
    about = {name: getattr(options, name) for name in ("dataset", "split", "protocol", "dtype", "seed")}
    about["weights"] = [predictor.fingerprint for predictor in networks.values()]
    about["samples"] = fingerprint.digest(samples).hex()
    about["conditions"] = [list(condition) for condition in conditions]
    counts = Counts(options.counts or Path(), about)
    missing = missing_images(counts, len(samples), options.shard)
    with progress("evaluating", "images") as advance:
        if options.engine == "ray" and missing:
            data = options.dataset, options.root, options.split, options.protocol, None, options.dtype, options.device
            each = tuple(Evaluated(path, *data) for path in options.weights)
            corrupted = Corrupted(each, tuple(conditions), options.seed)
            count_on_ray(corrupted, samples, counts, missing, workers, advance)
        elif missing:
            settings = options.seed, find_protocol(options.protocol)
            count_corrupted(networks, samples, conditions, *settings, counts, missing, advance)
    records = counts.read()
    return total_robustness(records, [*networks], samples.classes) if all_counted(len(records), len(samples)) else None


def _print(results: "dict[str, Robustness]", images: int) -> None:
    from rich.console import Console
    from rich.table import Column, Table

    from danet.evaluate.confusion import nan_mean
    from danet.evaluate.corruptions import CORRUPTIONS
    from danet.evaluate.robustness import CLEAN

    def percent(values: Sequence[float]) -> list[str]:
        return ["n/a" if value != value else f"{100 * value:.2f}" for value in values]

    networks = list(results.values())
    columns = [Column(plain(name)) for name in results]
    table = Table("mIoU, %", *columns, caption=f"{images} full images; mean over the severities")
    table.add_row("clean", *percent([network.miou(CLEAN) for network in networks]), end_section=True)
    last = networks[0].corruptions[-1]
    for name in networks[0].corruptions:
        values = percent([nan_mean(network.mious(name)) for network in networks])
        table.add_row(f"{name} ({CORRUPTIONS[name].kind})", *values, end_section=name == last)
    table.add_row("mean of the corruptions", *percent([network.mean_miou for network in networks]))
    table.add_row("  relative to clean", *percent([network.kept for network in networks]))
    table.add_row("calibration error (ECE)", *percent([network.mean_ece for network in networks]))
    if len(networks) > 1:
        table.add_row("degradation (mCD)", *percent([network.mean_degradation(networks[0]) for network in networks]))
    Console().print(table)
