"""A batch of `danet predict`: a manifest, settings, and a folder of results.

The folder belongs to one batch: run.json names its manifest, weights and settings. Results are a
function of these and the image, so a process that starts again, or a second one, writes the same bytes.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from danet.data.classes import Classes
from danet.errors import InputError
from danet.files import check_writable, remove_incomplete
from danet.predict import statistics
from danet.predict.inputs import Found
from danet.predict.manifest import ALL, Entry, Manifest, Share, check_listed, decode, encode, list_images
from danet.predict.predictor import Predictor, load
from danet.predict.protocols import find_protocol
from danet.predict.statistics import Row
from danet.predict.storage import Folder, require_pyarrow, store_address

RUN, MANIFEST = "run.json", "manifest.parquet"


@dataclass(frozen=True)
class Settings:
    """How the images are segmented. Only `device` does not belong to the identity of a batch.

    Args:
        out: the folder of the results.
        weights: a file; None: the bundled weights.
        protocol: the name of the protocol.
        size: see `Predictor`.
        dtype: "float32" or "bfloat16".
        pages: whether each page of a stack is segmented; otherwise, stacks are errors.
        labels: whether labels are written; otherwise, only the statistics.
        device: "cpu" or "cuda"; None: a GPU if there is one.
    """

    out: Folder
    weights: Path | None = None
    protocol: str = "whole"
    size: int | None = None
    dtype: str = "float32"
    pages: bool = False
    labels: bool = True
    device: str | None = None

    def load(self) -> Predictor:
        """Load the network."""
        return load(self.weights, self.device, self.dtype)


@dataclass(frozen=True)
class Batch:
    """A batch, or a share of one, with what identifies it.

    Args:
        settings: how the images are segmented.
        about: the content of run.json.
        classes: the classes that the network predicts.
        manifest: the images of the share.
    """

    settings: Settings
    about: dict[str, str | int | bool | None]
    classes: Classes
    manifest: Manifest

    @property
    def dataset(self) -> str:
        """The path or address of the statistics."""
        return self.settings.out.address(statistics.DATASET)

    def missing(self) -> list[Entry]:
        """Return the images of the shards that have no rows yet.

        Raises:
            OSError: the folder of the results cannot be read.
        """
        done = set(self._recorded())
        return [entry for entry in self.manifest.entries if entry.shard not in done]

    def count_failed(self) -> int:
        """Return how many images have a row that says why they could not be segmented.

        Raises:
            OSError: the rows cannot be read.
        """
        failed = statistics.count_failed(self.settings.out, self._recorded())
        return sum(failed.values())

    def forget_failed(self) -> None:
        """Delete the rows of the shards with an image that could not be segmented.

        Raises:
            OSError: they cannot be read or deleted.
        """
        statistics.forget_failed(self.settings.out, self._recorded())

    def _recorded(self) -> list[int]:
        own = {entry.shard for entry in self.manifest.entries}
        return sorted(own & statistics.written_shards(self.settings.out))

    def write_shard(self, shard: int, rows: Sequence[Row]) -> None:
        """Write the rows of a shard; see `statistics.write_shard`."""
        statistics.write_shard(self.settings.out, shard, rows, self.classes, self.about)


class Done(NamedTuple):
    """The outcome of an image: its path, the number of its rows, and its error."""

    path: str
    rows: int
    error: str | None

    @classmethod
    def of(cls, entry: Entry, rows: Sequence[Row]) -> "Done":
        """Return the outcome of an image with these rows."""
        return cls(entry.path, len(rows), rows[0].get("error"))


def open_batch(
    inputs: Sequence[Path],
    settings: Settings,
    predictor: Predictor,
    manifest: Path | None = None,
    share: Share = ALL,
    recursive: bool = False,
) -> tuple[Batch, Found | None]:
    """Read the manifest of a batch, or write it first, and claim the folder of its results.

    Args:
        inputs: see `list_images`; may be empty if the manifest exists.
        settings: how the images are segmented.
        predictor: the network.
        manifest: the file; None: manifest.parquet in the folder of the results.
        share: the part of the batch to return.
        recursive: see `list_images`.

    Returns:
        The batch; and what was left out, if the images were listed now.

    Raises:
        InputError: no images; an invalid manifest, or one of other images; the folder has other results, or cannot be
            written to.
        OSError: an object store cannot be reached.
    """
    out = settings.out
    require_pyarrow("manifest")
    if settings.size is not None:
        predictor.with_size(settings.size, find_protocol(settings.protocol))  # otherwise an error of each image
    if out.local is not None:
        check_writable(out.local)
        remove_incomplete(out.local)
        remove_incomplete(out.local / statistics.DATASET)
    names = out.names()
    place, name = _place(manifest, out)
    found = None
    if not place.exists(name):
        if not inputs:
            what = "no images given, and the manifest does not exist" if manifest else "no images given"
            raise InputError("images", what, "specify images or folders")
        entries, found = list_images(inputs, out, predictor.card.bands, recursive)
        try:
            place.write(name, encode(entries), overwrite=False)
        except InputError:
            if not place.exists(name):  # otherwise another process of the batch wrote it meanwhile
                raise
    content = place.read(name)
    listed = decode(content, place.address(name), share)
    if found is None:
        check_listed(inputs, content, place.address(name))
    about = _about(settings, predictor, listed)
    _claim(out, names - {name}, about)
    return Batch(settings, about, predictor.classes, listed), found


def _place(manifest: Path | None, out: Folder) -> tuple[Folder, str]:
    if manifest is None:
        return out, MANIFEST
    if (address := store_address(manifest)) is None:
        return Folder(str(manifest.absolute().parent)), manifest.name
    parent, _, name = address.rpartition("/")
    return Folder(parent), name


def _about(settings: Settings, predictor: Predictor, manifest: Manifest) -> dict[str, str | int | bool | None]:
    names = ("protocol", "size", "dtype", "pages", "labels")
    chosen = {name: value for name, value in asdict(settings).items() if name in names}
    return {"weights": predictor.fingerprint, "manifest": manifest.sha256, **chosen}


def _claim(out: Folder, names: set[str], about: dict[str, str | int | bool | None]) -> None:
    """Write run.json, or check that it is the same."""
    text = (json.dumps(about, indent=2) + "\n").encode()
    if not out.exists(RUN):
        if names - {RUN}:
            what = f"is not empty: it contains {min(names - {RUN})}"
            raise InputError(out.root, what, "choose another `out`, or use the same manifest and settings as before")
        try:
            out.write(RUN, text, overwrite=False)
        except InputError:
            if not out.exists(RUN):
                raise
    try:
        stored = json.loads(out.read(RUN))
        differing = [f"{key} {stored[key]}, now {about[key]}" for key in about if stored[key] != about[key]]
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(out.address(RUN), "was not written by danet predict", "choose another `out`") from error
    if differing:
        what = f"has the results of other settings ({'; '.join(differing)})"
        raise InputError(out.root, what, "choose another `out`, or repeat the settings")
