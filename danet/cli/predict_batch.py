"""`danet predict` over a manifest: many images, many machines, object stores."""

import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from danet.cli.output import progress
from danet.errors import InputError, print_note, printable
from danet.predict.storage import store_address

if TYPE_CHECKING:
    from danet.predict.batch import Batch, Done

_MAX_SHOWN = 20
_EXCLUDED = (
    *("overwrite", "skip_existing", "format", "tolerance", "csv", "polygons", "mosaic"),
    *("probabilities", "margin", "min_confidence", "windows"),
)


@dataclass(frozen=True)
class BatchOptions:
    """Batches: many processes share one list of images; the same command continues an interrupted batch.

    The results are a label map for each image, and one Parquet dataset of statistics.
    """

    manifest: Path | None = None
    """the list of all images, a Parquet file; written first if it does not exist; default for batches:
    manifest.parquet in the folder for the results"""
    manifest_only: bool = False
    """write the manifest, and stop"""
    shard: str | None = None
    """segment only part I of N, so that N jobs of any scheduler do the whole"""
    no_images: bool = False
    """write only the statistics, no label maps"""
    retry_failed: bool = False
    """segment the images again that could not be segmented before, and those recorded together with them"""
    engine: Literal["local", "ray"] = "local"
    """local: this process; ray: a Ray cluster, or all cores of this machine"""
    workers: int | None = None
    """with --engine ray: number of processes; default: all CPUs but one, or as many as the GPUs suffice for"""
    gpus_per_worker: float | None = None
    """with --engine ray: GPUs of each process, also fractions; default: 1 if the cluster has GPUs, otherwise 0"""

    def wanted(self, *paths: Path) -> bool:
        """Return whether an option of batches or an address of an object store is given."""
        return self != BatchOptions() or any(map(store_address, paths))


def run_batch(options: Any, batch_options: BatchOptions) -> int:
    """Run the command for a batch and return its exit status.

    Args:
        options: those of `danet predict`.
        batch_options: those of batches.
    """
    _check(options, batch_options)
    from danet.predict.batch import Settings, open_batch
    from danet.predict.batch_engines import run_here, run_on_ray
    from danet.predict.manifest import ALL, Share
    from danet.predict.protocols import find_protocol
    from danet.predict.ray_workers import Workers
    from danet.predict.storage import Folder

    find_protocol(options.protocol)
    share = ALL if batch_options.shard is None else Share.parse(batch_options.shard)
    workers = Workers(batch_options.workers, batch_options.gpus_per_worker)
    chosen = {name: getattr(options, name) for name in ("weights", "protocol", "size", "dtype", "pages", "device")}
    settings = Settings(Folder.at(options.out), labels=not batch_options.no_images, **chosen)
    predictor = settings.load()
    given = batch_options.manifest, share, options.recursive
    batch, found = open_batch(options.images, settings, predictor, *given)
    for line in _listed(batch, found):
        print_note(line)
    if batch_options.manifest_only:
        return 0
    if batch_options.retry_failed:
        batch.forget_failed()
    entries, failed = batch.missing(), batch.count_failed()
    if batch_options.engine == "ray":
        del predictor
        outcomes = run_on_ray(batch, entries, workers) if entries else iter(())
    else:
        outcomes = run_here(batch, entries, predictor)
    failed += _follow(batch, outcomes, len(entries), failed)
    return 2 if failed else 0


def _check(options: Any, batch_options: BatchOptions) -> None:
    for name in _EXCLUDED:
        if getattr(options, name) not in (None, False):
            why = "continues by itself" if name == "skip_existing" else "never replaces" if name == "overwrite" else ""
            what = f"is not for batches, of which each {why}" if why else "is not for batches"
            remedy = "leave it out, or leave out the options of batches"
            raise InputError(name, what, remedy)
    if batch_options.engine == "local":
        for name in ("workers", "gpus_per_worker"):
            if getattr(batch_options, name) is not None:
                raise InputError(name, "is for the engine ray", "add `engine` ray, or leave it out")
    if batch_options.manifest_only and not options.images:
        raise InputError("danet predict", "no images given", "specify images or folders")


def _listed(batch: "Batch", found: Any) -> Iterator[str]:
    manifest = batch.manifest
    yield f"{manifest.images} images in {manifest.shards} shards{' listed before' if found is None else ''}"
    if found is not None and (line := found.skipped_line()):
        yield line


def _follow(batch: "Batch", outcomes: Iterable["Done"], total: int, failed_before: int) -> int:
    """Show the progress, the first errors, and a summary; return how many images could not be segmented now."""
    start, done, failed = time.monotonic(), 0, 0
    with progress("segmenting", "images") as advance:
        for outcome in outcomes:
            done += 1
            advance(done, total)
            if outcome.error is not None:
                failed += 1
                if failed <= _MAX_SHOWN:
                    print_note(f"error: {outcome.path}: {outcome.error}")
    seconds = time.monotonic() - start
    existing = len(batch.manifest.entries) - total
    speed = f"; {done / seconds:.1f} images/s in {seconds:.1f} s" if done else ""
    if failed > _MAX_SHOWN:
        print(f"and {failed - _MAX_SHOWN} more errors", file=sys.stderr)
    if failed + failed_before:
        earlier = f" ({failed_before} of them earlier)" if failed_before else ""
        what = f"{failed + failed_before} of {len(batch.manifest.entries)} images could not be segmented{earlier}"
        where = f"see the column error of {batch.dataset}, or add `retry_failed`"
        print_note(f"error: {what}; {where}")
    print(f"done {done - failed}, existing {existing}, failed {failed}{speed}", file=sys.stderr)
    print(printable(batch.dataset))
    return failed
