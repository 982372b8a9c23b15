"""`danet init`."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import parse, printable


@dataclass(frozen=True)
class Init:
    """Look at the images and masks of a folder, and propose its dataset.yaml: classes, label map, what is doubtful.

    For example: danet init my_images
    """

    folder: tyro.conf.Positional[Path]
    """the folder that holds images and masks"""
    ignore: int | None = None
    """the mask value that means unlabeled, if you know it"""


def run(args: Sequence[str]) -> int:
    options = parse(Init, args, "init")
    from danet.data.custom.propose import propose, write

    proposal = propose(options.folder, options.ignore)
    file = write(options.folder, proposal)
    print(printable(f"{file}: {len(proposal.classes)} classes from {proposal.pairs} masks ({proposal.kind})"))
    for note in proposal.notes:
        print(printable(f"note: {note}"))
    print(printable(f"next: danet check {shlex.quote(str(options.folder))}"))
    return 0
