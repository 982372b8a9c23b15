"""Write files atomically, read settings files safely, and check output paths before the work begins."""

import errno
import itertools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from danet.errors import InputError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The error numbers of a full disk, an exhausted quota and a file size limit."""

_COUNTER = itertools.count()
_MAX_YAML_DEPTH = 20


def make_folder(folder: Path) -> None:
    """Create a folder for results if it does not exist.

    Raises:
        InputError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot create the folder ({error.strerror})", "choose another `out`") from error


def check_writable(folder: Path) -> Path:
    """Check that files can be written into a folder, which need not exist yet.

    Returns:
        The folder, or its nearest existing parent.

    Raises:
        InputError: the folder is a file, or permissions forbid writing.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise InputError(folder, f"cannot write there ({existing} is not a folder)", "choose another `out`")
    if not os.access(existing, os.W_OK | os.X_OK):
        what = "cannot write there (no permission, or a read-only disk)"
        raise InputError(folder, what, "choose another `out`")
    return existing


def check_new(*paths: Path, overwrite: bool = False, remedy: str = "choose another `out`, or add `overwrite`") -> None:
    """Check that output files do not exist yet.

    Raises:
        InputError: a file exists and `overwrite` is False.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(path, "already exists", remedy)


def check_outputs(
    *paths: Path | None, overwrite: bool = False, remedy: str = "choose another name, or move it away"
) -> None:
    """Check, before the work begins, that all output files can be written. Skip None and "-" (standard output).

    Raises:
        InputError: a file exists and `overwrite` is False, its folder does not exist or cannot be written to, or two
            results have the same path.
    """
    seen = set()
    for path in paths:
        if path is None or str(path) == "-":
            continue
        check_new(path, overwrite=overwrite, remedy=remedy)
        if not path.parent.is_dir():
            raise InputError(path, f"its folder {path.parent} does not exist", "create the folder, or choose another")
        check_writable(path.parent)
        if path.resolve() in seen:
            raise InputError(path, "two results would be written to this file", "choose a file for each")
        seen.add(path.resolve())


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely or not at all. After a power cut, the file is either the old one or the new one.

    Raises:
        InputError: the disk is full, or the folder cannot be written to.
    """
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        what = f"cannot write {len(content):,} bytes ({error.strerror})"
        remedy = "free some space" if error.errno in FULL else "choose another folder, or change its permissions"
        raise InputError(path, what, remedy) from error


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, atomically; "-" writes to standard output.

    Raises:
        InputError: the file cannot be written.
    """
    text = json.dumps(value, indent=2) + "\n"
    if str(path) == "-":
        print(text, end="")
    else:
        write_atomically(path, text.encode())


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, hidden and with the same suffix.

    When the block ends, the temporary file replaces `path`; if the block fails, it is removed.
    """
    temporary = path.with_name(f".danet-{os.getpid()}-{next(_COUNTER)}{path.suffix}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_yaml(file: Path) -> Any:
    """Read a YAML file of plain values: a user's dataset.yaml or a run's recipe.yaml.

    Aliases (&a, *a) and deep nesting are refused: no settings file needs them, a few lines of them fill the memory, and
    PyYAML takes minutes for deeply nested brackets.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is not YAML, or holds more than plain values; the message is one line.
    """
    content = file.read_bytes()
    try:
        depth = 0
        for event in yaml.parse(content, yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > _MAX_YAML_DEPTH or isinstance(event, yaml.AliasEvent):
                raise ValueError(f"nested deeper than {_MAX_YAML_DEPTH} levels, or an alias (*NAME)")
        return yaml.safe_load(content)
    except yaml.MarkedYAMLError as error:
        line = f" at line {error.problem_mark.line + 1}" if error.problem_mark else ""
        problem = re.sub(r",? but (got|found) .*", "", " ".join((error.problem or "syntax error").split()))
        raise ValueError(f"invalid YAML{line}: {problem[:300]}") from error
    except Exception as error:  # PyYAML raises a dozen exception types, for example for the date 2001-99-99
        raise ValueError(f"invalid YAML: {' '.join(str(error).split())[:300]}") from error


def format_bytes(count: float) -> str:
    """Format a number of bytes with a binary unit: "61 MiB", "1.5 GiB"."""
    mebibytes = count / (1 << 20)
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
