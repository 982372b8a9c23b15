"""Which sample comes n-th, and what happens to it: pure functions of (seed, n).

Samples form one endless stream: position n belongs to epoch n // size, and each epoch is a permutation of its own, so
that every sample comes once an epoch whatever the batch size, the number of processes or of workers, and wherever a run
was interrupted.
"""

from functools import lru_cache

import numpy as np


def sample_index(seed: int, position: int, size: int) -> int:
    """The sample at this position of the stream, in [0, size)."""
    epoch, place = divmod(position, size)
    return int(_permutation(seed, epoch, size)[place])


def generator(seed: int, position: int) -> np.random.Generator:
    """The random numbers of the augmentation at this position of the stream."""
    return np.random.Generator(np.random.PCG64((seed, _AUGMENT, position)))


def batch_positions(step: int, batch: int, rank: int, world: int) -> list[int]:
    """The positions that process `rank` of `world` computes in a step of `batch` samples: every world-th."""
    return list(range(step * batch + rank, (step + 1) * batch, world))


_SHUFFLE, _AUGMENT = 0, 1  # so that the two uses of a seed share no numbers


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64((seed, _SHUFFLE, epoch))).permutation(size)
