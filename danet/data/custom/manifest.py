"""Hashes of a dataset's files, and what changed since: damage that still decodes is found by nothing else.

Used by `danet check --manifest FILE`.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from danet.data.custom.verify import Problem, each, noting
from danet.data.images.read import SUFFIXES
from danet.errors import InputError


def files_below(root: Path) -> list[Path]:
    """The images and masks anywhere below a folder, in order."""
    return sorted(file for file in root.rglob("*") if file.suffix.lower() in (*SUFFIXES, ".mat") and file.is_file())


def read(file: Path) -> dict[str, str]:
    """A manifest that was written as JSON.

    Raises:
        InputError: it is none.
    """
    try:
        hashes = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(file, f"cannot be read as a manifest ({error})", "write it again") from error
    if not isinstance(hashes, dict) or not all(isinstance(value, str) for value in hashes.values()):
        raise InputError(file, "holds no hashes by path", "write it again")
    return hashes


def manifest(root: Path, files: Sequence[Path]) -> dict[str, str]:
    """Path below `root`, with / between its parts -> SHA-256 of the file, in hexadecimal.

    Raises:
        InputError: a file that cannot be read, or does not lie below `root`.
    """
    strangers = [file for file in files if not file.is_relative_to(root)]
    if strangers:
        raise InputError(strangers[0], f"does not lie in {root}", "give the folder that holds all files")
    hashes = each(_sha256, files)
    return {file.relative_to(root).as_posix(): found for file, found in zip(files, hashes, strict=True)}


def verify(root: Path, hashes: Mapping[str, str]) -> list[Problem]:
    """Each file of a manifest that is missing, or is not what it was."""

    def compare(entry: tuple[str, str]) -> list[Problem]:
        file, problems = root / entry[0], []
        with noting(problems, file):
            if _sha256(file) != entry[1]:
                problems.append(Problem(file, "is not the file of the manifest (another SHA-256)", "copy it again"))
        return problems

    return [problem for problems in each(compare, list(hashes.items())) for problem in problems]


def _sha256(file: Path) -> str:
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "copy it again") from error
