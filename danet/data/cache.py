"""A cache of decoded samples, memory-mapped so that training reads only the crop it needs.

Command: danet train RECIPE --cache DIR. Each sample has one file for the image and one for the labels, named by a hash
of the paths of its source files. They end with the SHA-256 of the content of the source files, and of their own. Each
process checks both when it first reads a sample, and again if a file's size, time or number has changed. What does not
match is decoded again. Files are written atomically; any number of processes may fill a cache together.
"""

import hashlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from danet.data.classes import IGNORE, Classes
from danet.data.images.channels import Bands
from danet.data.images.pillow import regular_file
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
    _checked: dict[int, tuple] = field(default_factory=dict, repr=False, compare=False)

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
        pair, files = self.samples.pairs[index], self.files(index)
        sources = _state(pair.image), _state(pair.mask)
        if self._checked.get(index) == (sources, *map(_state_if_any, files)):
            return Sample(pair.name, _map(files[0]), _map(files[1]))
        digest = _digest(pair)
        try:
            image, labels = (_checked_map(file, digest) for file in files)
            sample = Sample(pair.name, image, labels)
            self._check(sample)
        except (OSError, ValueError, EOFError):  # not cached yet, of another file, or damaged
            sample = self.samples[index]
            for file, array in zip(files, (sample.image, sample.labels), strict=True):
                _write(file, array, digest)
        self._checked[index] = (sources, *map(_state_if_any, files))
        return sample

    def _check(self, sample: Sample) -> None:
        """Check that cached arrays are an image and its labels.

        Raises:
            ValueError: they are not.
        """
        image, labels = sample.image, sample.labels
        if image.ndim != 3 or labels.shape != image.shape[:2] or image.shape[2] != self.bands.count:
            raise ValueError("wrong shape")
        if image.dtype not in (np.uint8, np.float32) or labels.dtype != np.uint8:
            raise ValueError("wrong type")
        if np.bincount(labels.ravel(), minlength=IGNORE)[len(self.classes) : IGNORE].any():
            raise ValueError("wrong labels")

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
            _state(pair.mask)
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
    paths = [str(file.resolve()) for file in (pair.image, pair.mask)]
    source = paths, sorted(samples.label_map.mapping.items()), samples.bands, samples.classes.palette
    if colors := getattr(samples.read_mask, "keywords", None):  # a class may have several colors
        source = (*source, colors)
    if not samples.upright:
        source = (*source, "stored orientation")
    return hashlib.sha256(repr(source).encode(errors="surrogateescape")).hexdigest()[:32]


def _state(file: Path) -> tuple[int, ...]:
    try:
        status = file.stat()
    except OSError as error:  # removed since the samples were listed
        raise InputError(file, f"cannot be read ({error.strerror})", "check the path") from error
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _state_if_any(file: Path) -> tuple[int, ...] | None:
    try:
        return _state(file)
    except InputError:
        return None


def _digest(pair: Pair) -> bytes:
    """Return the SHA-256 of the content of a sample's files."""
    digest = hashlib.sha256()
    for path in (pair.image, pair.mask):
        with regular_file(path) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())  # pyright: ignore[reportArgumentType]
    return digest.digest()


def _map(file: Path) -> np.ndarray:
    return np.load(file, mmap_mode="r", allow_pickle=False)


def _checked_map(file: Path, source: bytes) -> np.ndarray:
    """Return the array in a file.

    Raises:
        OSError, EOFError: it cannot be read.
        ValueError: it is damaged, or of other source files.
    """
    with file.open("rb") as opened:
        rest, digest = file.stat().st_size - 2 * len(source), hashlib.sha256()
        while rest > 0 and (block := opened.read(min(1 << 20, rest))):
            digest.update(block)
            rest -= len(block)
        trailer = opened.read()
    digest.update(source)
    if trailer != source + digest.digest():
        raise ValueError("damaged, or of other source files")
    return _map(file)


def _write(file: Path, array: np.ndarray, source: bytes) -> None:
    """Write an array, the digest of its source files, and that of all these bytes."""
    try:
        with atomic_path(file) as temporary:
            np.save(temporary, array, allow_pickle=False)
            with temporary.open("r+b") as opened:
                opened.seek(0, io.SEEK_END)
                opened.write(source)
                opened.seek(0)
                opened.write(hashlib.file_digest(opened, "sha256").digest())
    except OSError as error:
        what = f"cannot be written ({error.strerror})"
        raise InputError(file, what, "free some space, or leave out `cache`") from error
