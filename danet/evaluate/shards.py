"""Evaluate the images of a shard that are not counted yet, in this process or on a Ray cluster."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from danet.data import fingerprint, registry
from danet.data.samples import Samples
from danet.errors import InputError
from danet.evaluate import cityscapes
from danet.evaluate.counts import Counts, evaluation_record, robustness_record
from danet.evaluate.evaluation import Evaluation
from danet.evaluate.robustness import Condition, evaluate_corrupted
from danet.predict import ray_workers
from danet.predict.predictor import Predictor, load
from danet.predict.protocols import Protocol, find_protocol
from danet.predict.ray_workers import FinishedAlone, Workers

_BUNDLE = 16  # images that a worker gets at once; fewer if each worker would get less than four times

Advance = Callable[[int, int], None]


@dataclass(frozen=True)
class Evaluated:
    """What is evaluated, as workers on other machines load it.

    Args:
        weights: see `load`.
        dataset: see `registry.load`.
        root: see `registry.load`.
        split: see `registry.load`.
        protocol: the name of the protocol.
        size: see `Predictor.with_size`; None: the size in the card.
        dtype: "float32" or "bfloat16".
        device: "cpu" or "cuda"; None: a GPU if there is one.
    """

    weights: Path
    dataset: str
    root: Path | None
    split: str
    protocol: str
    size: int | None
    dtype: str
    device: str | None

    def about(self, predictor: Predictor, samples: Samples) -> dict[str, Any]:
        """Return what the counts depend on."""
        names = ("dataset", "split", "protocol", "dtype")
        chosen = {name: getattr(self, name) for name in names} | {"size": predictor.card.size}
        return {"weights": predictor.fingerprint, "samples": fingerprint.digest(samples).hex(), **chosen}


@dataclass(frozen=True)
class Corrupted:
    """What is evaluated on corrupted images, as workers on other machines load it.

    Args:
        networks: one or more, with the same dataset and protocol.
        conditions: see `list_conditions`.
        seed: of the corruptions.
    """

    networks: tuple[Evaluated, ...]
    conditions: tuple[Condition, ...]
    seed: int


def count_here(
    predictor: Predictor, samples: Samples, protocol: Protocol, counts: Counts, indices: Sequence[int], advance: Advance
) -> None:
    """Count images in this process.

    Args:
        predictor: the network.
        samples: the dataset.
        protocol: scales, windows and averaging.
        counts: keeps the counts.
        indices: of the images.
        advance: called with (images done, total).

    Raises:
        InputError: an image cannot be read.
    """
    _count(_Counter(predictor, samples, protocol), counts, indices, advance)


def count_on_ray(
    evaluated: Evaluated | Corrupted,
    samples: Samples,
    counts: Counts,
    indices: Sequence[int],
    workers: Workers,
    advance: Advance,
) -> None:
    """Count images on a Ray cluster, whose machines must all see the dataset.

    Args:
        evaluated: what is evaluated.
        samples: the dataset.
        counts: keeps the counts.
        indices: of the images.
        workers: how many, and on what.
        advance: called with (images done, total).

    Raises:
        InputError: Ray is not installed; an image cannot be read, or kills its workers.
    """
    done = 0
    with ray_workers.cluster(workers) as resources, counts.adding() as add:
        load_counter = _load if isinstance(evaluated, Evaluated) else _load_corrupted
        start = partial(load_counter, evaluated, "cuda" if resources[2] else "cpu", fingerprint.digest(samples))
        size = max(1, min(_BUNDLE, len(indices) // (4 * resources[0])))
        bundles = [indices[i : i + size] for i in range(0, len(indices), size)]
        for event in ray_workers.process(start, bundles, resources, lambda items: items):
            if isinstance(event, FinishedAlone):
                if event.result is None:
                    what = f"image {event.item} of the dataset killed {ray_workers.KILLS} workers"
                    raise InputError(samples[event.item].name, what, "check the image, or give the workers more memory")
                pairs = [(event.item, event.result)]
            else:
                pairs = zip(event.items, event.result, strict=True)
            for index, record in pairs:
                add(index, record)
                done += 1
                advance(done, len(indices))


def count_corrupted(
    networks: Mapping[str, Predictor],
    samples: Samples,
    conditions: Sequence[Condition],
    seed: int,
    protocol: Protocol,
    counts: Counts,
    indices: Sequence[int],
    advance: Advance,
) -> None:
    """Count corrupted images; arguments as in `evaluate_corrupted` and `count_here`.

    Raises:
        InputError: see `evaluate_corrupted`.
    """
    _count(_CorruptedCounter(networks, samples, conditions, seed, protocol), counts, indices, advance)


def _count(counter: "_Counter | _CorruptedCounter", counts: Counts, indices: Sequence[int], advance: Advance) -> None:
    with counts.adding() as add:
        for done, index in enumerate(indices, 1):
            add(index, counter.alone(index))
            advance(done, len(indices))


class _Counter:
    """Counts images, in this process or as a worker."""

    def __init__(self, predictor: Predictor, samples: Samples, protocol: Protocol):
        self._predictor, self._samples, self._protocol = predictor, samples, protocol
        self._instances = cityscapes.instance_files(samples)

    def many(self, items: Sequence[int]) -> list[dict[str, Any]]:
        """Return the record of each image."""
        return [self.alone(item) for item in items]

    def alone(self, item: int) -> dict[str, Any]:
        """Return the record of an image."""
        (prediction,) = self._predictor.predictions(self._samples, self._protocol, [item])
        name, size = prediction.sample.name, prediction.labels.shape
        one = Evaluation(self._samples.classes)
        one.update(prediction, cityscapes.read_instances(self._instances[name], size) if self._instances else None)
        return evaluation_record(one)


class _CorruptedCounter:
    """Counts corrupted images, in this process or as a worker; arguments as in `evaluate_corrupted`."""

    def __init__(
        self,
        networks: Mapping[str, Predictor],
        samples: Samples,
        conditions: Sequence[Condition],
        seed: int,
        protocol: Protocol,
    ):
        self._given = networks, samples, conditions, seed, protocol

    def many(self, items: Sequence[int]) -> list[list[Any]]:
        """Return the record of each image."""
        return [self.alone(item) for item in items]

    def alone(self, item: int) -> list[Any]:
        """Return the record of an image."""
        return robustness_record(evaluate_corrupted(*self._given, indices=[item]))


def _load(evaluated: Evaluated, device: str, digest: bytes) -> _Counter:
    """Load what a worker needs.

    Raises:
        InputError: the dataset is not the same on its machine.
    """
    samples, protocol = _load_samples(evaluated, digest), find_protocol(evaluated.protocol)
    predictor = load(evaluated.weights, device, evaluated.dtype)
    if evaluated.size is not None:
        predictor = predictor.with_size(evaluated.size, protocol)
    return _Counter(predictor, samples, protocol)


def _load_corrupted(corrupted: Corrupted, device: str, digest: bytes) -> _CorruptedCounter:
    """Load what a worker needs; errors as in `_load`."""
    first = corrupted.networks[0]
    samples = _load_samples(first, digest)
    networks = {str(own.weights): load(own.weights, device, own.dtype) for own in corrupted.networks}
    return _CorruptedCounter(networks, samples, corrupted.conditions, corrupted.seed, find_protocol(first.protocol))


def _load_samples(evaluated: Evaluated, digest: bytes) -> Samples:
    samples = registry.load(evaluated.dataset, evaluated.root, evaluated.split)
    if fingerprint.digest(samples) != digest:
        raise InputError("root", "has other samples on the machine of a worker", "copy the same files to all machines")
    return samples
