"""The digest of a list of samples, by which processes and later runs recognize that they have the same data."""

import hashlib
from pathlib import Path

from danet.data.cache import CachedSamples
from danet.data.samples import PairedFiles, Samples


def sample_digest(samples: Samples) -> bytes:
    """Return the SHA-256 of names, order and file sizes of the samples, and of the classes.

    Of generated samples, only their number and classes are known.
    """
    digest = hashlib.sha256(repr((len(samples), samples.classes.names)).encode("utf-8", "surrogateescape"))
    files = samples.samples if isinstance(samples, CachedSamples) else samples
    for pair in files.pairs if isinstance(files, PairedFiles) else ():
        sizes = _size(pair.image), _size(pair.mask)
        digest.update(repr((pair.name, *sizes)).encode("utf-8", "surrogateescape"))
    return digest.digest()


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # reading it will say so
        return -1
