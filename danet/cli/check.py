"""`danet check`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.output import progress
from danet.cli.parsing import parse, printable
from danet.errors import InputError
from danet.files import check_outputs, write_json


@dataclass(frozen=True)
class Check:
    """Everything that is wrong with a dataset, in one run: files, pairs, sizes, values, counts. Exit 2 if anything is.

    For example: danet check my_images; danet check --dataset cityscapes --root DIR
    """

    folder: tyro.conf.Positional[Path | None] = None
    """your own folder, with its dataset.yaml (danet init writes one)"""
    dataset: str | None = None
    """or a dataset's name: camvid, cityscapes, voc, context, context59, coco-stuff, ade20k"""
    root: Path | None = None
    """and its folder"""
    json: Path | None = None
    """write the whole report to this file too; - for standard output and the text on standard error"""
    manifest: Path | None = None
    """a file of SHA-256 hashes: written if it is not there, else every file is compared with it"""


def run(args: Sequence[str]) -> int:
    options = parse(Check, args, "check")
    from danet.data.custom import check

    if (options.folder is None) == (options.dataset is None):
        raise InputError("danet check", "wants a folder, or --dataset NAME --root DIR", "give one of them")
    root = options.folder or options.root
    if root is None:
        raise InputError("--root", "missing", f"give the folder of {options.dataset}")
    begun = options.manifest is not None and options.manifest.exists()  # then it is read, not written
    check_outputs(options.json, None if begun else options.manifest)
    with progress("checking") as advance:
        if options.dataset is None:
            report = check.check_folder(root, advance)
        else:
            report = check.check_dataset(options.dataset, root, advance)
    _say(check.lines(report), options)
    changed = []
    if options.manifest is not None and begun:
        changed = _changed(options.manifest, root)
        _say([f"error: {problem}" for problem in changed], options)
    elif options.manifest is not None:
        _say([_write_manifest(options.manifest, root)], options)
    if options.json is not None:
        write_json(options.json, report.as_dict())
    return 2 if report.problems or changed else 0


def _say(lines: Sequence[str], options: Check) -> None:
    for line in lines:
        print(printable(line), file=sys.stderr if str(options.json) == "-" else sys.stdout)


def _changed(file: Path, root: Path) -> list[object]:
    """What differs from the manifest."""
    from danet.data.custom import manifest

    return list(manifest.verify(root, manifest.read(file)))


def _write_manifest(file: Path, root: Path) -> str:
    """Returns what to tell of it."""
    from danet.data.custom import manifest

    hashes = manifest.manifest(root, manifest.files_below(root))
    write_json(file, hashes)
    return f"{file}: hashes of {len(hashes)} files"
