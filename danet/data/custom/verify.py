"""Verify every file of a dataset: read each pair as training does, and compare files with a manifest of hashes.

Problems are collected instead of raised, so that one run reports all of them. Files are read on all cores.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import numpy as np

from danet.data.classes import IGNORE, NO_DATA, Classes, Color
from danet.data.custom.binary_values import are_mixed, describe_dark, describe_mixed
from danet.data.custom.brightness import brightness, describe, propose_white
from danet.data.images.channels import Header
from danet.data.images.color_masks import palette_of
from danet.data.images.formats import SUFFIXES
from danet.data.images.pillow import SWAPPING
from danet.data.images.read import ARRAYS, read_header, read_image, read_mask
from danet.data.samples import PairedFiles
from danet.errors import InputError, list_names
from danet.files import open_regular, read_limited, walk_files

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int, int], None]
"""Called with (done, total) after each pair of a split, for a progress bar."""

ALL = "all"
"""The name of the only split, if the images are not divided into train and val."""

_MANIFEST_BYTES = 64 << 20


@dataclass(frozen=True)
class Problem:
    """A problem with a file or folder, and how to fix it; one line as text."""

    file: Path
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Counts:
    """The contents of a split, as far as its files are readable.

    Args:
        images: number of images, including unreadable ones.
        pixels: pixels of each class.
        ignored: pixels excluded from the loss and the metrics.
        values: mask value -> pixels, before the label map.
        smallest: height and width of the image with the fewest pixels; None if no image is readable.
        largest: height and width of the image with the most pixels; None if no image is readable.
        turned: names of the images with an EXIF orientation that does not change their size.
    """

    images: int
    pixels: tuple[int, ...]
    ignored: int
    values: dict[int, int]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None
    turned: tuple[str, ...] = ()


@dataclass(frozen=True)
class Report:
    """The result of checking a dataset. Problems stop training and evaluation; warnings do not.

    Args:
        classes: of the dataset.
        splits: the contents of each split.
        problems: what has to be fixed.
        warnings: what should be looked at.
        digests: split -> name -> hash of the image's pixels, of readable images.
        present: split -> name -> classes with pixels in the mask; none if it is not readable.
        divided: split -> number of its images, if they are not in folders of their own.
    """

    classes: Classes
    splits: dict[str, Counts]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]
    digests: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict)
    present: Mapping[str, Mapping[str, frozenset[int]]] = field(default_factory=dict)
    divided: Mapping[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return the report as plain values, for JSON."""
        names = self.classes.names
        splits = {
            split: {
                **vars(counts),
                "pixels": dict(zip(names, counts.pixels, strict=True)),
                "values": {value_text(value): pixels for value, pixels in counts.values.items()},
            }
            for split, counts in self.splits.items()
        }
        kinds = {"problems": self.problems, "warnings": self.warnings}
        lists = {kind: [{**vars(p), "file": str(p.file)} for p in problems] for kind, problems in kinds.items()}
        return {"splits": splits, "divided": dict(self.divided), **lists}


def verify_pairs(samples: PairedFiles, split: str = ALL, advance: Advance | None = None) -> Report:
    """Read every pair of a split, and report the problems of all."""
    results = map_in_threads(lambda index: _verify_pair(samples, index), range(len(samples)), advance)
    values: Counter[int] = Counter()
    for result in results:
        values.update(result.values)
    mapping = {**samples.label_map.mapping, NO_DATA: IGNORE}
    pixels = [0] * (IGNORE + 1)
    for value, count in values.items():
        if value in mapping:
            pixels[mapping[value]] += count
    sizes = sorted((result.size for result in results if result.size), key=lambda size: size[0] * size[1])
    counts = Counts(
        images=len(samples),
        pixels=tuple(pixels[: len(samples.classes)]),
        ignored=pixels[IGNORE],
        values=dict(sorted(values.items())),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        turned=tuple(pair.image.name for pair, result in zip(samples.pairs, results, strict=True) if result.turned),
    )
    problems = (*_ignored_foreground(samples, counts), *(p for result in results for p in result.problems))
    warned = (
        *_without_labels(samples, results, split, counts),
        *_bit_depths(samples, results, split),
        *_mixed_whites(samples, results),
        *_palettes(samples, results),
    )
    digests = {pair.name: r.digest for pair, r in zip(samples.pairs, results, strict=True) if r.digest}
    present = {
        pair.name: frozenset(mapping[value] for value in result.values if value in mapping) - {IGNORE}
        for pair, result in zip(samples.pairs, results, strict=True)
    }
    return Report(samples.classes, {split: counts}, problems, warned, {split: digests}, {split: present})


def map_in_threads(
    function: Callable[[Item], Result], items: Sequence[Item], advance: Advance | None = None
) -> list[Result]:
    """Apply a function to every item, in one thread per core: Pillow and NumPy release the GIL.

    Returns:
        The results, in the order of the items.
    """
    pool = ThreadPoolExecutor(getattr(os, "process_cpu_count", os.cpu_count)() or 1)
    results = []
    try:
        for result in pool.map(function, items):
            results.append(result)
            if advance:
                advance(len(results), len(items))
        return results
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def collect_problems(problems: list[Problem], file: Path) -> Iterator[None]:
    """Append an exception that the block raises to `problems`; `file` names the file it reads."""
    try:
        yield
    except InputError as error:
        problems.append(Problem(Path(str(error.where)), error.what, error.remedy))
    except Exception as error:  # an unexpected error in one file must not hide the problems of the others
        problems.append(Problem(file, f"cannot be read ({type(error).__name__}: {error})", "save it again as PNG"))


def count_values(mask: np.ndarray) -> dict[int, int]:
    """Return the number of pixels of each value in a mask, H,W integers."""
    if mask.dtype == np.uint8:
        counts = np.bincount(mask.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(mask, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


class _Result(NamedTuple):
    problems: list[Problem]
    size: tuple[int, int] | None
    values: dict[int, int]
    bits: int = 0
    brightness: float = 0.0
    turned: bool = False
    digest: bytes = b""
    colors: Mapping[int, Color] = MappingProxyType({})


def _verify_pair(samples: PairedFiles, index: int) -> _Result:
    pair, problems = samples.pairs[index], []
    image = mask = None
    bits, turned, bright, digest, palette = 0, False, 0.0, b"", None
    if pair.image.parent.is_dir():  # the caller reports a missing folder, once
        with collect_problems(problems, pair.image):
            header = read_header(pair.image)
            bits, turned = header.bits, is_turned(header)
            image = read_image(pair.image, bands=samples.bands, upright=samples.upright)
            digest = hash_pixels(image)
            bright = brightness(image) if bits == 16 else 0.0
    if pair.mask.exists():
        with collect_problems(problems, pair.mask):
            mask = samples.read_mask(pair.mask)
            if _reads_values(samples) and pair.mask.suffix.lower() not in ARRAYS:
                palette = palette_of(pair.mask)
    elif pair.mask.parent.is_dir() and pair.mask != pair.image:
        problems.append(Problem(pair.mask, "missing mask", f"add it, or remove its image {pair.image}"))
    size = None if image is None else (image.shape[0], image.shape[1])
    if mask is None:
        return _Result(problems, size, {}, bits, bright, turned, digest)
    if size not in (None, mask.shape):
        with collect_problems(problems, pair.mask):
            _ = samples[index]  # raises with both sizes, and mentions an EXIF rotation
    values = count_values(mask)
    if not values.keys() <= samples.label_map.mapping.keys() | {NO_DATA}:
        with collect_problems(problems, pair.mask):
            samples.label_map.apply(mask, pair.mask)
    colors = {value: palette[value] for value in values if 0 <= value < len(palette)} if palette else {}
    return _Result(problems, size, values, bits, bright, turned, digest, colors)


def hash_pixels(image: np.ndarray) -> bytes:
    """Return a hash of an image's size and pixels, whatever the format of its file."""
    digest = hashlib.blake2b(repr((image.shape, image.dtype.str)).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(image).data)
    return digest.digest()


def is_turned(header: Header) -> bool:
    """Return whether an image has an EXIF orientation that keeps its size, so that masks fit with and without it."""
    return header.orientation > 1 and (header.orientation not in SWAPPING or header.height == header.width)


def _ignored_foreground(samples: PairedFiles, counts: Counts) -> Iterator[Problem]:
    """Report 0/255 masks whose 255 is ignored, although it means the second class."""
    if len(samples.classes) == 2 and counts.values.keys() == {0, IGNORE} and not counts.pixels[1] and counts.ignored:
        name = samples.classes.names[1]
        what = f"the masks contain only 0 and 255, and 255 is ignored, so no pixel has the class {name!r}"
        yield Problem(samples.pairs[0].mask.parent, what, "write label_map: {0: 0, 255: 1} in dataset.yaml")


def _mixed_whites(samples: PairedFiles, results: Sequence[_Result]) -> Iterator[Problem]:
    """Report masks of 0 and 1 beside masks of 0 and 255 if only one of these whites is foreground."""
    mapping = samples.label_map.mapping
    masks = {p.mask: r.values for p, r in zip(samples.pairs, results, strict=True) if r.values}
    if not masks:
        return
    folder = samples.pairs[0].mask.parent
    if mapping.get(IGNORE) == IGNORE and are_mixed([*masks.values()]):
        remedy = "if 255 means the same as 1, write label_map: {0: 0, 1: 1, 255: 1} in dataset.yaml, without ignore"
        yield Problem(folder, f"{describe_mixed(masks)}, and 255 is ignored", remedy)
    divided = mapping.get(0) == mapping.get(1) and mapping.get(IGNORE) not in (None, IGNORE, mapping.get(0))
    if divided and (dark := describe_dark(masks)):  # by a threshold
        yield Problem(folder, dark, "save them with 0 and 255")


def _reads_values(samples: PairedFiles) -> bool:
    """Return whether masks are images whose values are read, not colors or files of other formats."""
    return getattr(samples.read_mask, "func", samples.read_mask) is read_mask


def _palettes(samples: PairedFiles, results: Sequence[_Result]) -> Iterator[Problem]:
    """Report a value that has different colors in the palettes of masks."""
    first: dict[int, tuple[Color, Path]] = {}
    for pair, result in zip(samples.pairs, results, strict=True):
        for value, color in result.colors.items():
            before, file = first.setdefault(value, (color, pair.mask))
            if before != color:
                shown = f"{value} is {list(before)} in {file.name}, and {list(color)} in {pair.mask.name}"
                remedy = "if the colors are right and the values are not, write colors: in dataset.yaml"
                yield Problem(pair.mask.parent, f"the palettes differ between masks: {shown}", remedy)
                return


def _bit_depths(samples: PairedFiles, results: Sequence[_Result], split: str) -> Iterator[Problem]:
    """Report images with a different bit depth than most, and 16-bit images that use less than half of their range."""
    counts = Counter(result.bits for result in results if result.bits)
    if not counts:
        return
    folder, most = samples.pairs[0].image.parent, counts.most_common(1)[0][0]
    others = [p.image.name for p, result in zip(samples.pairs, results, strict=True) if result.bits not in (0, most)]
    if others:
        what = f"images{in_split(split)} without {most} bits per value, unlike the others: "
        what += f"{len(others)} of {len(results)} ({list_names(others)})"
        yield Problem(folder, what, "save all with the same bit depth, or make sure that equal values mean the same")
    white = propose_white([result.brightness for result in results if result.bits == 16])
    if samples.bands.white is None and white is not None:
        what = f"{describe(white)}{in_split(split)}"
        yield Problem(folder, what, f"write the value of white in dataset.yaml, for example white: {white}")


def _without_labels(samples: PairedFiles, results: Sequence[_Result], split: str, counts: Counts) -> Iterator[Problem]:
    """Report masks that are ignored entirely, and classes without pixels."""
    if not counts.values:
        return
    folder, mapping = samples.pairs[0].mask.parent, samples.label_map.mapping
    if not any(counts.pixels):
        remedy = "label some pixels, or correct ignore and label_map in dataset.yaml"
        yield Problem(folder, f"every pixel{in_split(split)} is ignored", remedy)
        return
    for pair, result in zip(samples.pairs, results, strict=True):
        if result.values and {mapping.get(value) for value in result.values} == {IGNORE}:
            yield Problem(pair.mask, "every pixel is ignored", "label it, or remove it and its image")
    absent = [name for name, count in zip(samples.classes.names, counts.pixels, strict=True) if not count]
    if absent:
        what = f"classes without pixels{in_split(split)}: {len(absent)} of {len(samples.classes)} ({', '.join(absent)})"
        yield Problem(folder, what, "they are not learned, and their IoU is n/a")


def value_text(value: int) -> str:
    """Return a mask value for messages."""
    return "no data" if value == NO_DATA else str(value)


def in_split(split: str) -> str:
    """Return " in SPLIT" for messages; nothing if there is only one."""
    return "" if split == ALL else f" in {split}"


def list_files(root: Path) -> list[Path]:
    """List the images and masks anywhere below a folder, sorted; linked folders are followed, as in training."""
    suffixes = (*SUFFIXES, *ARRAYS, ".mat")
    return sorted(file for file in walk_files(root) if file.suffix.lower() in suffixes and file.is_file())


def hash_files(root: Path, files: Sequence[Path]) -> dict[str, str]:
    """Return a manifest: the path of each file, relative to `root` and with /, and its SHA-256 in hexadecimal.

    Hashes find damage that still decodes, such as a flipped bit.

    Raises:
        InputError: a file is not readable, or not below `root`.
    """
    outside = [file for file in files if not file.is_relative_to(root)]
    if outside:
        raise InputError(outside[0], f"is not below {root}", "specify the folder that contains all files")
    hashes = map_in_threads(_sha256, files)
    return {file.relative_to(root).as_posix(): digest for file, digest in zip(files, hashes, strict=True)}


def read_manifest(file: Path) -> dict[str, str]:
    """Read a manifest that was written as JSON.

    Raises:
        InputError: the file is not readable, or not a manifest.
    """
    try:
        hashes = json.loads(read_limited(file, _MANIFEST_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(file, f"cannot be read as a manifest ({error})", "delete it, and write it again") from error
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise InputError(file, "is not a manifest (an object of path: SHA-256)", "delete it, and write it again")
    outside = next((name for name in hashes if PurePosixPath(name).is_absolute() or ".." in name.split("/")), None)
    if outside is not None:
        what = f"names {outside!r}, which is not below the folder of the dataset"
        raise InputError(file, what, "use a manifest that danet check wrote")
    return hashes


def verify_hashes(root: Path, hashes: Mapping[str, str]) -> list[Problem]:
    """Report each file of a manifest that is missing or has changed."""

    def compare(entry: tuple[str, str]) -> list[Problem]:
        file, problems = root / entry[0], []
        with collect_problems(problems, file):
            if _sha256(file) != entry[1]:
                problems.append(Problem(file, "has changed: its SHA-256 is not the manifest's", "copy it again"))
        return problems

    return [problem for problems in map_in_threads(compare, list(hashes.items())) for problem in problems]


def _sha256(file: Path) -> str:
    try:
        with open_regular(file) as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(file, f"cannot be read ({reason})", "copy it again") from error
