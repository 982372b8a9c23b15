"""Find all problems of a user's folder in one run, and format the report. Command: danet check DIR.

Public datasets are checked by danet/data/check.py, with the same functions.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from danet.data.classes import IGNORE, NO_DATA, Classes
from danet.data.custom.dataset_yaml import read_settings
from danet.data.custom.layout import SPLITS, Folders, image_files, list_layout_images
from danet.data.custom.settings import Settings
from danet.data.custom.splits import divided_sequences, load_split
from danet.data.custom.verify import (
    ALL,
    Advance,
    Counts,
    Problem,
    Report,
    collect_problems,
    in_split,
    value_text,
    verify_pairs,
)
from danet.data.images.formats import SUFFIXES
from danet.data.images.results import is_result
from danet.data.naming import SAME_STEM, Naming, match_masks
from danet.data.samples import Pair, PairedFiles
from danet.errors import list_names

_NOT_IMAGES = ("dataset.yaml", "_classes.csv")  # expected next to images
_MAX_VALUES = 40
_MUCH_IGNORED = 0.05


class Part(NamedTuple):
    """A split to check.

    Args:
        split: its name.
        samples: its pairs, whose files may be missing.
        problems: problems found before any file is read.
        warnings: warnings, likewise.
    """

    split: str
    samples: PairedFiles
    problems: list[Problem]
    warnings: list[Problem]


def check_folder(root: Path, advance: Advance | None = None) -> Report:
    """Check a user's folder: its folders, images and masks without a partner, and every pair (`verify_pairs`).

    Args:
        root: the folder, with its dataset.yaml.
        advance: called with (done, total) after each pair of a split.

    Raises:
        InputError: no dataset.yaml, or an invalid one.
    """
    settings = read_settings(root)
    layout = settings.layout
    divided = {split: folders for split in SPLITS if (folders := layout.split_folders(split))}
    splits = divided or {ALL: layout.undivided_folders}
    parts = [_pair_split(split, folders, settings) for split, folders in splits.items()]
    paired = {pair.mask for part in parts for pair in part.samples.pairs}  # splits may share a folder of masks
    parts = [part._replace(problems=[p for p in part.problems if p.file not in paired]) for part in parts]
    if settings.skip_missing:
        parts = [_without_missing(part) for part in parts]
    report = check_parts(settings.classes, parts, advance)
    ignored = [w for split, counts in report.splits.items() if (w := _much_ignored(settings, split, counts))]
    report = replace(report, warnings=(*report.warnings, *ignored, *_turned(settings, report)))
    problems = list(report.problems) or list(_single_class(settings, report))
    loaded: dict[str, list[str]] = {}
    for split in (layout.lists or SPLITS) if not problems else ():
        with collect_problems(problems, root):
            loaded[split] = [pair.name for pair in load_split(settings, split).pairs]
    divisions = _division_warnings(settings, parts, loaded, bool(divided))
    shared = _shared_images(layout.root, report, loaded)
    absent = [] if divided else _absent_classes(settings, report, loaded)
    beside = _beside_splits(layout.root, [each for folders in divided.values() for each in folders])
    warnings = (*report.warnings, *beside, *divisions, *shared, *absent)
    counts = {} if divided else {split: len(names) for split, names in loaded.items()}
    return replace(report, problems=_unique(problems), warnings=warnings, divided=counts)


def _beside_splits(root: Path, folders: Sequence[Folders]) -> list[Problem]:
    """Warn of images next to the folders of the splits, such as images/a.jpg beside images/train."""
    own = {folder for each in folders for folder in (each.images, each.masks)} | {root}
    problems = []
    for parent in dict.fromkeys(each.images.parent for each in folders if each.images.parent not in own):
        if left := [file.name for file in image_files(parent)]:
            what = f"images beside the folders of the splits: {len(left)} ({list_names(left, 5)})"
            problems.append(Problem(parent, what, "they are left out; move them into one of these folders"))
    return problems


def _pair_split(split: str, folders: Sequence[Folders], settings: Settings) -> Part:
    """Pair the files of all folders of a split."""
    file, samples = settings.layout.root / "dataset.yaml", settings.samples([])
    remedy = f"create it, or correct its name in {file}"
    parts = [pair_folders(split, each, samples, remedy, settings.layout.naming) for each in folders]
    pairs = [pair for part in parts for pair in part.samples.pairs]
    problems = [problem for part in parts for problem in part.problems]
    return Part(split, settings.samples(pairs), problems, [warning for part in parts for warning in part.warnings])


def _division_warnings(
    settings: Settings, parts: Sequence[Part], loaded: Mapping[str, Sequence[str]], divided: bool
) -> list[Problem]:
    """Warn of images in no list, and of sequences whose frames are divided between train and val."""
    layout = settings.layout
    file = layout.root / "dataset.yaml"
    if divided or not loaded:
        return []
    if layout.lists:
        names = {name for own in loaded.values() for name in own}
        unused = [pair.name for part in parts for pair in part.samples.pairs if pair.name not in names]
        what = f"images that no list names: {len(unused)} ({list_names(unused)})"
        return [Problem(file, what, "they are left out")] if unused else []
    if settings.by_sequence is not None or not (sequences := divided_sequences(loaded)):
        return []
    what = f"frames of {len(sequences)} sequence{'s' * (len(sequences) != 1)} are in both train and val"
    remedy = "write split_by: sequence in dataset.yaml, or split_by: image if images with similar names are unrelated"
    return [Problem(file, f"{what} ({list_names(sequences, 5)})", remedy)]


def _single_class(settings: Settings, report: Report) -> Iterator[Problem]:
    """Report training masks with a single class."""
    for split in (ALL, "train"):
        pixels = report.splits[split].pixels if split in report.splits else ()
        present = [name for name, count in zip(settings.classes.names, pixels, strict=bool(pixels)) if count]
        if len(present) == 1:
            what = f"every labeled pixel{in_split(split)} has the class {present[0]!r}, so there is nothing to learn"
            remedy = "label a second class, or correct the classes in dataset.yaml"
            yield Problem(settings.layout.root / settings.layout.masks, what, remedy)


def _shared_images(root: Path, report: Report, loaded: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Warn of images of val with the same pixels as an image of train; `loaded` maps splits to names of images."""
    whole = report.digests.get(ALL, {})  # otherwise, an image of val may have the name of another one of train
    of_train, of_val = (report.digests.get(split, whole) for split in SPLITS)
    train = {of_train[name]: name for name in loaded.get("train", ()) if name in of_train}
    pairs = [(name, train[of_val[name]]) for name in loaded.get("val", ()) if of_val.get(name) in train]
    if not pairs:
        return []
    shown = list_names([name if name == other else f"{name} = {other}" for name, other in pairs], 5)
    what = f"{len(pairs)} of {len(loaded['val'])} images of val are also in train ({shown})"
    return [Problem(root, what, "remove them from one of the two; the scores on val are too high otherwise")]


def _absent_classes(settings: Settings, report: Report, loaded: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Warn of classes that the division leaves without pixels in train or val; `loaded` has the images of each."""
    present, remedies = report.present.get(ALL, {}), {"train": "they are not learned", "val": "their IoU is n/a"}
    everywhere = frozenset[int]().union(*present.values())
    warnings = []
    for split, remedy in remedies.items():
        absent = everywhere.difference(*(present.get(name, frozenset()) for name in loaded.get(split, ())))
        if split in loaded and absent:
            names = [settings.classes.names[i] for i in sorted(absent)]
            what = f"classes without pixels in {split}: {len(names)} of {len(settings.classes)} ({', '.join(names)})"
            way = "change val" if not settings.layout.lists else "change the lists"
            warnings.append(Problem(settings.layout.root / "dataset.yaml", what, f"{remedy}; {way}, or add images"))
    return warnings


def _turned(settings: Settings, report: Report) -> list[Problem]:
    """Warn of images with an EXIF orientation that keeps their size: no mask shows whether it has to be applied."""
    names = [name for counts in report.splits.values() for name in counts.turned]
    if settings.upright is not None or not names:
        return []
    what = f"images that an EXIF orientation turns or mirrors: {len(names)} ({list_names(names)})"
    remedy = "compare them with their masks, and write exif: apply or exif: ignore in dataset.yaml"
    return [Problem(settings.layout.root / "dataset.yaml", what, remedy)]


def _much_ignored(settings: Settings, split: str, counts: Counts) -> Problem | None:
    """Warn of ignored values that cover so many pixels that they may be a class."""
    total = sum(counts.values.values())
    if counts.ignored < _MUCH_IGNORED * total or not any(counts.pixels):
        return None
    mapping = {**settings.label_map.mapping, NO_DATA: IGNORE}
    shares = [f"{value_text(v)}: {n / total:.1%}" for v, n in counts.values.items() if mapping.get(v) == IGNORE]
    what = f"{counts.ignored / total:.1%} of the pixels{in_split(split)} are ignored (mask values {list_names(shares)})"
    remedy = "if a value is a class, correct classes, ignore and label_map in dataset.yaml"
    return Problem(settings.layout.root / "dataset.yaml", what, remedy)


def report_lines(report: Report) -> list[str]:
    """Format a report: problems, warnings, the contents of each split, the share of each class, and a summary."""
    lines = [f"error: {problem}" for problem in report.problems]
    lines += [f"warning: {warning}" for warning in report.warnings]
    lines += [_split_line(split, counts) for split, counts in report.splits.items()]
    if report.divided:
        lines.append(f"divided into {', '.join(f'{count} {split}' for split, count in report.divided.items())}")
    lines += _class_shares(report) if report.splits else []
    return [*lines, f"{_count(report.problems, 'error')}, {_count(report.warnings, 'warning')}"]


def _class_shares(report: Report) -> list[str]:
    """Format a table: the share of each class in the pixels of each split."""
    rows = {name: [c.pixels[i] for c in report.splits.values()] for i, name in enumerate(report.classes.names)}
    rows["(ignored)"] = [counts.ignored for counts in report.splits.values()]
    totals = [max(1, sum(counts.values.values())) for counts in report.splits.values()]
    width = max(24, *map(len, rows))
    lines = [f"{'share of pixels':{width}}" + "".join(f"{split:>10}" for split in report.splits)]
    for name, row in rows.items():
        shares = (f"{100 * pixels / total:8.2f}%" for pixels, total in zip(row, totals, strict=True))
        lines.append(f"{name:{width}}" + "".join(shares))
    return lines


def _split_line(split: str, counts: Counts) -> str:
    sizes = " to ".join(dict.fromkeys(f"{s[1]} x {s[0]}" for s in (counts.smallest, counts.largest) if s))
    values = list_names([value_text(value) for value in counts.values], _MAX_VALUES)
    images = f"{counts.images} image{'s' * (counts.images != 1)}"
    return f"{split}: {images}, {f'{sizes} pixels' if sizes else 'none readable'}; mask values {values or 'unknown'}"


def _count(problems: Sequence[Problem], noun: str) -> str:
    return f"{len(problems) or 'no'} {noun}{'s' * (len(problems) != 1)}"


def check_parts(classes: Classes, parts: Sequence[Part], advance: Advance | None) -> Report:
    """Verify the pairs of each split, and return everything that is known about them as one report."""
    reports = [verify_pairs(part.samples, part.split, advance) for part in parts]
    return Report(
        classes,
        {split: counts for report in reports for split, counts in report.splits.items() if counts.images},
        _unique(p for part, report in zip(parts, reports, strict=True) for p in (*part.problems, *report.problems)),
        _unique(p for part, report in zip(parts, reports, strict=True) for p in (*part.warnings, *report.warnings)),
        {split: digests for report in reports for split, digests in report.digests.items()},
        {split: present for report in reports for split, present in report.present.items()},
    )


def _unique(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """Report a file that two splits share once."""
    return tuple(dict.fromkeys(problems))


def pair_folders(split: str, folders: Folders, samples: PairedFiles, remedy: str, naming: Naming = SAME_STEM) -> Part:
    """Pair every image in a folder with its mask, missing or not, and report files without a partner.

    Args:
        split: the name of the split.
        folders: the folder of its images and that of their masks.
        samples: the classes, and how files are read; its pairs are replaced.
        remedy: what to do about a missing folder.
        naming: how masks are named after their images.
    """
    images, masks = folders[:2]
    problems = [Problem(each, "no such folder", remedy) for each in dict.fromkeys((images, masks)) if not each.is_dir()]
    files: list[Path] = []
    if images.is_dir():
        with collect_problems(problems, images):
            files = list_layout_images(folders, naming, samples.bands)
    by_stem = {file.stem: file for file in reversed(files)}
    by_mask = {naming.mask_of(file): file for file in reversed(files)}
    for file in files:
        if (other := by_mask[naming.mask_of(file)]) != file:
            shared = "stem" if other.stem == file.stem else "mask"
            problems.append(Problem(file, f"has the same {shared} as {other.name}", "rename one of them"))
    recognized = set(files)
    candidates: list[Path] = []
    if images.is_dir() and masks.is_dir():
        candidates = [file for file in _files(masks) if file.suffix.lower() in SUFFIXES and file not in recognized]
    mask_of = match_masks(files, masks, naming)
    paired = set(mask_of.values())
    all_files = [file for folder in dict.fromkeys((images, masks)) if folder.is_dir() for file in _files(folder)]
    results = {file for file in all_files if file not in paired and is_result(file)}
    problems += [_unpaired(mask, naming, by_stem) for mask in candidates if mask not in paired | results]
    recognized.update(candidates, results)
    others = [file.name for file in _files(images) if file not in recognized] if images.is_dir() else []
    others = [name for name in others if name not in _NOT_IMAGES]
    what = f"files without the suffix of an image: {len(others)} ({list_names(others)})"
    warnings = [Problem(images, what, "they are left out")] if others else []
    if results:
        what = f"results of danet: {len(results)} ({list_names(sorted(file.name for file in results), 5)})"
        warnings.append(Problem(images, what, "they are left out"))
    pairs = [Pair(folders.name_of(file), file, mask) for file, mask in mask_of.items()]
    return Part(split, replace(samples, pairs=pairs), problems, warnings)


def _without_missing(part: Part) -> Part:
    """Leave out the images without a mask, with one warning for all of them."""
    pairs = [pair for pair in part.samples.pairs if pair.mask.is_file()]
    missing = [pair.image.name for pair in part.samples.pairs if not pair.mask.is_file()]
    if not missing:
        return part
    what = f"images without a mask: {len(missing)} of {len(part.samples)} ({list_names(missing)})"
    warning = Problem(part.samples.pairs[0].image.parent, what, "they are left out (missing_masks: skip)")
    return part._replace(samples=replace(part.samples, pairs=pairs), warnings=[*part.warnings, warning])


def _unpaired(mask: Path, naming: Naming, by_stem: Mapping[str, Path]) -> Problem:
    suffix, image_suffix = naming[:2]
    if mask.stem in by_stem:
        right = mask.with_name(naming.mask_of(by_stem[mask.stem]))
        if right.exists():
            return Problem(mask, f"is a second mask of {by_stem[mask.stem].name}, beside {right.name}", "remove one")
        return Problem(mask, f"its name must end in {suffix}", f"rename it to {right.name}")
    if not naming.is_mask(mask):
        what = f"its name must be that of an image, in the form {naming.masks}"
        return Problem(mask, what, "rename it, or correct the names of masks in dataset.yaml")
    stem = mask.name.removesuffix(suffix)
    stem = stem.replace(naming.mask_part, naming.image_part, 1) if naming.mask_part else stem
    image = f"{stem}{image_suffix}.jpg"
    return Problem(mask, "mask without an image", f"add {image}, or remove the mask")


def _files(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if not file.name.startswith(".") and not file.is_dir())
