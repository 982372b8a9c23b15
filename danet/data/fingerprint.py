"""A fingerprint of samples, by which processes, machines and later runs recognize that they have the same data.

It contains the classes, how masks and images are read, and the names and sizes of the files. Of some samples, it also
contains checksums: files without compression keep their size when they are replaced.
"""

import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from danet.data.cache import CachedSamples
from danet.data.samples import PairedFiles, Samples
from danet.files import open_regular

CHECKSUMS = 64
"""Number of samples whose files are read, evenly spaced."""

_BLOCK = 1 << 20


def fingerprint(samples: Samples) -> dict[str, Any]:
    """Return the fingerprint of samples as plain values. Of generated samples, only number and classes are known."""
    samples = samples.samples if isinstance(samples, CachedSamples) else samples
    return {
        "classes": list(samples.classes.names),
        "label_map": _label_map(samples),
        "channels": samples.bands.count,
        "white": samples.bands.white,
        "exif": "apply" if not isinstance(samples, PairedFiles) or samples.upright else "ignore",
        "images": len(samples),
        "files": _files(samples),
    }


def digest(samples: Samples) -> bytes:
    """Return the SHA-256 of the fingerprint of samples, in which the order of the files counts."""
    return hashlib.sha256(json.dumps(fingerprint(samples)).encode()).digest()


def _label_map(samples: Samples) -> dict[str, int]:
    """Return mask value or color -> train id."""
    if not isinstance(samples, PairedFiles):
        return {}
    mapping: Mapping[Any, int] = samples.label_map.mapping
    mapping = getattr(samples.read_mask, "keywords", {}).get("ids", mapping)  # colors
    return {str(value): target for value, target in mapping.items()}


def _files(samples: Samples) -> dict[str, list[int]]:
    """Return name -> bytes of the image and of the mask; of some samples also the checksums of both."""
    if not isinstance(samples, PairedFiles):
        return {}
    read = set(np.linspace(0, len(samples) - 1, CHECKSUMS).astype(int).tolist())
    files: dict[str, list[int]] = {}
    for i, pair in enumerate(samples.pairs):
        files[pair.name] = [_size(pair.image), _size(pair.mask)]
        if i in read:
            files[pair.name] += [_checksum(pair.image), _checksum(pair.mask)]
    return files


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:  # training reports or skips it
        return 0


def _checksum(file: Path) -> int:
    checksum = 0
    try:
        with open_regular(file) as opened:
            while block := opened.read(_BLOCK):
                checksum = zlib.crc32(block, checksum)
    except OSError:
        return 0
    return checksum
