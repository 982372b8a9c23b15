"""Shards that a process has begun. If it is killed, the next process tries their images one by one.

While a shard is in progress, a file beside the rows says so; it is deleted when the rows are written. An image that
kills `KILLS` processes on its own is given up by name, and the others continue.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from typing import NamedTuple

from danet.errors import InputError
from danet.predict.manifest import Entry
from danet.predict.ray_workers import KILLS
from danet.predict.statistics import DATASET
from danet.predict.storage import Folder

_FILE = re.compile(r"_begun-(\d+)\.json")  # readers of a Parquet dataset ignore names that begin with _


def given_up(entry: Entry) -> InputError:
    """Return the error of an image that has killed its processes."""
    what = f"killed {KILLS} processes on its own, so it was given up"
    return InputError(entry.path, what, "check the image, or give the processes more memory")


class Tries(NamedTuple):
    """What is known of the images of a shard.

    Args:
        alone: the id of the image that is tried on its own; None: all are processed together.
        kills: image id -> number of processes that it has killed on its own.
    """

    alone: str | None
    kills: Counter[str]


class Attempts:
    """The shards that have been begun, of those of a process.

    Args:
        out: the folder of the results.
        shards: the shards of the process.

    Raises:
        OSError: the folder cannot be read.
    """

    def __init__(self, out: Folder, shards: Iterable[int]):
        self._out, self._own = out, set[int]()
        found = {int(match[1]) for name in out.names(DATASET) if (match := _FILE.fullmatch(name))}
        self.begun = found & set(shards)

    def begin(self, shard: int) -> None:
        """Note that the images of a shard will be processed together.

        Raises:
            InputError: the file cannot be written.
        """
        if shard not in self._own:
            self._own.add(shard)
            self._write(shard, Tries(None, Counter()))

    def tries(self, shard: int) -> Tries:
        """Return what is known of a shard in `begun`, whose process was killed.

        Raises:
            OSError: the file cannot be read.
        """
        try:
            stored = json.loads(self._out.read(_name(shard)))
            tries = Tries(stored["alone"], Counter({str(name): int(count) for name, count in stored["kills"].items()}))
        except (InputError, FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
            return Tries(None, Counter())  # another process finished it, or the file is not ours
        if tries.alone is not None:
            tries.kills[tries.alone] += 1
        return tries._replace(alone=None)

    def try_alone(self, entry: Entry, tries: Tries) -> None:
        """Note that an image will be processed on its own.

        Raises:
            InputError: the file cannot be written.
        """
        self._write(entry.shard, tries._replace(alone=entry.id))

    def interrupt(self, shard: int, tries: Tries) -> None:
        """Note that the process ends, but was not killed by an image."""
        with suppress(InputError):
            self._write(shard, tries)

    def end(self, shard: int) -> None:
        """Forget a shard.

        Raises:
            OSError: the file cannot be deleted.
        """
        self._own.discard(shard)
        self.begun.discard(shard)
        with suppress(FileNotFoundError):  # another process of the same shard was faster
            self._out.delete(_name(shard))

    def close(self) -> None:
        """Forget the shards that this process has begun: it was not killed. What cannot be deleted does no harm."""
        with suppress(OSError):
            for shard in sorted(self._own):
                self.end(shard)

    def _write(self, shard: int, tries: Tries) -> None:
        self._out.write(_name(shard), json.dumps(tries._asdict()).encode())


def _name(shard: int) -> str:
    return f"{DATASET}/_begun-{shard:07d}.json"
