"""A cache of decoded samples, memory-mapped so that training reads only the crop it needs.

Command: danet train RECIPE --cache DIR. Each sample has one file for the image and one for the labels, named by a hash
of the source files and their modification times, so that a changed image is decoded again. Files are written
atomically; any number of processes may fill a cache together.
"""

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from danet.data.classes import Classes
from danet.data.images.channels import Bands
from danet.data.images.read import image_size
from danet.data.samples import Pair, PairedFiles, Sample, Samples
from danet.errors import InputError
from danet.files import atomic_path, check_writable, make_folder, remove_incomplete

OnError = Callable[[InputError], None] | None
"""Called for each sample that cannot be read, which is then skipped. None: raise the error."""


@dataclass(frozen=True)
class CachedSamples:
    """`Samples` stored in `folder` when first read; after that, images and labels are read-only maps of its files."""

    samples: PairedFiles
    folder: Path

    @property
    def classes(self) -> Classes:
        """The classes of the labels."""
        return self.samples.classes

    @property
    def bands(self) -> Bands:
        """How the images are read."""
        return self.samples.bands

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, labels = self.files(index)
        try:
            return Sample(self.samples.pairs[index].name, _map(image), _map(labels))
        except (OSError, ValueError, EOFError):  # not cached yet, or damaged
            sample = self.samples[index]
            _write(image, sample.image)
            _write(labels, sample.labels)
            return sample

    def labels(self, index: int) -> np.ndarray:
        """Return the H,W uint8 train ids of a sample."""
        return self.samples.labels(index)

    def files(self, index: int) -> tuple[Path, Path]:
        """Return the cache files of a sample's image and labels, which need not exist yet."""
        key = _key(self.samples, self.samples.pairs[index])
        return self.folder / f"{key}-image.npy", self.folder / f"{key}-labels.npy"


def open_cache(samples: Samples, folder: Path, on_error: OnError = None) -> CachedSamples:
    """Return samples with a cache in `folder`, and create the folder; arguments and errors as in `plan_cache`."""
    cache = plan_cache(samples, folder, on_error)
    make_folder(folder)
    remove_incomplete(folder)
    return cache


def plan_cache(samples: Samples, folder: Path, on_error: OnError = None) -> CachedSamples:
    """Return samples with a cache in `folder` without creating the folder, and check that the disk has enough space.

    Args:
        samples: samples read from files.
        folder: the folder of the cache.
        on_error: see `OnError`.

    Raises:
        InputError: the samples are synthetic; the folder cannot be written to; the disk is too full; without
            `on_error`, a sample cannot be read.
    """
    if not isinstance(samples, PairedFiles):
        raise InputError("cache", "synthetic scenes are not read from files", "leave it out")
    disk = check_writable(folder)
    cache = CachedSamples(samples, folder)
    missing, free = space_needed(cache, on_error)[1], shutil.disk_usage(disk).free
    if free < missing:
        what = f"needs {missing / 1e9:.1f} GB more, but {free / 1e9:.1f} GB are free"
        raise InputError(folder, what, "set `cache` to a folder on another disk, or leave it out")
    return cache


def space_needed(cache: CachedSamples, on_error: OnError = None) -> tuple[int, int]:
    """Return the size of the complete cache in bytes, and how much of it is still missing.

    Sizes are computed from the headers of the images; all images are assumed to have the depth of the first.

    Args:
        cache: the cache.
        on_error: see `OnError`.
    """
    depth = total = missing = 0
    for index, pair in enumerate(cache.samples.pairs):
        try:
            depth = depth or cache.samples[index].image.itemsize
            height, width = image_size(pair.image, cache.bands, cache.samples.upright)
            exists = all(file.exists() for file in cache.files(index))
        except InputError as error:
            if on_error is None:
                raise
            on_error(error)
            continue
        size = height * width * (cache.bands.count * depth + 1)
        total += size
        missing += 0 if exists else size
    return total, missing


def _key(samples: PairedFiles, pair: Pair) -> str:
    states = [_state(file) for file in (pair.image, pair.mask)]
    source = states, sorted(samples.label_map.mapping.items()), samples.bands, samples.classes.palette
    if colors := getattr(samples.read_mask, "keywords", None):  # a class may have several colors
        source = (*source, colors)
    if not samples.upright:
        source = (*source, "stored orientation")
    return hashlib.sha256(repr(source).encode(errors="surrogateescape")).hexdigest()[:32]


def _state(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError as error:  # removed since the samples were listed
        raise InputError(file, f"cannot be read ({error.strerror})", "check the path") from error
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def _map(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _write(file: Path, array: np.ndarray) -> None:
    try:
        with atomic_path(file) as temporary:
            np.save(temporary, array, allow_pickle=False)
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise InputError(file, what, "free some space, or leave out `cache`") from error
