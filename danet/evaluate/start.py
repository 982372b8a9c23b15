"""Evaluate weights on a dataset. In Python `danet.evaluate(...)`; command: `danet evaluate`."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from danet.data import registry
from danet.data.folds import choose_fold
from danet.data.samples import Sample, Samples
from danet.errors import InputError, print_note
from danet.evaluate.counts import Counts, check_counting, missing_images, total_evaluation
from danet.evaluate.evaluation import Evaluation, check_classes, measure
from danet.evaluate.per_image import ImageScores
from danet.evaluate.predicted_files import PredictedFiles
from danet.evaluate.shards import Evaluated, count_here, count_on_ray
from danet.evaluate.submission import submission
from danet.predict.predictor import Predictor, load
from danet.predict.protocols import find_protocol
from danet.predict.ray_workers import Workers
from danet.predict.segmentation import Prediction
from danet.recipes import parse_fold
from danet.weights.card import Card

if TYPE_CHECKING:
    from danet.predict.attention import Inspection


@dataclass(frozen=True)
class EvaluationResult:
    """The scores of weights, or of predictions in files, on a dataset.

    Args:
        samples: the images and their labels.
        source: the network, or the files.
        evaluation: all metrics; None if images of other shards are not counted yet.
        counted: number of images that are counted.
        split: of the dataset.
    """

    samples: Samples
    source: Predictor | PredictedFiles
    evaluation: Evaluation | None
    counted: int
    split: str

    def __repr__(self) -> str:
        scores = f"mIoU {self.miou:.1%}" if self.evaluation is not None else f"{self.counted} counted"
        return f"EvaluationResult({scores}, {len(self.samples)} images)"

    @property
    def miou(self) -> float:
        """Mean IoU over full images, in [0, 1]; NaN without labeled pixels."""
        return self._complete.confusion.scores().miou

    @property
    def iou(self) -> dict[str, float]:
        """IoU of each class, in [0, 1]; NaN for a class in neither labels nor predictions."""
        iou = self._complete.confusion.scores().iou.tolist()
        return dict(zip(self.samples.classes.names, iou, strict=True))

    @property
    def images(self) -> list[ImageScores]:
        """The scores of each image."""
        return self._complete.images

    def as_dict(self) -> dict[str, Any]:
        """Return all scores but those of single images as JSON values; NaN becomes None."""
        return self._complete.as_dict()

    @property
    def _complete(self) -> Evaluation:
        if self.evaluation is None:
            what = f"{self.counted} of {len(self.samples)} images are counted"
            raise InputError("counts", what, "evaluate the other shards first")
        return self.evaluation


def evaluate(
    weights: Path | str | None = None,
    root: Path | str | None = None,
    *,
    predictions: Path | str | None = None,
    encoding: str | None = None,
    dataset: str = "folder",
    split: str | None = None,
    fold: str | None = None,
    attention: bool = False,
    protocol: str = "whole",
    size: int | None = None,
    submit: Path | str | None = None,
    device: str | None = None,
    dtype: str = "float32",
    counts: Path | str | None = None,
    shard: str | None = None,
    engine: str = "local",
    workers: int | None = None,
    gpus_per_worker: float | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> EvaluationResult:
    """Evaluate weights on a dataset, over full images, or predictions of any tool.

    Args:
        weights: a .safetensors file or an exported model; None or "default": the bundled weights.
        root: the folder of the dataset.
        predictions: evaluate the PNG files in this folder instead of weights; their names: `PredictedFiles.find`.
        encoding: of these files: "train-ids" (None) or "masks", see `danet.evaluate.predicted_files.ENCODINGS`.
        dataset: its name, a key of `danet.data.registry.DATASETS`; "folder" is your own.
        split: "val", "train", or another split; None: "val", or "train" with `fold`.
        fold: "I/K": only the images on which fold I of K is validated, see `danet.data.folds`.
        attention: also measure where attention looks, and what it is worth; only with the protocol "whole" in float32.
        protocol: the name of a test-time protocol.
        size: resize images to this long side before the network; None: the size used in training.
        submit: write files for the test server of Cityscapes or VOC to this new folder.
        device: "cpu", "cuda" or "cuda:1"; None: a GPU if there is one.
        dtype: "float32" or "bfloat16".
        counts: keep the counts of each image in this folder; the same call continues an interrupted evaluation.
        shard: with `counts`, count only part I of N, "I/N".
        engine: "local", or "ray" with `counts`.
        workers: number of processes, with the engine "ray".
        gpus_per_worker: GPUs of each process, with the engine "ray".
        advance: called with (images done, total).

    Raises:
        InputError: missing or damaged files, weights of other classes than the dataset's, an invalid option.
    """
    _check_counts(counts, shard, engine, attention, submit, (workers, gpus_per_worker))
    _check_inspected(attention, protocol, dtype)
    split = split or ("val" if fold is None else "train")
    evaluated = Evaluated(
        _path(weights), dataset, None if root is None else Path(root), split, protocol, size, dtype, device
    )
    samples = _select(evaluated, fold, engine)
    if predictions is not None:
        _check_predicted(evaluated, weights, attention, counts)
        found = PredictedFiles.find(Path(predictions), samples, encoding or "train-ids")
        result = _measure(_counted(found.predictions(), len(samples), advance), samples, submit, dataset)
        return EvaluationResult(samples, found, result, len(samples), split)
    if encoding is not None:
        raise InputError("encoding", "is that of the files of `predictions`", "add `predictions`, or leave it out")
    predictor = _load(evaluated, samples, attention, fold)
    if counts is not None:
        return _count(
            evaluated, predictor, samples, Path(counts), shard, engine, Workers(workers, gpus_per_worker), advance
        )
    predicted = _counted(predictor.predictions(samples, find_protocol(protocol)), len(samples), advance)
    inspect = partial(_inspect, predictor) if attention else _no_inspection
    result = _measure(predicted, samples, submit, dataset, inspect)
    return EvaluationResult(samples, predictor, result, len(samples), split)


def _path(weights: Any) -> Path:
    if isinstance(weights, Predictor):
        raise InputError("weights", "is a Predictor, not a file", "specify the weights file from which it was loaded")
    return Path(weights or "default")


def _select(evaluated: Evaluated, fold: str | None, engine: str) -> Samples:
    """Return the samples of the split, or those of the fold in it."""
    if fold is not None and engine == "ray":
        raise InputError("fold", "is for the local engine", "leave out `engine`")
    numbers = None if fold is None else parse_fold(fold)
    samples = registry.load(evaluated.dataset, evaluated.root, evaluated.split)
    return samples if numbers is None else choose_fold(samples, *numbers, validation=True)


def _note_training_images(card: Card, evaluated: Evaluated, fold: str) -> None:
    """Print a note if weights were probably trained on the images of the fold, by their card."""
    data = card.recipe.get("data")
    if not isinstance(data, Mapping) or data.get("dataset") != evaluated.dataset or data.get("fold") == fold:
        return
    own = f"for fold {data['fold']}" if data.get("fold") else "without folds"
    what = f"was trained {own}, so its scores on the images of fold {fold} are too high if it was trained on them"
    print_note(f"note: {evaluated.weights} {what}; evaluate the weights that were trained with `data.fold` {fold}")


def _no_inspection(_: Sample) -> None:
    """Inspect nothing."""


def _measure(
    predictions: Iterable[Prediction],
    samples: Samples,
    submit: Path | str | None,
    dataset: str,
    inspect: "Callable[[Sample], Inspection | None]" = _no_inspection,
) -> Evaluation:
    """Compute all metrics, and write the files of a submission if there is one."""
    with nullcontext() if submit is None else submission(Path(submit), dataset) as submitted:
        return measure(predictions, samples, submitted, inspect)


def _count(
    evaluated: Evaluated,
    predictor: Predictor,
    samples: Samples,
    folder: Path,
    shard: str | None,
    engine: str,
    workers: Workers,
    advance: Callable[[int, int], None],
) -> EvaluationResult:
    """Count the missing images of the shard; the result has scores if all images are counted."""
    counts = Counts(folder, evaluated.about(predictor, samples))
    if missing := missing_images(counts, len(samples), shard):
        if engine == "ray":
            count_on_ray(evaluated, samples, counts, missing, workers, advance)
        else:
            count_here(predictor, samples, find_protocol(evaluated.protocol), counts, missing, advance)
    records = counts.read()
    total = total_evaluation(records, samples.classes) if len(records) == len(samples) else None
    return EvaluationResult(samples, predictor, total, len(records), evaluated.split)


def _load(evaluated: Evaluated, samples: Samples, attention: bool, fold: str | None) -> Predictor:
    """Load the weights and check that they fit the dataset and what is to be measured."""
    protocol = find_protocol(evaluated.protocol)
    predictor = load(evaluated.weights, evaluated.device, evaluated.dtype)
    check_classes(predictor.card, samples, str(evaluated.weights))
    if attention and not predictor.has_attention:
        what = f"{evaluated.weights} has no attention modules to inspect"
        raise InputError("attention", what, "use the .safetensors weights of a DANet, or leave out `attention`")
    if fold is not None:
        _note_training_images(predictor.card, evaluated, fold)
    return predictor if evaluated.size is None else predictor.with_size(evaluated.size, protocol)


def _counted(
    predictions: Iterable[Prediction], total: int, advance: Callable[[int, int], None]
) -> Iterator[Prediction]:
    for done, prediction in enumerate(predictions, 1):
        advance(done, total)
        yield prediction


def _check_predicted(evaluated: Evaluated, weights: object, attention: bool, counts: object) -> None:
    """Check that nothing is asked for that predictions in files do not have."""
    others = {"weights": weights, "attention": attention, "size": evaluated.size, "counts": counts}
    others |= {"protocol": evaluated.protocol != "whole", "device": evaluated.device}
    others["dtype"] = evaluated.dtype != "float32"
    for name, value in others.items():
        if value:
            what = "is for weights, not for predictions in files"
            raise InputError(name, what, "leave it out, or leave out `predictions`")


def _check_inspected(attention: bool, protocol: str, dtype: str) -> None:
    """Check that attention is measured on the network that predicts: on whole images, in float32."""
    for name, value, only in (("protocol", protocol, "whole"), ("dtype", dtype, "float32")):
        if attention and value != only:
            raise InputError("attention", f"is measured with the {name} {only!r} only", f"leave out `{name}`")


def _inspect(predictor: Predictor, sample: Sample) -> "Inspection":
    return predictor.inspect_pixels(sample.name, sample.image)


def _check_counts(
    counts: Path | str | None,
    shard: str | None,
    engine: str,
    attention: bool,
    submit: Path | str | None,
    ray_options: tuple[int | None, float | None],
) -> None:
    check_counting(counts, shard, engine, ray_options)
    if counts is not None and (attention or submit is not None):
        name = "attention" if attention else "submit"
        raise InputError(name, "is not kept in counts", "leave it out, or leave out `counts`")
