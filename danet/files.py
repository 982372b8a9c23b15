"""Files that are whole or not there, whatever happens while they are written."""

import errno
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from danet.errors import InputError

_NUMBERS = itertools.count()
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def make_folder(folder: Path) -> None:
    """Make a folder for results, where there is none yet; raises InputError if it cannot be."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot be written ({error.strerror})", "give --out another folder") from error


def check_writable(folder: Path) -> Path:
    """Raises InputError if results could not be written into a folder that is there, or is still to be made; returns it
    or the nearest folder around it that is there.
    """
    there = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not there.is_dir():
        raise InputError(folder, f"cannot be written ({there} is no folder)", "give --out another folder")
    if not os.access(there, os.W_OK | os.X_OK):
        what = "no permission, or a read-only disk"
        raise InputError(folder, f"cannot be written ({what})", "give --out another folder")
    return there


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; after a power cut it is the old one or the new one.

    Raises:
        InputError: the disk is full, or the folder cannot be written.
    """
    try:
        with written_whole(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        what = f"{len(content):,} bytes cannot be written ({error.strerror})"
        remedy = "free some space" if error.errno in FULL else "give another folder, or change its permissions"
        raise InputError(path, what, remedy) from error


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A name beside `path`, hidden and of its suffix, to write to. When the block has ended that file becomes `path`;
    when the block fails it is removed.
    """
    temporary = path.with_name(f".danet-{os.getpid()}-{next(_NUMBERS)}{path.suffix}")
    try:
        yield temporary
        flush(temporary)
        temporary.replace(path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the disk hold what was written to a file, or a folder's names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
