"""Divide the images of a split into folds, for k-fold cross-validation: each is the validation set of one run."""

import hashlib
import math
from dataclasses import replace
from itertools import chain, pairwise

from danet.data.custom.splits import copies, find_sequences
from danet.data.samples import PairedFiles, Samples
from danet.errors import InputError


def choose_fold(samples: Samples, index: int, count: int, validation: bool) -> PairedFiles:
    """Return the images on which a fold is validated, or those on which it is trained, in their order.

    Which images are in which fold depends only on their names. All folds together validate on each image once. Frames
    of one sequence stay together if the samples say so, and copies of one image that Roboflow made always do. Folds
    are as equal as these groups allow: the largest group goes first, each to the fold that has the fewest images. If
    there are fewer sequences than folds, those that are too long are cut into pieces of consecutive frames.

    Args:
        samples: the split that is divided.
        index: the fold, from 1.
        count: the number of folds.
        validation: whether the images of the fold are returned; otherwise, all others.

    Raises:
        InputError: the images are generated; there are fewer of them, or of their groups, than folds.
    """
    if not isinstance(samples, PairedFiles):
        raise InputError("data.fold", "is for images in files, and these are generated", "leave it out")
    groups = _groups(samples, count)
    if len(groups) < count:
        what = f"{len(groups)} images cannot be divided into {count} folds"
        raise InputError("data.fold", what, "use fewer folds, or add images")
    own: set[str] = set()
    sizes = [0] * count
    for names in sorted(groups, key=lambda names: (-len(names), hashlib.sha256(_bytes(min(names))).digest())):
        smallest = sizes.index(min(sizes))
        sizes[smallest] += len(names)
        if smallest == index - 1:
            own.update(names)
    return replace(samples, pairs=[pair for pair in samples.pairs if (pair.name in own) == validation])


def _groups(samples: PairedFiles, count: int) -> list[list[str]]:
    """Return the names of images that stay together."""
    names = [pair.name for pair in samples.pairs]
    if samples.by_sequence:
        sequences = [*find_sequences(names).values()]
        longest = len(names) if len(sequences) >= count else max(1, len(names) // count)
        return [piece for frames in sequences for piece in _cut(frames, longest)]
    return copies(names)


def _cut(frames: list[str], longest: int) -> list[list[str]]:
    """Divide a sequence into pieces of about equal length, of at most `longest` frames, not between copies."""
    pieces, frames_of = math.ceil(len(frames) / longest), copies(frames)
    bounds = [len(frames_of) * i // pieces for i in range(pieces + 1)]
    return [list(chain(*frames_of[start:end])) for start, end in pairwise(bounds) if start < end]


def _bytes(name: str) -> bytes:
    return name.encode(errors="surrogateescape")
