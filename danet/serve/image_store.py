"""Keep the latest images and what the network computed for them, so that a query computes one attention row only."""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from danet.predict.segmentation import Segmentation, class_shares

if TYPE_CHECKING:
    from danet.predict.attention import Inspection


@dataclass(frozen=True)
class StoredImage:
    """One image; `inspection` is None if the network supports none."""

    segmentation: Segmentation
    inspection: "Inspection | None"

    @cached_property
    def shares(self) -> dict[int, float]:
        """The share of the image's pixels that each class in it has, by class id."""
        return dict(class_shares(self.segmentation.labels, self.segmentation.classes))

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        result = self.segmentation
        total = result.image.nbytes + result.labels.nbytes + result.confidence.nbytes
        if self.inspection is not None:
            internals = self.inspection.internals
            total += sum(getattr(part, "nbytes", 0) for part in (*internals, *internals.logits_without.values()))
        return total


class ImageStore:
    """The most recently used images, by ids that nobody can guess. Files with the same bytes share an entry.

    Args:
        count: maximum number of images.
        nbytes: maximum size in memory of all images, unless there is only one.
        prefix: what the ids begin with.
    """

    def __init__(self, count: int = 8, nbytes: int = 1 << 30, prefix: str = ""):
        self._count, self._limit, self._prefix = count, nbytes, prefix
        self._entries: OrderedDict[str, tuple[str, StoredImage]] = OrderedDict()
        self._ids: dict[str, str] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, content: bytes, image: StoredImage) -> str:
        """Store the results for a file and return its id. If the file is already stored, return the existing id."""
        digest = hashlib.sha256(content).hexdigest()
        if (image_id := self._ids.get(digest)) is not None:  # two requests sent one file at the same time
            self._entries.move_to_end(image_id)
            return image_id
        image_id = self._prefix + secrets.token_urlsafe(16)
        self._entries[image_id], self._ids[digest] = (digest, image), image_id
        self.nbytes += image.nbytes
        while len(self._entries) > self._count or (self.nbytes > self._limit and len(self._entries) > 1):
            self._drop(next(iter(self._entries)))
        return image_id

    def find(self, content: bytes) -> str | None:
        """Return the id of a stored file, or None."""
        return self._ids.get(hashlib.sha256(content).hexdigest())

    def get(self, image_id: str) -> StoredImage | None:
        """Return a stored image and mark it as used, or return None."""
        if image_id not in self._entries:
            return None
        self._entries.move_to_end(image_id)
        return self._entries[image_id][1]

    def _drop(self, image_id: str) -> None:
        digest, image = self._entries.pop(image_id)
        del self._ids[digest]
        self.nbytes -= image.nbytes
