"""The order of the training samples and the random numbers of their augmentation: pure functions of (seed, position).

Samples form one endless stream. Position n belongs to epoch n // size, and each epoch is a permutation of its own.
So each sample occurs once per epoch, whatever the batch size, the number of processes or workers, and interruptions.
"""

from functools import lru_cache

import numpy as np

_SHUFFLE, _AUGMENT, _TRANSFORM = 0, 1, 2  # separate the uses of a seed


def sample_index(seed: int, position: int, size: int) -> int:
    """Return the index, in [0, size), of the sample at a position of the stream."""
    epoch, place = divmod(position, size)
    return int(_permutation(seed, epoch, size)[place])


def generator(seed: int, position: int) -> np.random.Generator:
    """Return the random generator for the augmentation at a position of the stream."""
    return np.random.Generator(np.random.PCG64((seed, _AUGMENT, position)))


def transform_seed(seed: int, position: int) -> int:
    """Return the seed, in [0, 2^63), of a user's own augmentation at a position of the stream."""
    return int(np.random.SeedSequence((seed, _TRANSFORM, position)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def batch_positions(step: int, batch: int, rank: int, world: int) -> list[int]:
    """Return the positions that process `rank` of `world` computes in a step of `batch` samples."""
    return list(range(step * batch + rank, (step + 1) * batch, world))


@lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, size: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64((seed, _SHUFFLE, epoch))).permutation(size)
