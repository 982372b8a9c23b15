"""The command danet init."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from danet.cli.parsing import parse
from danet.errors import printable


@dataclass(frozen=True)
class Init:
    """Read the images and masks in a folder, and propose its dataset.yaml: classes, label map, folders.

    Example: danet init my_images
    """

    folder: tyro.conf.Positional[Path]
    """the folder that contains the images and masks"""
    ignore: int | None = None
    """mask value of unlabeled pixels, if you know it"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Init, args, "init")
    from danet.data.custom.proposal import new_file, write
    from danet.data.custom.propose import propose

    new_file(options.folder)  # before reading many masks
    proposal = propose(options.folder, options.ignore)
    file = write(options.folder, proposal)
    count = len(proposal.classes)
    found = f"{count} class{'es' * (count != 1)} in {proposal.pairs} masks ({proposal.kind})"
    print(printable(f"wrote {file}: {found}"))
    for note in proposal.notes:
        print(printable(f"review: {note}"))
    print(printable(f"next: edit {file} if necessary, then run danet check {shlex.quote(str(options.folder))}"))
    return 0
