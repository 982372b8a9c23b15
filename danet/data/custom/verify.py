"""Pairs of images and masks read as training reads them, by the same functions, on all cores. What they raise becomes
a line of the report; nothing stops at the first. Used by check.py.
"""

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

from danet.data.classes import IGNORE, Classes
from danet.data.images.read import read_header, read_image
from danet.data.samples import PairedFiles
from danet.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")
Advance = Callable[[int, int], None]
"""Told (done, all) after each pair of a split, for a progress bar."""


@dataclass(frozen=True)
class Problem:
    """What is wrong with a file or folder, and what to do about it; as text, one line."""

    file: Path
    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.remedy}"


@dataclass(frozen=True)
class Counts:
    """What the readable files of a split hold.

    Args:
        images: all of them, readable or not.
        pixels: one number a class.
        ignored: pixels that no loss and no metric sees.
        values: mask value -> pixels, before the label map.
        smallest, largest: height and width of the images with the fewest and the most pixels; None if none is
            readable.
    """

    images: int
    pixels: tuple[int, ...]
    ignored: int
    values: dict[int, int]
    smallest: tuple[int, int] | None
    largest: tuple[int, int] | None


@dataclass(frozen=True)
class Report:
    """All that was found. Training and evaluation stop at a problem; at what is in `warnings` they do not."""

    classes: Classes
    splits: dict[str, Counts]
    problems: tuple[Problem, ...]
    warnings: tuple[Problem, ...]

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON."""
        names = self.classes.names
        splits = {
            split: {**vars(counts), "pixels": dict(zip(names, counts.pixels, strict=True))}
            for split, counts in self.splits.items()
        }
        told = {"problems": self.problems, "warnings": self.warnings}
        lists = {kind: [{**vars(p), "file": str(p.file)} for p in problems] for kind, problems in told.items()}
        return {"splits": splits, **lists}


def check(samples: PairedFiles, split: str = "all", advance: Advance | None = None) -> Report:
    """Read every pair of `samples`, and name the problems of all."""
    seen = each(lambda index: _examine(samples, index), range(len(samples)), advance)
    values: Counter[int] = Counter()
    for one in seen:
        values.update(one.values)
    mapping = samples.label_map.mapping
    pixels = [0] * (IGNORE + 1)
    for value, count in values.items():
        if value in mapping:
            pixels[mapping[value]] += count
    sizes = sorted((one.size for one in seen if one.size), key=lambda size: size[0] * size[1])
    counts = Counts(
        images=len(samples),
        pixels=tuple(pixels[: len(samples.classes)]),
        ignored=pixels[IGNORE],
        values=dict(sorted(values.items())),
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
    )
    problems = (*_swallowed(samples, counts), *(problem for one in seen for problem in one.problems))
    warned = (*_unlearnable(samples, seen, split, counts), *_depths(samples, seen, split))
    return Report(samples.classes, {split: counts}, problems, warned)


def each(function: Callable[[Item], Result], items: Sequence[Item], advance: Advance | None = None) -> list[Result]:
    """`function` of every item, in order, in one thread a core: Pillow and NumPy work outside Python's lock."""
    pool = ThreadPoolExecutor(getattr(os, "process_cpu_count", os.cpu_count)() or 1)
    results = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as images.py does for each file: in threads that alone is not safe
            for result in pool.map(function, items):
                results.append(result)
                if advance:
                    advance(len(results), len(items))
            return results
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def noting(problems: list[Problem], file: Path) -> Iterator[None]:
    """Turn what the block raises about `file` into an entry of `problems`."""
    try:
        yield
    except InputError as error:
        problems.append(Problem(Path(str(error.where)), error.what, error.remedy))
    except Exception as error:  # whatever else a damaged file provokes must not hide the other files' problems
        problems.append(Problem(file, f"cannot be read ({type(error).__name__}: {error})", "save it again as PNG"))


def histogram(mask: np.ndarray) -> dict[int, int]:
    """H,W integers -> how many pixels have each value."""
    if mask.dtype == np.uint8:
        counts = np.bincount(mask.ravel(), minlength=256)
        return {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    values, counts = np.unique(mask, return_counts=True)
    return dict(zip(values.tolist(), counts.tolist(), strict=True))


class _Seen(NamedTuple):
    problems: list[Problem]
    size: tuple[int, int] | None
    values: dict[int, int]
    bits: int = 0
    brightest: float = 0.0


def _examine(samples: PairedFiles, index: int) -> _Seen:
    pair, problems = samples.pairs[index], []
    image = mask = None
    bits = 0
    if pair.image.parent.is_dir():  # of a folder that is missing one line is enough, and that is not written here
        with noting(problems, pair.image):
            bits = read_header(pair.image).bits
            image = read_image(pair.image, bands=samples.bands)
    if pair.mask.exists():
        with noting(problems, pair.mask):
            mask = samples.read_mask(pair.mask)
    elif pair.mask.parent.is_dir() and pair.mask != pair.image:
        problems.append(Problem(pair.mask, "no such mask, but an image", f"add it, or remove {pair.image}"))
    size = None if image is None else (image.shape[0], image.shape[1])
    if mask is None:
        return _Seen(problems, size, {}, bits)
    if size not in (None, mask.shape):
        with noting(problems, pair.mask):
            _ = samples[index]  # says which sizes, and whether EXIF turned the image
    values = histogram(mask)
    if not values.keys() <= samples.label_map.mapping.keys():
        with noting(problems, pair.mask):
            samples.label_map.apply(mask, pair.mask)
    return _Seen(problems, size, values, bits, 0.0 if image is None else float(image.max()))


def _swallowed(samples: PairedFiles, counts: Counts) -> Iterator[Problem]:
    """Masks of 0 and 255 whose 255, meant as the second class, is ignored."""
    if len(samples.classes) == 2 and counts.values.keys() == {0, IGNORE} and not counts.pixels[1] and counts.ignored:
        name = samples.classes.names[1]
        what = f"only 0 and 255 in all masks, and 255 is ignored: no pixel is {name!r}"
        yield Problem(samples.pairs[0].mask.parent, what, "write label_map: {0: 0, 255: 1} in dataset.yaml")


def _depths(samples: PairedFiles, seen: Sequence[_Seen], split: str) -> Iterator[Problem]:
    """Images of other bits than most, and 16-bit values that fill little of their range."""
    counts = Counter(one.bits for one in seen if one.bits)
    if not counts:
        return
    place, most = samples.pairs[0].image.parent, counts.most_common(1)[0][0]
    others = [pair.image.name for pair, one in zip(samples.pairs, seen, strict=True) if one.bits not in (0, most)]
    if others:
        shown = ", ".join(others[:10]) + (" ..." if others[10:] else "")
        what = f"{len(others)} of {len(seen)} images of {split} have not {most} bits a value as the others: {shown}"
        yield Problem(place, what, "save all with the same bits, or make sure that the same value means the same")
    brightest = max((one.brightest for one in seen if one.bits == 16), default=255.0)
    if samples.bands.white is None and 0 < brightest < 128:
        value = round(brightest * 257)
        what = f"the largest value of the 16-bit images of {split} is {value}, so that a network sees them dark"
        yield Problem(place, what, f"write in dataset.yaml the value that means 1, for example white: {value}")


def _unlearnable(samples: PairedFiles, seen: Sequence[_Seen], split: str, counts: Counts) -> Iterator[Problem]:
    """Masks and classes of which nothing can be learnt."""
    if not counts.values:
        return
    place, mapping = samples.pairs[0].mask.parent, samples.label_map.mapping
    if not any(counts.pixels):
        yield Problem(place, f"every pixel of {split} is ignored", "nothing can be learnt or measured on it")
        return
    for pair, one in zip(samples.pairs, seen, strict=True):
        if one.values and {mapping.get(value) for value in one.values} == {IGNORE}:
            yield Problem(pair.mask, "every pixel is ignored", "label it, or remove it and its image")
    absent = [name for name, count in zip(samples.classes.names, counts.pixels, strict=True) if not count]
    if absent:
        what = f"{len(absent)} of {len(samples.classes)} classes have no pixel in {split}: {', '.join(absent)}"
        yield Problem(place, what, "such a class is not learnt, and its IoU is n/a")
