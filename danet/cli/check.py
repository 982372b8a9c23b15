"""The command danet check."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from danet.cli.output import progress
from danet.cli.parsing import parse, with_flags
from danet.errors import InputError, printable
from danet.files import check_outputs, write_json


@dataclass(frozen=True)
class Check:
    """Find every problem in a dataset in one run: files, pairs, sizes, mask values, counts.

    The exit status is 2 if there are problems.

    Examples: danet check my_images; danet check --dataset cityscapes --root DIR
    """

    folder: tyro.conf.Positional[Path | None] = None
    """your own folder, with its dataset.yaml (danet init writes one)"""
    dataset: str | None = None
    """name of a public dataset, instead of FOLDER: camvid, cityscapes, voc, context, context59, coco-stuff or ade20k"""
    root: Path | None = None
    """folder of the public dataset"""
    json: Path | None = None
    """also write the report to this JSON file; - writes it to standard output, and the text to standard error"""
    manifest: Path | None = None
    """file of SHA-256 hashes; created if missing, otherwise every file is compared with it"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Check, args, "check")
    from danet.data.check import check_dataset
    from danet.data.custom.check import check_folder, report_lines
    from danet.data.custom.verify import hash_files, list_files, read_manifest, verify_hashes

    if (options.folder is None) == (options.dataset is None):
        raise InputError(
            "danet check", "needs either FOLDER or --dataset", "specify FOLDER, or --dataset NAME --root DIR"
        )
    if options.folder is not None and options.root is not None:
        raise InputError("root", "is for --dataset", "leave out FOLDER or --root")
    root = options.folder or options.root or Path()
    recorded = options.manifest is not None and options.manifest.exists()
    check_outputs(options.json, None if recorded else options.manifest)
    with progress("checking") as advance:
        if options.dataset is None:
            report = check_folder(root, advance)
        else:
            report = check_dataset(options.dataset, options.root, advance)
    if options.manifest is not None and recorded:
        changed = verify_hashes(root, read_manifest(options.manifest))
        report = replace(report, problems=(*report.problems, *changed))
    lines = report_lines(report)
    if options.manifest is not None and not recorded:
        hashes = hash_files(root, list_files(root))
        write_json(options.manifest, hashes, overwrite=False)
        lines.append(f"wrote {options.manifest}: hashes of {len(hashes)} files")
    for line in lines:
        print(printable(with_flags(line)), file=sys.stderr if str(options.json) == "-" else sys.stdout)
    if options.json is not None:
        write_json(options.json, report.as_dict(), overwrite=False)
    return 2 if report.problems else 0
