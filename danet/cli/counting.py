"""What `danet evaluate --counts` and `danet robustness --counts` share."""

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from danet.evaluate.counts import Counts


def missing_images(counts: "Counts", total: int, shard: str | None) -> list[int]:
    """Return the indices of the images of a shard, "I/N" or None for all, that are not counted."""
    from danet.predict.manifest import ALL, Share

    share, known = ALL if shard is None else Share.parse(shard), counts.read()
    return [index for index in range(share.number - 1, total, share.count) if index not in known]


def all_counted(records: Mapping[int, object], total: int) -> bool:
    """Return whether all images are counted, and say how many."""
    print(f"{len(records)} of {total} images are counted", file=sys.stderr)
    return len(records) == total
