"""The engines of a batch: this process, or workers on a Ray cluster. Both write the same files."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby

from danet.predict import ray_workers, statistics
from danet.predict.attempts import Attempts, given_up
from danet.predict.batch import Batch, Done
from danet.predict.batch_segmenter import Segmenter
from danet.predict.manifest import Entry
from danet.predict.predictor import Predictor
from danet.predict.ray_workers import KILLS, FinishedAlone, Workers
from danet.predict.statistics import Row, error_row
from danet.predict.storage import Folder

_BUNDLE = 64
"""Maximum number of images that a worker gets at once, unless a shard has more."""

_BUNDLES_PER_WORKER = 8  # so that all workers end at about the same time


def run_here(batch: Batch, entries: Sequence[Entry], predictor: Predictor) -> Iterator[Done]:
    """Segment images in this process, and yield the outcome of each.

    The images that an earlier process had begun when it was killed come last, one by one. An image that kills its
    process again and again gets a row with this error; see `attempts`.

    Args:
        batch: the batch.
        entries: the images of whole shards.
        predictor: the network.

    Raises:
        InputError: results cannot be written.
        OSError: an object store cannot be reached.
    """
    attempts = Attempts(batch.settings.out, (entry.shard for entry in batch.manifest.entries))
    for shard in attempts.begun - {entry.shard for entry in entries}:  # killed after it had written the rows
        attempts.end(shard)
    segmenter = Segmenter(batch, predictor, attempts)
    try:
        yield from segmenter.record([entry for entry in entries if entry.shard not in attempts.begun])
        suspects = [entry for entry in entries if entry.shard in attempts.begun]
        for shard, group in groupby(suspects, lambda entry: entry.shard):
            yield from _one_by_one(segmenter, attempts, shard, [*group])
    finally:
        attempts.close()


def _one_by_one(segmenter: Segmenter, attempts: Attempts, shard: int, entries: Sequence[Entry]) -> Iterator[Done]:
    """Segment a shard whose process was killed."""
    tries, rows = attempts.tries(shard), list[list[Row]]()
    try:
        for entry in entries:
            if tries.kills[entry.id] >= KILLS:
                rows.append([error_row(entry, given_up(entry))])
            else:
                attempts.try_alone(entry, tries)
                rows.append(segmenter.alone(entry))
    except BaseException:
        attempts.interrupt(shard, tries)
        raise
    segmenter.batch.write_shard(shard, [row for own in rows for row in own])
    attempts.end(shard)
    yield from map(Done.of, entries, rows)


def run_on_ray(batch: Batch, entries: Sequence[Entry], workers: Workers) -> Iterator[Done]:
    """Segment images on a Ray cluster, and yield the outcome of each.

    A worker reads its images, writes their labels and then the rows of the shard. An image that kills its workers gets
    a row with this error. All machines must see the same paths.

    Args:
        batch: the batch.
        entries: the images of whole shards.
        workers: how many, and on what.

    Raises:
        InputError: Ray is not installed; results cannot be written; workers die again and again.
        OSError: an object store cannot be reached.
    """
    shards = {shard: list(group) for shard, group in groupby(entries, lambda entry: entry.shard)}
    attempts = Attempts(batch.settings.out, shards)
    for shard in sorted(attempts.begun):  # by the local engine; the workers are watched here
        attempts.end(shard)
    alone: dict[int, dict[str, list[Row]]] = defaultdict(dict)
    with ray_workers.cluster(workers) as resources:
        start = partial(_BatchWorker, _for_workers(batch, gpus=resources[2]))
        bundles = _bundles([*shards.values()], resources[0])
        recorded: list[Done] = []

        def remaining(items: Sequence[Entry]) -> list[Entry]:
            complete = statistics.written_shards(batch.settings.out) & {entry.shard for entry in items}
            for shard in sorted(complete):
                rows = statistics.read_errors(batch.settings.out, shard)
                recorded.extend(Done(path, 1, error) for path, error in rows)
            return [entry for entry in items if entry.shard not in complete]

        for event in ray_workers.process(start, bundles, resources, remaining):
            yield from recorded
            recorded.clear()
            if not isinstance(event, FinishedAlone):
                yield from event.result
                continue
            entry: Entry = event.item
            rows = [error_row(entry, given_up(entry))] if event.result is None else event.result
            own = alone[entry.shard]
            own[entry.id] = rows
            if len(own) == len(shards[entry.shard]):
                batch.write_shard(entry.shard, [row for each in shards[entry.shard] for row in own[each.id]])
            yield Done.of(entry, rows)
        yield from recorded


class _BatchWorker:
    """A worker that segments images of a batch."""

    def __init__(self, batch: Batch):
        self._segmenter = Segmenter(batch)

    def many(self, items: Sequence[Entry]) -> list[Done]:
        return list(self._segmenter.record(items))

    def alone(self, item: Entry) -> list[Row]:
        return self._segmenter.alone(item)


def _for_workers(batch: Batch, gpus: float) -> Batch:
    """Return the batch without its images, with absolute paths and the device of the workers."""
    settings = batch.settings
    out = settings.out if settings.out.local is None else Folder(str(settings.out.local.absolute()))
    weights = settings.weights
    if weights is not None and str(weights) != "default":
        weights = weights.absolute()
    settings = replace(settings, out=out, weights=weights, device="cuda" if gpus else "cpu")
    return replace(batch, settings=settings, manifest=batch.manifest._replace(entries=()))


def _bundles(shards: Sequence[Sequence[Entry]], workers: int) -> list[list[Entry]]:
    """Divide shards into lists of about equal numbers of images."""
    total = sum(map(len, shards))
    size = min(_BUNDLE, max(1, total // (_BUNDLES_PER_WORKER * workers)))
    bundles: list[list[Entry]] = [[]]
    for shard in shards:
        if len(bundles[-1]) >= size:
            bundles.append([])
        bundles[-1] += shard
    return bundles
