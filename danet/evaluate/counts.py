"""Counts of single images, kept in a folder: an interrupted evaluation continues, and shards add up.

Each process appends a line of JSON for each image to a file of its own. A kill costs at most the image in progress.
Counts are integers, and sums of floats are added in the order of the images, so the result is that of one process.
"""

import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from danet.data.classes import Classes
from danet.errors import InputError
from danet.evaluate import cityscapes
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import Evaluation
from danet.evaluate.per_image import ImageScores
from danet.evaluate.robustness import Condition, Robustness
from danet.files import check_writable, is_incomplete, make_folder, read_limited, write_json
from danet.predict.manifest import ALL, Share

ABOUT = "about.json"

_BYTES = 16 << 30


def check_counting(
    counts: Path | str | None, shard: str | None, engine: str, ray_options: tuple[int | None, float | None]
) -> None:
    """Check that the options of counting fit together.

    Args:
        counts: the folder, if any.
        shard: "I/N" or None.
        engine: "local" or "ray".
        ray_options: workers and GPUs per worker.

    Raises:
        InputError: they do not.
    """
    if counts is None and (shard is not None or engine == "ray"):
        name = "engine" if shard is None else "shard"
        raise InputError(name, "needs a folder that keeps the counts", "add `counts`")
    if engine == "local" and ray_options != (None, None):
        name = "gpus_per_worker" if ray_options[0] is None else "workers"
        raise InputError(name, "is for the engine ray", "add `engine` ray, or leave it out")


class Adder(Protocol):
    """Keeps the counts of an image."""

    def __call__(self, index: int, record: Any) -> None:
        """Keep the record of the image with this index."""
        ...


class Counts:
    """The folder of the counts of an evaluation.

    Args:
        folder: it is created if it does not exist.
        about: what the counts depend on: weights, data, protocol.

    Raises:
        InputError: the folder has other files, or the counts of another evaluation; it cannot be written to.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        self.folder = folder
        check_writable(folder)
        make_folder(folder)
        if not (folder / ABOUT).exists():
            self._begin(about)
        try:
            stored = json.loads(read_limited(folder / ABOUT))
            differing = [
                f"{key} {stored.get(key)}, now {value}" for key, value in about.items() if stored[key] != value
            ]
        except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
            raise InputError(
                folder / ABOUT, "was not written by danet", "choose another folder for `counts`"
            ) from error
        if differing:
            what = f"has the counts of another evaluation ({'; '.join(differing)})"
            raise InputError(folder, what, "choose another folder for `counts`")

    def _begin(self, about: Mapping[str, Any]) -> None:
        """Write what the counts depend on; another shard may do the same meanwhile."""
        others = [path for path in self.folder.iterdir() if not is_incomplete(path)]
        if others and not (self.folder / ABOUT).exists():
            raise InputError(self.folder, f"is not empty, and has no {ABOUT}", "choose another folder for `counts`")
        try:
            write_json(self.folder / ABOUT, dict(about), overwrite=False)
        except InputError:
            if not (self.folder / ABOUT).exists():
                raise

    def read(self) -> dict[int, Any]:
        """Return the records by index. An incomplete last line of a killed process is left out.

        Raises:
            InputError: a file cannot be read.
        """
        records: dict[int, Any] = {}
        for file in sorted(self.folder.glob("*.jsonl")):
            try:
                lines = read_limited(file, _BYTES).split(b"\n")[:-1]
                for line in lines:
                    index, record = json.loads(line)
                    records.setdefault(int(index), record)
            except (OSError, ValueError, TypeError) as error:
                raise InputError(file, "is not a file of counts", "delete it; its images are counted again") from error
        return records

    @contextmanager
    def adding(self) -> Iterator[Adder]:
        """Yield a function that keeps a record; it is on the disk when the function returns."""
        file = self.folder / f"{secrets.token_hex(8)}.jsonl"
        with open(file, "xb") as stream:

            def add(index: int, record: Any) -> None:
                stream.write(json.dumps([index, record]).encode() + b"\n")
                stream.flush()
                os.fsync(stream.fileno())

            try:
                yield add
            finally:
                empty = not stream.tell()
                stream.close()
                if empty:  # Windows removes closed files only
                    file.unlink()


def missing_images(counts: Counts, total: int, shard: str | None) -> list[int]:
    """Return the indices of the images of a shard, "I/N" or None for all, that are not counted.

    Raises:
        InputError: an invalid shard; the counts cannot be read.
    """
    share, known = ALL if shard is None else Share.parse(shard), counts.read()
    return [index for index in range(share.number - 1, total, share.count) if index not in known]


def evaluation_record(image: Evaluation) -> dict[str, Any]:
    """Return the evaluation of a single image as JSON values."""
    record: dict[str, Any] = {
        "name": image.images[0].name,
        "confusion": _sparse(image.confusion.matrix),
        "predicted": _sparse(image.boundary.predicted),
        "labeled": _sparse(image.boundary.labeled),
        "calibration": _calibration_record(image.calibration),
    }
    if image.instances is not None:
        record["instances"] = {name: values.tolist() for name, values in vars(image.instances).items()}
    return record


def total_evaluation(records: Mapping[int, Any], classes: Classes) -> Evaluation:
    """Return the evaluation of all images, added in their order."""
    total = Evaluation(classes)
    for _, record in sorted(records.items()):
        one = Evaluation(classes)
        one.confusion.matrix = _dense(record["confusion"], one.confusion.matrix)
        one.boundary.predicted = _dense(record["predicted"], one.boundary.predicted)
        one.boundary.labeled = _dense(record["labeled"], one.boundary.labeled)
        one.calibration = _calibration(record["calibration"])
        one.images = [ImageScores.of(record["name"], one.confusion, classes.names)]
        if "instances" in record:
            kept = {name: np.array(values) for name, values in record["instances"].items()}
            one.instances = cityscapes.Instances(**kept)
        total.merge(one)
    return total


def robustness_record(image: Mapping[str, Robustness]) -> list[Any]:
    """Return the results of a single image as JSON values: for each network, a list of its conditions."""
    return [
        [
            [
                *condition,
                _sparse(result.confusion[condition].matrix),
                _calibration_record(result.calibration[condition]),
            ]
            for condition in result.confusion
        ]
        for result in image.values()
    ]


def total_robustness(records: Mapping[int, Any], names: Sequence[str], classes: Classes) -> dict[str, Robustness]:
    """Return the results of all images for each network, added in their order."""
    totals = {name: Robustness(classes) for name in names}
    for _, record in sorted(records.items()):
        for total, conditions in zip(totals.values(), record, strict=True):
            for corruption, severity, matrix, calibration in conditions:
                condition = Condition(corruption, severity)
                confusion = total.confusion.setdefault(condition, Confusion(len(classes)))
                confusion.matrix += _dense(matrix, confusion.matrix)
                total.calibration.setdefault(condition, Calibration()).merge(_calibration(calibration))
    return totals


def _sparse(values: np.ndarray) -> list[list[int]]:
    """Return the positions and values that are not 0."""
    at = np.flatnonzero(values)
    return [at.tolist(), values.ravel()[at].tolist()]


def _dense(sparse: Sequence[Sequence[int]], like: np.ndarray) -> np.ndarray:
    values = np.zeros_like(like)
    values.ravel()[sparse[0]] = sparse[1]
    return values


def _calibration_record(calibration: Calibration) -> list[list[float]]:
    return [values.tolist() for values in (calibration.pixels, calibration.correct, calibration.confidence)]


def _calibration(record: Sequence[Sequence[float]]) -> Calibration:
    pixels, correct, confidence = record
    return Calibration(np.array(pixels, np.int64), np.array(correct, np.int64), np.array(confidence, np.float64))
