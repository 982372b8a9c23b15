"""Write files atomically, read files safely, and check output paths before the work begins."""

import errno
import json
import os
import re
import secrets
import shutil
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from danet import portability
from danet.errors import InputError
from danet.portability import BINARY, CLOEXEC, NOFOLLOW, NONBLOCK, flush, flush_all

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The error numbers of a full disk, an exhausted quota and a file size limit."""

SETTINGS_BYTES = 256 << 10
"""Maximum size of a file of settings."""

_HIDDEN = ".danet-"
_FOLDER, _LOCK = re.compile(r"\.danet-[0-9a-f]{16}"), ".danet-lock"
_ALREADY_EXISTS = "already exists"


def make_folder(folder: Path) -> None:
    """Create a folder for results if it does not exist.

    Raises:
        InputError: the folder cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(folder, f"cannot create the folder ({error.strerror})", "choose another folder") from error


def check_writable(folder: Path) -> Path:
    """Check that files can be written into a folder, which need not exist yet.

    Returns:
        The folder, or its nearest existing parent.

    Raises:
        InputError: the folder is a file, or permissions forbid writing.
    """
    existing = next(place for place in (folder, *folder.absolute().parents) if os.path.lexists(place))
    if not existing.is_dir():
        raise InputError(folder, f"cannot write there ({existing} is not a folder)", "choose another folder")
    if not os.access(existing, os.W_OK | os.X_OK):
        what = "cannot write there (no permission, or a read-only disk)"
        raise InputError(folder, what, "choose another folder")
    return existing


def ignores_case(folder: Path) -> bool:
    """Return whether names in a folder, which need not exist yet, are equal if only their case differs."""
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    for place in (existing, *existing.parents):
        other = place.with_name(place.name.swapcase()) if place.name else place
        if other != place:
            return other.exists() and other.samefile(place)
    return False


def check_new(*paths: Path, overwrite: bool = False, remedy: str = "choose another `out`, or add `overwrite`") -> None:
    """Check that output files do not exist yet.

    Raises:
        InputError: a file exists and `overwrite` is False.
    """
    for path in paths:
        if path.exists() and not overwrite:
            raise InputError(path, _ALREADY_EXISTS, remedy)


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


def write_atomically(path: Path, content: bytes, overwrite: bool = True) -> None:
    """Write a file completely or not at all. After a power cut, the file is either the old one or the new one.

    Args:
        path: the file.
        content: its bytes.
        overwrite: replace a file that exists, or has been created meanwhile.

    Raises:
        InputError: the disk is full, or the folder cannot be written to; the file exists and `overwrite` is False.
    """
    try:
        with atomic_path(path, overwrite) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise write_error(path, error, f"cannot write {len(content):,} bytes") from error


def write_error(path: Path, error: OSError, what: str = "cannot be written") -> InputError:
    """Return the error for a file or folder that could not be written.

    Args:
        path: the file or folder.
        error: the cause.
        what: what went wrong; the reason is added.
    """
    remedy = "free some space" if error.errno in FULL else "choose another folder, or change its permissions"
    return InputError(path, f"{what} ({error.strerror})", remedy)


def write_json(path: Path, value: Any, overwrite: bool = True) -> None:
    """Write a value as indented JSON, atomically; "-" writes to standard output.

    Args:
        path: the file.
        value: the value.
        overwrite: see `write_atomically`.

    Raises:
        InputError: see `write_atomically`.
    """
    text = json.dumps(value, indent=2) + "\n"
    if str(path) == "-":
        print(text, end="")
    else:
        write_atomically(path, text.encode(), overwrite)


@contextmanager
def atomic_path(path: Path, overwrite: bool = True) -> Iterator[Path]:
    """Yield the path of a new empty file beside `path`, hidden and with the same suffix.

    When the block ends, this file becomes `path`; if the block fails, it is removed. It is locked meanwhile, so that
    `remove_incomplete` keeps it. Its name is random: processes in several containers may have the same number.

    Args:
        path: the file to write.
        overwrite: replace a file that exists, or has been created meanwhile.

    Raises:
        InputError: the file exists and `overwrite` is False.
    """
    temporary, descriptor = _create_locked(path)
    try:
        yield temporary
        flush(temporary)
        if portability.WINDOWS:  # which renames no open files
            descriptor = os.close(descriptor)
        if overwrite:
            temporary.replace(path)
        else:
            _rename_to_new(temporary, path)
        flush(path.parent)
    finally:
        if descriptor is not None:
            os.close(descriptor)
        temporary.unlink(missing_ok=True)


def _create_locked(path: Path) -> tuple[Path, int]:
    """Create a hidden file beside `path` and lock it; return its path and descriptor."""
    while True:
        temporary = path.with_name(f"{_HIDDEN}{secrets.token_hex(8)}{path.suffix}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOEXEC | BINARY, 0o666)
        try:
            portability.lock(descriptor)
            if temporary.exists():
                return temporary, descriptor
        except BlockingIOError:  # `remove_incomplete` was faster
            pass
        except OSError:  # a file system without locks
            return temporary, descriptor
        os.close(descriptor)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path`, hidden.

    When the block ends, it becomes `path`, which must not exist or be empty; if the block fails, it is removed. The
    folder contains a locked file meanwhile. Except on Windows, those that killed processes left are removed first.
    """
    if not portability.WINDOWS:  # where a file cannot be removed before it is unlocked
        _remove_incomplete_folders(path.parent)
    temporary, descriptor = _create_locked_folder(path)
    try:
        try:
            os.write(descriptor, _machine())
            yield temporary
            flush_all()
        finally:
            if portability.WINDOWS:
                os.close(descriptor)
            (temporary / _LOCK).unlink(missing_ok=True)
            if not portability.WINDOWS:
                os.close(descriptor)
        if portability.WINDOWS and path.is_dir():  # it replaces no folders, not even empty ones
            path.rmdir()
        temporary.replace(path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _create_locked_folder(path: Path) -> tuple[Path, int]:
    """Create a hidden folder beside `path`, with a locked file; return its path and the file's descriptor."""
    while True:
        temporary = path.with_name(f"{_HIDDEN}{secrets.token_hex(8)}")
        temporary.mkdir(parents=True)
        with suppress(FileNotFoundError):  # another process was faster to remove it
            descriptor = os.open(temporary / _LOCK, os.O_WRONLY | os.O_CREAT | os.O_EXCL | CLOEXEC | BINARY, 0o666)
            with suppress(OSError):  # a file system without locks
                portability.lock(descriptor)
            if (temporary / _LOCK).exists():
                return temporary, descriptor
            os.close(descriptor)


def _remove_incomplete_folders(parent: Path) -> None:
    """Remove the folders that killed processes of this machine left; those being written contain a locked file.

    Some shared disks have locks for each machine alone.
    """
    for folder in parent.glob(f"{_HIDDEN}*"):
        file = folder / _LOCK
        with suppress(OSError, ValueError):  # not ours, or being written
            if _FOLDER.fullmatch(folder.name) and not folder.is_symlink() and read_limited(file) == _machine():
                with _locked(file):
                    shutil.rmtree(folder)


def _machine() -> bytes:
    return socket.gethostname().encode()


def _rename_to_new(temporary: Path, path: Path) -> None:
    try:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise
        except OSError:  # a file system without links
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
            temporary.replace(path)
    except FileExistsError as error:
        what = f"{_ALREADY_EXISTS}: another process wrote it meanwhile"
        raise InputError(path, what, "choose another name") from error


def is_incomplete(path: Path) -> bool:
    """Return whether a file or folder is one that is still being written, or that a killed process left."""
    return path.name.startswith(_HIDDEN)


def remove_incomplete(folder: Path) -> None:
    """Remove the files that killed processes left in a folder while they wrote other files there.

    Files that a process is writing are locked, and stay. The folder need not exist.
    """
    for file in folder.glob(f"{_HIDDEN}*"):
        with suppress(OSError):  # removed meanwhile, not ours, or being written
            with _locked(file):
                if not portability.WINDOWS:
                    file.unlink()
            if portability.WINDOWS:  # which removes no open files
                file.unlink()


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Lock a file that a killed process may have left.

    Raises:
        OSError: it does not exist, is not a regular file, or another process has locked it.
    """
    descriptor = os.open(file, os.O_RDWR | NONBLOCK | NOFOLLOW | CLOEXEC | BINARY)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            _raise_irregular(file)
        portability.lock(descriptor)
        if not os.fstat(descriptor).st_nlink:
            raise FileNotFoundError(errno.ENOENT, "removed meanwhile", str(file))
        yield
    finally:
        os.close(descriptor)


@contextmanager
def open_regular(path: Path) -> Iterator[BufferedReader]:
    """Open a regular file for reading, without waiting for other kinds of files: a FIFO may never have a writer.

    Raises:
        OSError: the file does not exist, cannot be read, or is not a regular file.
        ValueError: not a possible name of a file.
    """
    descriptor = _open_checked(path, os.O_RDONLY | NONBLOCK)
    with open(descriptor, "rb") as file:
        yield file


def open_own(path: Path, flags: int) -> int:
    """Open a file that danet itself writes in a folder of its own, and return the descriptor.

    Such a folder may come from somebody else, and must not redirect what is written into it to other files.

    Args:
        path: the file.
        flags: as of `os.open`.

    Raises:
        OSError: the file cannot be opened, is not a regular file, or is a link or has other names.
    """
    link = OSError(errno.ELOOP, "it is a link to another file", str(path))
    try:
        descriptor = _open_checked(path, flags | NOFOLLOW | NONBLOCK)
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise link from error
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise link
    return descriptor


def _open_checked(path: Path, flags: int) -> int:
    if path.exists() and not path.is_file():  # opening a device may have effects
        _raise_irregular(path)
    descriptor = os.open(path, flags | CLOEXEC | BINARY, 0o644)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # replaced meanwhile
        os.close(descriptor)
        _raise_irregular(path)
    return descriptor


def _raise_irregular(path: Path) -> NoReturn:
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "it is a folder", str(path))
    raise OSError(errno.EINVAL, "it is not a regular file", str(path))


def read_limited(path: Path, limit: int = SETTINGS_BYTES) -> bytes:
    """Return the content of a regular file of settings, a list or a table.

    Args:
        path: the file.
        limit: maximum size in bytes.

    Raises:
        OSError: see `open_regular`.
        ValueError: the file is larger; the message is one line.
    """
    with open_regular(path) as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise ValueError(f"larger than {limit:,} bytes")
    return content


def walk_files(folder: Path) -> Iterator[Path]:
    """Yield all files below a folder, sorted; linked folders are followed, each once, and hidden ones are left out.

    Raises:
        InputError: a folder cannot be read.
    """
    seen: set[str] = set()
    for place, folders, files in os.walk(folder, onerror=_raise_unreadable, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if real not in seen else []
        if real not in seen:
            yield from (Path(place, name) for name in sorted(files) if not name.startswith("."))
        seen.add(real)


def _raise_unreadable(error: OSError) -> NoReturn:
    what = f"cannot read the folder ({error.strerror})"
    raise InputError(Path(error.filename), what, "change its permissions, or move it away") from error


def format_bytes(count: float) -> str:
    """Format a number of bytes with a binary unit: "61 MiB", "1.5 GiB"."""
    mebibytes = count / (1 << 20)
    return f"{mebibytes / 1024:.1f} GiB" if mebibytes >= 1024 else f"{mebibytes:.0f} MiB"
