"""Samples decoded once and memory-mapped, so that training reads only the crop that it takes. Command: `danet train
RECIPE --cache DIR`.

A file for the image and one for the labels, named by a hash of where they come from and when that changed: an image
that is replaced is decoded again. Files are whole or not there; any number of processes may fill a cache together.
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
from danet.files import atomic_path, check_writable, make_folder


@dataclass(frozen=True)
class Cached:
    """`Samples` that come from `folder` once they have been there; images and labels are read-only maps of its
    files.
    """

    samples: PairedFiles
    folder: Path

    @property
    def classes(self) -> Classes:
        return self.samples.classes

    @property
    def bands(self) -> Bands:
        return self.samples.bands

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Sample:
        image, labels = self.files(index)
        try:
            return Sample(self.samples.pairs[index].name, _mapped(image), _mapped(labels))
        except (OSError, ValueError, EOFError):  # not there yet, or damaged
            sample = self.samples[index]
            _write(image, sample.image)
            _write(labels, sample.labels)
            return sample

    def labels(self, index: int) -> np.ndarray:
        """H,W uint8 train ids."""
        return self.samples.labels(index)

    def files(self, index: int) -> tuple[Path, Path]:
        """Where a sample's image and labels lie, or will."""
        key = _key(self.samples, self.samples.pairs[index])
        return self.folder / f"{key}-image.npy", self.folder / f"{key}-labels.npy"


def cached(samples: Samples, folder: Path, bad: Callable[[InputError], None] | None = None) -> Cached:
    """The samples through a cache in `folder`, which is made if it is not there; see `planned`."""
    result = planned(samples, folder, bad)
    make_folder(folder)
    return result


def planned(samples: Samples, folder: Path, bad: Callable[[InputError], None] | None = None) -> Cached:
    """What `cached` gives, before its folder is made.

    Args:
        bad: see `space`.

    Raises:
        InputError: samples that are drawn, not read; a folder that cannot be written; less space on the disk than the
            cache will take; without `bad`, a sample that cannot be read.
    """
    if not isinstance(samples, PairedFiles):
        raise InputError("--cache", "these scenes are drawn, not read", "leave it out")
    disk = check_writable(folder)
    result = Cached(samples, folder)
    missing, free = space(result, bad)[1], shutil.disk_usage(disk).free
    if free < missing:
        what = f"{missing / 1e9:.1f} GB more are needed, and {free / 1e9:.1f} GB are free"
        raise InputError(folder, what, "give --cache a folder on another disk, or leave it out")
    return result


def space(cache: Cached, bad: Callable[[InputError], None] | None = None) -> tuple[int, int]:
    """Bytes that the whole cache takes, and those that are not there yet, from the images' headers; the depth of all
    is taken to be that of the first that can be read.

    Args:
        bad: told of each sample that cannot be read, which is then not counted; None: the first is raised.
    """
    depth = whole = missing = 0
    for index, pair in enumerate(cache.samples.pairs):
        try:
            depth = depth or cache.samples[index].image.itemsize
            height, width = image_size(pair.image, cache.bands)
            there = all(file.exists() for file in cache.files(index))
        except InputError as error:
            if bad is None:
                raise
            bad(error)
            continue
        size = height * width * (cache.bands.count * depth + 1)
        whole += size
        missing += 0 if there else size
    return whole, missing


def _key(samples: PairedFiles, pair: Pair) -> str:
    changed = [_state(file) for file in (pair.image, pair.mask)]
    source = repr((changed, sorted(samples.label_map.mapping.items()), samples.bands, samples.classes.palette))
    return hashlib.sha256(source.encode(errors="surrogateescape")).hexdigest()[:32]


def _state(file: Path) -> tuple[str, int, int]:
    try:
        status = file.stat()
    except OSError as error:  # removed since the samples were listed
        raise InputError(file, f"cannot be read ({error.strerror})", "check the path") from error
    return str(file.resolve()), status.st_size, status.st_mtime_ns


def _mapped(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _write(file: Path, array: np.ndarray) -> None:
    try:
        with atomic_path(file) as temporary:
            np.save(temporary, array, allow_pickle=False)
    except OSError as error:
        raise InputError(
            file, f"cannot be written ({error.strerror})", "free some space, or leave --cache out"
        ) from error
