"""Folders on a local disk or in an object store: s3://, gs://, hdfs:// and abfs:// through pyarrow.fs.

A file appears completely or not at all. In object stores, it is written by a single PUT, or a multipart upload if it is
large; on a local disk and on HDFS, under a temporary name that is then changed. Credentials and the address of the
store come from the environment, as the store's own tools read them.
"""

import random
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from danet.errors import InputError, missing_package
from danet.files import make_folder, read_limited, write_atomically
from danet.portability import address_text

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

SCHEMES = ("s3", "gs", "hdfs", "abfs", "abfss")
"""Schemes of the addresses of object stores."""

ATTEMPTS = 5
"""Number of times that a request is tried before the run ends."""

_ADDRESS = re.compile(rf"({'|'.join(SCHEMES)}):/+([^/]+)/*(.*)")
_FIRST_WAIT = 0.25  # seconds; doubled after each attempt
_MAX_BYTES = 4 << 30

Value = TypeVar("Value")


class StoredFile(NamedTuple):
    """A file in an object store.

    Args:
        name: its path below the folder.
        size: in bytes.
        modified: nanoseconds since 1970.
    """

    name: str
    size: int
    modified: int


def store_address(path: Path | str) -> str | None:
    """Return the address of an object store, whose slashes `Path` has joined, or None for a local path."""
    found = _ADDRESS.fullmatch(address_text(path))
    return f"{found[1]}://{found[2]}/{found[3]}".rstrip("/") if found else None


def require_pyarrow(where: object) -> None:
    """Check that pyarrow is installed.

    Raises:
        InputError: it is not.
    """
    try:
        import pyarrow.fs  # noqa: F401
    except ImportError as error:
        raise missing_package(where, "needs pyarrow, which is not installed", "ray") from error


@dataclass(frozen=True)
class Folder:
    """A folder that need not exist yet.

    Args:
        root: a local path, or the address of an object store.
    """

    root: str

    @classmethod
    def at(cls, path: Path | str) -> "Folder":
        """Return the folder at a path as users give it."""
        return cls(store_address(path) or str(path))

    @property
    def local(self) -> Path | None:
        """The path on the local disk; None in an object store."""
        return None if store_address(self.root) else Path(self.root)

    def address(self, name: str) -> str:
        """Return the full path or address of a file in it."""
        return f"{self.root}/{name}" if self.local is None else str(self.local / name)

    def names(self, subfolder: str = "") -> set[str]:
        """Return the names of the visible files and folders in it or a subfolder; empty if it does not exist.

        Raises:
            OSError: the folder cannot be read.
        """
        if self.local is not None:
            folder = self.local / subfolder
            entries = folder.iterdir() if folder.is_dir() else ()
            return {entry.name for entry in entries if not entry.name.startswith(".")}
        return {file.name.split("/")[0] for file in _listed(self.address(subfolder).rstrip("/"), recursive=False)}

    def exists(self, name: str) -> bool:
        """Return whether a file exists in it."""
        if self.local is not None:
            return (self.local / name).is_file()
        parent, _, own = name.rpartition("/")
        return own in self.names(parent)

    def read(self, name: str) -> bytes:
        """Return the content of a file.

        Raises:
            InputError: there is no such file.
            OSError: it cannot be read.
        """
        address = self.address(name)
        return read_limited(Path(address), _MAX_BYTES) if self.local is not None else download(address)

    def delete(self, name: str) -> None:
        """Delete a file that exists.

        Raises:
            OSError: it cannot be deleted.
        """
        address = self.address(name)
        if self.local is not None:
            Path(address).unlink()
        else:
            _retried(address, lambda: _delete(address))

    def write(self, name: str, content: bytes, overwrite: bool = True) -> None:
        """Write a file, and the folders that it is in.

        Args:
            name: its path below the folder.
            content: its bytes.
            overwrite: replace a file that exists. In an object store, a file that another process writes at the same
                moment is replaced nevertheless.

        Raises:
            InputError: it cannot be written; it exists and `overwrite` is False.
        """
        address = self.address(name)
        if self.local is not None:
            make_folder(Path(address).parent)
            write_atomically(Path(address), content, overwrite)
            return
        if not overwrite and self.exists(name):
            raise InputError(address, "already exists", "choose another name")
        try:
            _retried(address, lambda: _upload(address, content))
        except OSError as error:
            what = f"cannot write {len(content):,} bytes ({error.strerror})"
            raise InputError(address, what, "run the same command again to continue") from error


def find_file(address: str) -> StoredFile | None:
    """Return the file at an address of an object store, or None if there is none. Its name is empty.

    Raises:
        OSError: the store cannot be reached.
    """
    system, path = _located(address)
    info = _retried(address, lambda: system.get_file_info(path.rstrip("/")))
    return StoredFile("", info.size or 0, info.mtime_ns or 0) if info.is_file else None


def list_files(address: str) -> Iterator[StoredFile]:
    """Yield the files below an address of an object store in the order of their names, hidden ones excluded.

    Raises:
        InputError: there is nothing there.
        OSError: the store cannot be reached.
    """
    found = False
    for file in sorted(_listed(address, recursive=True)):
        if not any(part.startswith(".") for part in file.name.split("/")):
            found = True
            yield file
    if not found:
        raise InputError(address, "no such folder, or no files in it", "check the address")


def download(address: str) -> bytes:
    """Return the content of a file in an object store.

    Raises:
        InputError: there is no such file.
        OSError: it cannot be read, after `ATTEMPTS` attempts.
    """

    def read() -> bytes:
        system, path = _located(address)
        with system.open_input_stream(path) as stream:
            return stream.read()

    try:
        return _retried(address, read)
    except FileNotFoundError as error:
        raise InputError(address, "no such file", "check the address") from error


@lru_cache
def _system(scheme: str, authority: str) -> "tuple[FileSystem, str]":
    """Return the file system of a store, and the path of its root."""
    require_pyarrow(f"{scheme}://{authority}")
    from pyarrow import ArrowException
    from pyarrow.fs import FileSystem

    options = "?allow_delayed_open=true" if scheme == "s3" else ""  # small files by a single PUT
    try:
        system, root = FileSystem.from_uri(f"{scheme}://{authority}/{options}")
    except (ArrowException, OSError) as error:
        what = f"cannot be opened ({_joined(error)})"
        raise InputError(f"{scheme}://{authority}", what, "check the address and the credentials") from error
    return system, root.rstrip("/")


def _located(address: str) -> "tuple[FileSystem, str]":
    found = _ADDRESS.fullmatch(address)
    assert found is not None, address
    system, root = _system(found[1], found[2])
    return system, f"{root}/{found[3]}"


def _listed(address: str, recursive: bool) -> list[StoredFile]:
    from pyarrow.fs import FileSelector, FileType

    system, path = _located(address)
    base = path.rstrip("/")
    selector = FileSelector(base, allow_not_found=True, recursive=recursive)
    files = _retried(address, lambda: system.get_file_info(selector))
    return [
        StoredFile(info.path[len(base) + 1 :], info.size or 0, info.mtime_ns or 0)
        for info in files
        if info.type == FileType.File or not recursive
    ]


def _delete(address: str) -> None:
    system, path = _located(address)
    system.delete_file(path)


def _upload(address: str, content: bytes) -> None:
    system, path = _located(address)
    if system.type_name != "hdfs":
        with system.open_output_stream(path) as stream:
            stream.write(content)
        return
    folder, _, name = path.rpartition("/")
    temporary = f"{folder}/.danet-{secrets.token_hex(8)}-{name}"
    system.create_dir(folder, recursive=True)
    with system.open_output_stream(temporary) as stream:
        stream.write(content)
    if system.get_file_info(path).is_file:
        system.delete_file(path)  # HDFS does not replace files
    system.move(temporary, path)


def _retried(address: str, request: Callable[[], Value]) -> Value:
    """Return the result of a request, which is repeated after errors of the store, with growing pauses."""
    for attempt in range(1, ATTEMPTS + 1):
        with _one_line(address):
            try:
                return request()
            except FileNotFoundError:
                raise
            except OSError:
                if attempt == ATTEMPTS:
                    raise
        time.sleep(_FIRST_WAIT * 2**attempt * random.uniform(0.5, 1))  # noqa: S311 (no secret)
    raise AssertionError


@contextmanager
def _one_line(address: str) -> Iterator[None]:
    """Give errors of pyarrow the address and a message of one line."""
    try:
        yield
    except OSError as error:
        error.strerror = _joined(error)
        error.filename = address
        raise


def _joined(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
