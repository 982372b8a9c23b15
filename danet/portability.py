"""What differs between Linux, macOS and Windows: locks of files, flags of `os.open`, flushing, signals, and memory.

Modules that only some systems have are imported here and nowhere else.
"""

import ctypes  # noqa: TID251 (settings of the C library's allocator)
import errno
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def _optional(name: str) -> Any:
    """Import a module that only some systems have; None if this one does not."""
    return import_module(name) if find_spec(name) else None


WINDOWS = os.name == "nt"
_fcntl, _msvcrt, _resource = (_optional(name) for name in ("fcntl", "msvcrt", "resource"))

CLOEXEC: int = getattr(os, "O_CLOEXEC", getattr(os, "O_NOINHERIT", 0))
"""Programs that this process starts do not inherit the file."""
NOFOLLOW: int = getattr(os, "O_NOFOLLOW", 0)
"""Refuse to open a link; 0 on Windows, where creating links needs a privilege."""
NONBLOCK: int = getattr(os, "O_NONBLOCK", 0)
"""Do not wait for the other end of a pipe; 0 on Windows, which has no pipes among its files."""
BINARY: int = getattr(os, "O_BINARY", 0)
"""Keep the ends of lines, which Windows would translate."""

_CGROUPS = (  # limit, used, and in memory.stat what of it is a cache of files that can be dropped
    ("memory.max", "memory.current", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
)
_LOCKED_BYTE = 1 << 30  # behind the content: Windows lets nobody else read what is locked
_MOST_FILES = 8192  # of Windows' C library
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
_NEVER, _LARGEST_BLOCK = -1, 1 << 30
_USUAL_BLOCK = 32 << 20  # up to which glibc itself raises its threshold


def lock(descriptor: int) -> None:
    """Lock an open file, without waiting. The lock ends when the descriptor is closed.

    Raises:
        BlockingIOError: it is locked.
        OSError: the file system has no locks.
    """
    if _fcntl is None:
        _lock_byte(descriptor)
    else:
        _fcntl.flock(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)


def lock_for_process(descriptor: int) -> None:
    """Lock an open file for this process: forked processes do not inherit this lock, unlike that of `lock`.

    Raises:
        BlockingIOError: another process has locked it.
        OSError: the file system has no locks.
    """
    if _fcntl is None:
        _lock_byte(descriptor)
    else:
        _fcntl.lockf(descriptor, _fcntl.LOCK_EX | _fcntl.LOCK_NB)


def _lock_byte(descriptor: int) -> None:
    """Lock a byte with msvcrt, which locks from the position of the file on."""
    position = os.lseek(descriptor, 0, os.SEEK_CUR)
    os.lseek(descriptor, _LOCKED_BYTE, os.SEEK_SET)
    try:
        _msvcrt.locking(descriptor, _msvcrt.LK_NBLCK, 1)
    except OSError as error:
        raise BlockingIOError(errno.EWOULDBLOCK, "another process has locked it") from error
    finally:
        os.lseek(descriptor, position, os.SEEK_SET)


def flush(path: Path) -> None:
    """Flush a file's content, or a folder's entries, to disk. Windows flushes files only, and opened for writing."""
    if WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR | BINARY if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def flush_all() -> None:
    """Flush all files to disk, where one call can do this."""
    if not WINDOWS:
        os.sync()


@contextmanager
def blocked_signals(numbers: Sequence[signal.Signals]) -> Iterator[None]:
    """Block signals in this thread and in processes that it starts, until the block ends.

    Windows has no such mask.
    """
    mask = getattr(signal, "pthread_sigmask", None)
    before = None if mask is None else mask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        if mask is not None:
            mask(signal.SIG_SETMASK, before)


def unblock_signals(numbers: Sequence[signal.Signals]) -> None:
    """Receive signals that were blocked when this process was started."""
    if (mask := getattr(signal, "pthread_sigmask", None)) is not None:
        mask(signal.SIG_UNBLOCK, numbers)


def end_after(seconds: int) -> None:
    """End this process after some seconds, even if it hangs. Windows has no alarm: the process is left alone."""
    if (alarm := getattr(signal, "alarm", None)) is not None:
        alarm(seconds)


def free_files() -> int:
    """Return how many files and connections this process can still open."""
    if _resource is None:
        return _MOST_FILES
    return _resource.getrlimit(_resource.RLIMIT_NOFILE)[0] - len(os.listdir("/dev/fd"))  # noqa: PTH208


def address_text(path: Path | str) -> str:
    """Return the text of a path that may be an address, such as hf://user/repo, with the slashes of addresses.

    Windows' `Path` turns them into backslashes.
    """
    return str(path).replace("\\", "/")


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in this block for the next allocations, and return it to the system afterwards.

    A network allocates and frees hundreds of megabytes per batch on a CPU. By default the C library returns them to the
    system, which clears each page again: up to a third of the time of a training step. Has an effect with glibc only.
    """
    try:
        mallopt, trim = (getattr(ctypes.CDLL(None), name) for name in ("mallopt", "malloc_trim"))
    except (AttributeError, OSError, TypeError):  # another C library
        yield
        return
    mallopt(_MMAP_THRESHOLD, _LARGEST_BLOCK)
    mallopt(_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_MMAP_THRESHOLD, _USUAL_BLOCK)
        mallopt(_TRIM_THRESHOLD, 2 * _USUAL_BLOCK)
        trim(0)


def available_memory(root: Path = Path("/")) -> int | None:
    """Return the bytes of memory that this process can still use without swapping; None if they are not known.

    On Linux, a container's limit counts. macOS tells only how much the machine has.

    Args:
        root: where the folders proc and sys are.
    """
    try:
        free = int(re.findall(r"MemAvailable: *(\d+) kB", (root / "proc/meminfo").read_text())[0]) * 1024
    except (OSError, IndexError):
        known = hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if known else None
    for limit, used, cache in _CGROUPS:
        group = root / "sys/fs/cgroup"
        try:
            left = int((group / limit).read_text()) - int((group / used).read_text())
        except (OSError, ValueError):  # no such group, or no limit: max
            continue
        with suppress(OSError, IndexError):
            stat = (group / limit).with_name("memory.stat").read_text()
            left += int(re.findall(rf"(?m)^{cache} (\d+)$", stat)[0])
        free = min(free, max(left, 0))
    return free
