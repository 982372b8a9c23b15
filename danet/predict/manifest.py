"""The manifest of a batch: one Parquet file that lists all images. Every process of the batch works from it.

Columns: path; name, what the names of the results begin with; size in bytes and modified, in nanoseconds since 1970;
id, the hash of the path; shard, a number from 0. The rows of a shard are recorded together, in one file of results.
"""

import hashlib
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from danet.data.images.channels import RGB, Bands
from danet.errors import InputError
from danet.predict.inputs import Found, check_still, list_folder, reason_to_skip, result_name
from danet.predict.storage import Folder, find_file, list_files, store_address

_SHARDS = 2000
_MAX_ROWS = 500
"""The rows of a shard: as many as make 2,000 shards, but at most 500. A kill costs at most the shards in progress."""

_MAX_STEM = 150  # bytes; longer names are replaced by the id


class Entry(NamedTuple):
    """A row of the manifest; see the top of this file."""

    path: str
    name: str
    size: int
    modified: int
    id: str
    shard: int


class Share(NamedTuple):
    """The part `number` of `count` of a batch, from 1."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> "Share":
        """Return the share written as "3/8".

        Raises:
            InputError: it is not written like this.
        """
        number, _, count = text.partition("/")
        valid = number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)
        if not valid:
            raise InputError("shard", f"must be I/N with I from 1 to N, got {text!r}", "for example, use 1/8")
        return cls(int(number), int(count))


ALL = Share(1, 1)
"""The whole batch."""


class Manifest(NamedTuple):
    """The images of a share of a batch, in order.

    Args:
        entries: the images of the share.
        images: number of images of the whole batch.
        shards: number of shards of the whole batch.
        sha256: of the file.
    """

    entries: Sequence[Entry]
    images: int
    shards: int
    sha256: str


def list_images(
    inputs: Iterable[Path], out: Folder, bands: Bands = RGB, recursive: bool = False
) -> tuple[list[Entry], Found]:
    """List the images of files, folders and addresses of object stores, and count what is left out.

    Args:
        inputs: local files and folders, and addresses.
        out: the folder of the results, which is not searched.
        bands: the bands that the network takes.
        recursive: whether to search subfolders too.

    Raises:
        InputError: no images; a video; a file is given twice.
    """
    found, images = Found(), list[tuple[str, str, int, int]]()  # path, name, size, modified
    for given in inputs:
        address = store_address(given)
        if address is not None:
            images += _list_store(address, out, bands, recursive, found)
            continue
        check_still(given)
        results = Path()  # names relative to `out`
        files = (
            list_folder(given, results, bands, recursive, found, out.local) if given.is_dir() else [(given, results)]
        )
        for file, folder in files:
            state = _stat(file)
            if not _is_utf8(str(file)):
                found.skip("names that are not UTF-8", file.suffix.lower())
            else:
                images.append((str(file.absolute()), (folder / result_name(file)).as_posix(), *state))
    if not images:
        raise InputError("images", f"none found{_left_out(found)}", "check the paths, or add `recursive`")
    return _entries(images), found


def encode(entries: Sequence[Entry]) -> bytes:
    """Return the manifest as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = {str: pa.string(), int: pa.int64()}
    schema = pa.schema([(name, kinds[kind]) for name, kind in Entry.__annotations__.items()])
    columns = [list(column) for column in zip(*entries, strict=True)]
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns, schema=schema), buffer)
    return buffer.getvalue()


def decode(content: bytes, source: object, share: Share = ALL) -> Manifest:
    """Read the rows of a share.

    Args:
        content: of the Parquet file.
        source: the file, for messages.
        share: the part of the batch.

    Raises:
        InputError: not a manifest.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(io.BytesIO(content))
        shards = table.column("shard").to_numpy()
        if not len(shards):
            raise ValueError("it lists no images")
        count = int(shards.max()) + 1
        table = table.filter(pa.array(shards % share.count == share.number - 1))
        columns: list[list[Any]] = [table.column(name).to_pylist() for name in Entry._fields]
        entries = [Entry(*row) for row in zip(*columns, strict=True)]
        _check(entries)
    except (pa.ArrowException, OSError, KeyError, ValueError, TypeError) as error:
        what = f"is not a manifest of danet predict ({' '.join(str(error).split())[:200]})"
        raise InputError(source, what, "delete it to have it written again, or choose another file") from error
    return Manifest(entries, len(shards), count, hashlib.sha256(content).hexdigest())


def check_listed(inputs: Iterable[Path], content: bytes, source: str) -> None:
    """Check that a manifest lists each file, and something of each folder, that is given with it.

    Args:
        inputs: see `list_images`.
        content: of the Parquet file.
        source: the file, for messages.

    Raises:
        InputError: it lists nothing of an input.
    """
    import pyarrow.parquet as pq

    known = set[str]()  # the images, and all folders above them
    for path in pq.read_table(io.BytesIO(content), columns=["path"]).column("path").to_pylist():
        place = _plain(path)
        while place not in known:
            known.add(place)
            place = place.rpartition("/")[0]
    for given in inputs:
        if _plain(str(given.absolute())) not in known and _plain(str(given)) not in known and _is_utf8(str(given)):
            what = f"was written for other images, and lists nothing of {given}"
            raise InputError(source, what, "choose another `out` or `manifest`, or leave the images out")


def _plain(path: str) -> str:
    """Return a local path or an address without . and .. parts, and with slashes, but none at the end."""
    return store_address(path) or os.path.normpath(path).replace(os.sep, "/").rstrip("/")


def _check(entries: Sequence[Entry]) -> None:
    """Check what the results rely on: names stay inside the folder, and are unique like the ids.

    Raises:
        ValueError: one is wrong.
        TypeError: a value is missing, or of another type.
    """
    for entry in entries:
        if any(type(value) is not kind for value, kind in zip(entry, Entry.__annotations__.values(), strict=True)):
            raise TypeError(f"a missing value, or one of another type, at {entry.path}")
        if _unsafe(entry.name):
            raise ValueError(f"name {entry.name!r} is not below the folder of the results")
    for column in ("name", "id"):
        (value, count), *_ = Counter(getattr(entry, column) for entry in entries).most_common(1) or [("", 1)]
        if count > 1:
            raise ValueError(f"{column} {value!r} occurs {count} times")


def _entries(images: Sequence[tuple[str, str, int, int]]) -> list[Entry]:
    """Return the rows; names that collide, or cannot be those of files, get the id of their path."""
    counts = Counter(name.casefold() for _, name, _, _ in images)
    size = min(_MAX_ROWS, max(1, -(-len(images) // _SHARDS)))
    entries, paths = [], set()
    for row, (path, name, length, modified) in enumerate(images):
        if path in paths:
            raise InputError(path, "given twice", "list it once")
        paths.add(path)
        digest = hashlib.sha256(path.encode()).hexdigest()[:32]
        if _unsafe(name) or len(PurePosixPath(name).name.encode()) > _MAX_STEM:
            name = digest
        elif counts[name.casefold()] > 1:
            name = f"{name}-{digest}"
        entries.append(Entry(path, name, length, modified, digest, row // size))
    return entries


def _unsafe(name: str) -> bool:
    return name.startswith("/") or "\0" in name or any(part in ("", ".", "..") for part in name.split("/"))


def _list_store(
    address: str, out: Folder, bands: Bands, recursive: bool, found: Found
) -> list[tuple[str, str, int, int]]:
    images = []
    below = f"{out.root}/"
    single = find_file(address)
    for file in list_files(address) if single is None else (single,):
        path = f"{address}/{file.name}" if file.name else address
        name = PurePosixPath(file.name or path)
        if path.startswith(below):
            continue
        if "/" in file.name and not recursive:
            found.skip("add `recursive`", "files in subfolders")
        elif file.name and (reason := reason_to_skip(Path(file.name), bands)) is not None:
            found.skip(reason, name.suffix.lower() or "without suffix")
        else:
            stem = name.with_suffix("").as_posix() if file.name else name.stem
            images.append((path, stem, file.size, file.modified))
    return images


def _stat(file: Path) -> tuple[int, int]:
    try:
        state = file.stat()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", "check the path and its permissions") from error
    return state.st_size, state.st_mtime_ns


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _left_out(found: Found) -> str:
    line = found.skipped_line()
    return f", {line}" if line else ""
