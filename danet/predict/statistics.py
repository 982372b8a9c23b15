"""The statistics of a batch: one Parquet dataset with a row per image, of which each file is a shard of the manifest.

A shard's file is written when the results of all its images exist, under a name that follows from its number. So each
image has exactly one row, however often processes are killed and started again.
"""

import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from danet.data.classes import Classes
from danet.errors import InputError
from danet.predict.manifest import Entry
from danet.predict.storage import Folder

if TYPE_CHECKING:
    import pyarrow as pa

DATASET = "statistics.parquet"
"""The folder of the dataset, below that of the results."""

_READERS = 16  # threads: the files are small, and an object store takes long to answer

_FILE = re.compile(r"shard-(\d+)\.parquet")

Row = dict[str, Any]
"""Column -> value; see `schema`."""


def row(entry: Entry, milliseconds: float, page: int | None, note: str | None, summary: Mapping[str, Any]) -> Row:
    """Return the row of an image.

    Args:
        entry: the image.
        milliseconds: that the network took.
        page: the number of the page in its file, from 1; None: the only one.
        note: what the user should know about the labels.
        summary: see `Segmentation.summary`.
    """
    values: Row = {"id": entry.id, "path": entry.path, "page": page, "ms": milliseconds, "note": note}
    for kind in summary["classes"]:
        values[f"share_{kind['name']}"] = kind["share"]
        values[f"confidence_{kind['name']}"] = kind["mean_confidence"]
    return values | {"width": summary["width"], "height": summary["height"]}


def error_row(entry: Entry, error: InputError) -> Row:
    """Return the row of an image that could not be segmented."""
    return {"id": entry.id, "path": entry.path, "error": f"{error.what}; {error.remedy}"}


def schema(classes: Classes) -> "pa.Schema":
    """Return the columns of the dataset.

    The shares of an image's classes, in [0, 1], sum to 1, unless its note says that pixels have no data. A class that
    it does not have has share 0 and no confidence. Both are missing in the row of an image that could not be segmented.
    """
    import pyarrow as pa

    kinds = {"id": pa.string(), "path": pa.string(), "page": pa.int32(), "width": pa.int32(), "height": pa.int32()}
    kinds |= {f"{what}_{name}": pa.float64() for what in ("share", "confidence") for name in classes.names}
    return pa.schema([*(kinds | {"ms": pa.float32(), "error": pa.string(), "note": pa.string()}).items()])


def write_shard(out: Folder, shard: int, rows: Sequence[Row], classes: Classes, about: Mapping[str, Any]) -> None:
    """Write the rows of a shard.

    Args:
        out: the folder of the results.
        shard: its number.
        rows: of all its images, in the order of the manifest.
        classes: the classes that the network predicts.
        about: the settings of the batch, stored in the file's metadata under the key danet.

    Raises:
        InputError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    empty = {f"share_{name}": 0.0 for name in classes.names}
    complete = [own if "error" in own else empty | own for own in rows]
    table = pa.Table.from_pylist(complete, schema(classes).with_metadata({"danet": json.dumps(about)}))
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    out.write(_name(shard), buffer.getvalue())


def forget_failed(out: Folder, shards: Iterable[int]) -> None:
    """Delete the rows of those shards that have an image which could not be segmented.

    Raises:
        OSError: a file cannot be read or deleted.
    """
    for shard, failed in count_failed(out, shards).items():
        if failed:
            out.delete(_name(shard))


def count_failed(out: Folder, shards: Iterable[int]) -> dict[int, int]:
    """Return for each shard how many of its images could not be segmented.

    Raises:
        OSError: a file cannot be read.
    """

    def count(shard: int) -> int:
        return sum(error is not None for _, error in read_errors(out, shard))

    shards = list(shards)
    with ThreadPoolExecutor(_READERS, "danet-rows") as readers:
        return dict(zip(shards, readers.map(count, shards), strict=True))


def written_shards(out: Folder) -> set[int]:
    """Return the numbers of the shards whose rows are written.

    Raises:
        OSError: the folder cannot be read.
    """
    return {int(found[1]) for name in out.names(DATASET) if (found := _FILE.fullmatch(name))}


def read_errors(out: Folder, shard: int) -> list[tuple[str, str | None]]:
    """Return path and error of each row of a shard.

    Raises:
        OSError: the file cannot be read.
    """
    import pyarrow.parquet as pq

    content = io.BytesIO(out.read(_name(shard)))
    table = pq.read_table(content, columns=["path", "error"])
    return [*zip(table.column("path").to_pylist(), table.column("error").to_pylist(), strict=True)]


def _name(shard: int) -> str:
    return f"{DATASET}/shard-{shard:07d}.parquet"
