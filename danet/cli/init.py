"""The command danet init."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import tyro

from danet.cli.parsing import parse
from danet.errors import InputError, print_note, printable
from danet.text import shell_path

if TYPE_CHECKING:
    from danet.data.custom.name_classes import Reading


@dataclass(frozen=True)
class Init:
    """Read the images and masks in a folder, and propose its dataset.yaml: classes, label map, folders.

    Example: danet init my_images
    """

    folder: tyro.conf.Positional[Path]
    """the folder that contains the images and masks"""
    ignore: int | None = None
    """mask value of unlabeled pixels, if you know it"""
    first_class: int | None = None
    """0 or 1: the mask value of the first name in a list of class names such as classes.txt; needed only if danet asks
    for it"""


def run(args: Sequence[str]) -> int:
    """Run the command and return its exit status."""
    options = parse(Init, args, "init")
    from danet.data.custom.name_classes import refuse_to_choose
    from danet.data.custom.proposal import new_file, write
    from danet.data.custom.propose import propose

    new_file(options.folder)  # before reading many masks
    proposal = propose(
        options.folder,
        options.ignore,
        options.first_class,
        _ask if sys.stdin.isatty() and sys.stderr.isatty() else refuse_to_choose,
    )
    file = write(options.folder, proposal)
    count = len(proposal.classes)
    masks = f"{proposal.pairs} mask{'s' * (proposal.pairs != 1)} ({proposal.kind})"
    found = f"{count} class{'es' * (count != 1)} in {masks}"
    print(printable(f"wrote {file}: {found}"))
    if proposal.division:
        print(printable(proposal.division))
    for note in proposal.notes:
        print(printable(f"review: {note}"))
    if size := _describe_size(options.folder):
        print(printable(f"size: {size}"))
    print(printable(f"next: edit {file} if necessary, then run danet check {shell_path(options.folder)}"))
    return 0


def _describe_size(folder: Path) -> str | None:
    """Return the size that `danet train folder` chooses, with what is seen at it; None if no mask can be read."""
    from danet import recipes
    from danet.data import registry
    from danet.train.scale import measure, with_size

    try:
        found = measure(registry.load("folder", folder, "train"))
    except InputError:  # danet check reports it
        return None
    return None if found is None else found.describe(with_size(recipes.find("folder"), found).data.size)


def _ask(what: str, readings: "Sequence[Reading]") -> "Reading":
    """Ask on the terminal which reading of a list of names is right."""
    print_note(what)
    for reading in readings:
        print_note(f"  {reading.first_class}: {reading.text}")
    by_answer = {str(reading.first_class): reading for reading in readings}
    answer = ""
    while answer not in by_answer:
        print(f"which is right, {' or '.join(by_answer)}? ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt
        answer = line.strip()
    return by_answer[answer]
