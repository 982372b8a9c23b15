"""Find all problems of a dataset in one run. Command: danet check --dataset NAME --root DIR.

A user's own folder is checked by `custom/check.py`. For a public dataset, the expected numbers of images are known, and
every problem names the download that resolves it.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path

from danet.data.classes import LabelMap
from danet.data.custom.check import Part, check_folder, check_parts, pair_folders
from danet.data.custom.layout import SPLITS, Folders
from danet.data.custom.verify import Advance, Problem, Report, collect_problems
from danet.data.registry import DATASETS, Dataset, missing_root
from danet.data.samples import PairedFiles
from danet.errors import InputError, unknown_name


def check_dataset(name: str, root: Path | None, advance: Advance | None = None) -> Report:
    """Return all problems of a dataset: missing files, wrong numbers of images, and what `verify_pairs` finds.

    Args:
        name: a public dataset of the registry, or "folder"; see `check_folder`.
        root: its folder.
        advance: called with (done, total) after each pair of a split.

    Raises:
        InputError: the dataset is unknown or has no files; no `root`.
    """
    if name == "folder" and root is not None:
        return check_folder(root, advance)
    public = {name: dataset for name, dataset in DATASETS.items() if dataset.download}
    if name not in ("folder", *public):
        if name in DATASETS:
            raise InputError("dataset", f"{name!r} has no files to check", f"use folder, {', '.join(public)}")
        raise unknown_name("dataset", name, ("folder", *public))
    if root is None:
        raise missing_root(name)
    dataset, parts, checked = public[name], [], set()
    assert dataset.classes is not None
    for split, expected in dataset.counts.items():
        part = _load(split, root, dataset)
        new = not checked.issuperset(part.samples.pairs)  # trainval consists of train and val
        if new and len(part.samples) != expected:
            count = len(part.samples)
            what = f"{count} image{'s' * (count != 1)} in {split}, expected {expected}"
            part.problems.append(Problem(root, what, f"get {dataset.download}"))
        if new or part.problems or part.warnings:
            parts.append(part)
        checked |= set(part.samples.pairs)
    report = check_parts(dataset.classes, parts, advance)
    listed = {problem for part in parts for problem in part.problems}
    again = f"unpack it again; get {dataset.download}"  # the user did not make these files and cannot correct them
    return replace(report, problems=tuple(p if p in listed else replace(p, remedy=again) for p in report.problems))


def _load(split: str, root: Path, dataset: Dataset) -> Part:
    """Load a split, including pairs with missing files; without any pairs if their list is missing."""
    assert dataset.classes is not None
    if dataset.folders is not None and dataset.label_map is not None:
        samples = PairedFiles(dataset.classes, [], dataset.label_map)
        return pair_folders(split, Folders(*dataset.folders(root, split)), samples, f"get {dataset.download}")
    problems: list[Problem] = []
    samples = PairedFiles(dataset.classes, [], LabelMap({}, len(dataset.classes)))
    with collect_problems(problems, root):
        loaded = dataset.load(root, split, complete=False)
        assert isinstance(loaded, PairedFiles)
        samples = loaded
    for kind, files in (("images", [p.image for p in samples.pairs]), ("masks", [p.mask for p in samples.pairs])):
        exists = {folder: folder.is_dir() for folder in {file.parent for file in files}}
        missing = Counter(_outermost_missing(file.parent) for file in files if not exists[file.parent])
        problems += [
            Problem(folder, f"no such folder: {count} {kind} of {split} are missing", "unpack the whole dataset")
            for folder, count in sorted(missing.items())
        ]
    problems = [replace(p, remedy=f"{p.remedy}; get {dataset.download}") for p in problems]
    return Part(split, samples, *((problems, []) if split in SPLITS else ([], problems)))


def _outermost_missing(folder: Path) -> Path:
    """Return the folder, or its outermost parent that does not exist either."""
    return folder if folder.parent.is_dir() else _outermost_missing(folder.parent)
