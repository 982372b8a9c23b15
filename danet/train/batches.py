"""The batches of each step, loaded by worker processes in an order determined by seed and position."""

import signal
import sys
import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from danet.data import sampler
from danet.data.augment import Augmentation, paste
from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import InputError
from danet.portability import blocked_signals, end_after, unblock_signals
from danet.recipes import Recipe
from danet.train.distributed import Process
from danet.train.skipped import SkippedImages
from danet.train.user_transform import Transform, apply, check_sendable

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_TO_FINISH = 20  # after SIGTERM; then an alarm ends a worker that the main process has not ended


class Batch(NamedTuple):
    """A part of the batch of a step.

    Args:
        names: names of the images.
        images: B,H,W,N uint8 or float32.
        labels: B,H,W int64 train ids, 255 = ignore.
        errors: errors of images that could not be read and are missing from the batch.
    """

    names: list[str]
    images: Tensor
    labels: Tensor
    errors: list[InputError]


def batches(
    samples: Samples,
    recipe: Recipe,
    process: Process,
    first: int,
    steps: int,
    workers: int,
    skipped: SkippedImages,
    class_pixels: Sequence[int] = (),
    transform: Transform | None = None,
) -> Generator[Batch, None, None]:
    """Yield this process's batches from step `first` on, `recipe.optim.accumulate` per step.

    Args:
        samples: the training samples.
        recipe: for the batch, the augmentation and the seed.
        process: this process.
        first: the first step.
        steps: number of steps of the whole run.
        workers: number of processes that load images; 0: load them in this process.
        skipped: takes the images that cannot be read; they are missing from their batches.
        class_pixels: pixels of each class in the training set; needed for `recipe.data.rare`.
        transform: the user's own augmentation, applied after that of the recipe.

    Raises:
        InputError: an image or mask cannot be read and must not be skipped; a wrong result of `transform`.
    """
    if transform is not None:
        check_sendable(transform, workers)
    parts = recipe.optim.accumulate
    positions = [
        local[part::parts]
        for step in range(first, steps)
        for local in [sampler.batch_positions(step, recipe.data.batch, process.rank, process.world)]
        for part in range(parts)
    ]
    loader = DataLoader(
        _Stream(samples, recipe, class_pixels, transform),
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=partial(_collate, crop=recipe.data.crop, channels=samples.bands.count),
        worker_init_fn=_set_worker_signals,
        pin_memory=process.device.type == "cuda",
    )
    for batch in _iterate(loader):
        for error in batch.errors:
            if error.where == "transform":
                raise error
            skipped.add(error)
        yield batch


def _iterate(loader: DataLoader) -> Iterator[Batch]:
    with blocked_signals(_SIGNALS):  # until each worker has its own handlers
        loaded = iter(loader)
    try:
        yield from loaded
    except (ConnectionError, EOFError):  # a worker was lost
        time.sleep(1)  # meanwhile torch's SIGCHLD handler raises a RuntimeError that names the signal
        raise


_Item = tuple[tuple[str, np.ndarray, np.ndarray] | None, list[InputError]]
"""The name, pixels and labels of a crop, or None, and the errors of images that cannot be read."""


class _Stream(Dataset):
    """The endless stream of augmented samples.

    Errors are returned with them, because torch would wrap an exception raised in a worker.
    """

    def __init__(self, samples: Samples, recipe: Recipe, class_pixels: Sequence[int], transform: Transform | None):
        self.samples, self.seed, self.transform = samples, recipe.seed, transform
        data = recipe.data
        self.copy_paste = data.copy_paste
        assert data.size != "auto"
        shared = {name: value for name, value in vars(data).items() if name in Augmentation.__dataclass_fields__}
        long_side = data.size if data.scale_from == "size" else None
        self.augment = Augmentation(**shared, long_side=long_side, class_pixels=tuple(class_pixels))

    def __getitem__(self, position: int) -> _Item:
        errors: list[InputError] = []
        try:
            sample = self.samples[sampler.sample_index(self.seed, position, len(self.samples))]
            rng = sampler.generator(self.seed, position)
            image, labels = self.augment(sample.image, sample.labels, rng)
            if self.copy_paste and rng.random() < self.copy_paste:
                with _collected(errors):
                    other = self.samples[int(rng.integers(len(self.samples)))]
                    image, labels = paste(image, labels, self.augment(other.image, other.labels, rng), rng)
            if self.transform is not None:
                seed = sampler.transform_seed(self.seed, position)
                image, labels = apply(self.transform, image, labels, seed, len(self.samples.classes))
        except InputError as error:
            return None, [*errors, error]
        return (sample.name, image, labels), errors


@contextmanager
def _collected(errors: list[InputError]) -> Iterator[None]:
    try:
        yield
    except InputError as error:
        errors.append(error)


def _collate(items: list[_Item], crop: tuple[int, int], channels: int) -> Batch:
    errors = [error for _, own in items for error in own]
    samples = [sample for sample, _ in items if sample is not None]
    if not samples:  # a black image with all pixels ignored
        samples = [("", np.zeros((*crop, channels), np.uint8), np.full(crop, IGNORE, np.uint8))]
    names, images, labels = zip(*samples, strict=True)
    return Batch(list(names), torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long(), errors)


def _set_worker_signals(_worker: int) -> None:
    """Let the main process handle signals: a terminal sends them to the workers too.

    The main process finishes its step and then ends the workers. If it ends because one worker was lost, it reports
    this itself, and the other workers do not print that their connection is closed.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: end_after(_SECONDS_TO_FINISH))
    unblock_signals(_SIGNALS)
    sys.excepthook = lambda kind, *rest: None if issubclass(kind, ConnectionError) else sys.__excepthook__(kind, *rest)
