"""Samples -> the batches of each step, in the order that (seed, position) decides, loaded by worker processes."""

import signal
import sys
import time
from collections.abc import Generator, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from danet.data import sampler
from danet.data.augment import Augmentation
from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import InputError
from danet.recipes import Recipe
from danet.train.distributed import Process
from danet.train.quarantine import Quarantine


class Batch(NamedTuple):
    """Part of a step: the images' names, images B,H,W,N uint8 or float32, labels B,H,W int64 (255 = ignore); and what
    is wrong with the images that should have been in it.
    """

    names: list[str]
    images: Tensor
    labels: Tensor
    bad: list[InputError]


def batches(
    samples: Samples, recipe: Recipe, process: Process, first: int, steps: int, workers: int, quarantine: Quarantine
) -> Generator[Batch, None, None]:
    """This process's batches from step `first` on: `recipe.optim.accumulate` of them a step. Images that the
    quarantine takes are missing from theirs.

    Raises:
        InputError: an image or mask that cannot be read, from whichever worker met it.
    """
    parts = recipe.optim.accumulate
    positions = [
        local[part::parts]
        for step in range(first, steps)
        for local in [sampler.batch_positions(step, recipe.data.batch, process.rank, process.world)]
        for part in range(parts)
    ]
    loader = DataLoader(
        _Stream(samples, recipe),
        batch_sampler=positions,
        num_workers=workers,
        collate_fn=partial(_collate, crop=recipe.data.crop, channels=samples.bands.count),
        worker_init_fn=_leave_ends_to_the_main_process,
        pin_memory=process.device.type == "cuda",
    )
    for batch in _loaded(loader):
        for error in batch.bad:
            quarantine.note(error)
        yield batch


def _loaded(loader: DataLoader) -> Iterator[Batch]:
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # until each worker has its own handlers
    loaded = iter(loader)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    try:
        yield from loaded
    except (ConnectionError, EOFError):  # a worker was lost
        time.sleep(1)  # in which torch's handler of SIGCHLD raises a RuntimeError that says by which signal
        raise


class _Stream(Dataset):
    """The endless stream of augmented samples; an error is an item, since torch would wrap one that is raised in a
    worker.
    """

    def __init__(self, samples: Samples, recipe: Recipe):
        self.samples, self.seed = samples, recipe.seed
        chosen = recipe.data
        self.augment = Augmentation(
            chosen.crop,
            chosen.scale,
            chosen.flip,
            chosen.jitter,
            chosen.short_side,
            chosen.photometric,
            chosen.largest_share,
        )

    def __getitem__(self, position: int) -> tuple[str, np.ndarray, np.ndarray] | InputError:
        try:
            sample = self.samples[sampler.sample_index(self.seed, position, len(self.samples))]
        except InputError as error:
            return error
        return sample.name, *self.augment(sample.image, sample.labels, sampler.generator(self.seed, position))


def _collate(
    items: list[tuple[str, np.ndarray, np.ndarray] | InputError], crop: tuple[int, int], channels: int
) -> Batch:
    bad = [item for item in items if isinstance(item, InputError)]
    good = [item for item in items if not isinstance(item, InputError)]
    if not good:  # a black image that teaches nothing
        good = [("", np.zeros((*crop, channels), np.uint8), np.full(crop, IGNORE, np.uint8))]
    names, images, labels = zip(*good, strict=True)
    return Batch(list(names), torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels)).long(), bad)


def _leave_ends_to_the_main_process(_worker: int) -> None:
    """A terminal sends its signals to all of them; the main process finishes its step and then ends its workers. When
    it has lost one of them it says so itself; the others need not say that it no longer listens to them.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: signal.alarm(_SECONDS_TO_FINISH) and None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
    sys.excepthook = lambda kind, *rest: None if issubclass(kind, ConnectionError) else sys.__excepthook__(kind, *rest)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SECONDS_TO_FINISH = 20  # then SIGALRM ends a worker that nobody ended
