"""The images on open pages: what the network saw in each is kept, so that a move of the pointer costs one row."""

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor

from danet.predict.attention import Seen
from danet.predict.predictor import Segmentation


@dataclass(frozen=True)
class Kept:
    """One image; `seen` is None where the network cannot be looked into."""

    segmentation: Segmentation
    seen: Seen | None

    @property
    def nbytes(self) -> int:
        """What it holds in memory."""
        found = self.segmentation
        total = found.image.nbytes + found.labels.nbytes + found.confidence.nbytes
        if self.seen is not None:
            inside = self.seen.inside
            tensors = [part for part in (*inside, *inside.without.values()) if isinstance(part, Tensor)]
            total += inside.labels.nbytes + sum(tensor.nbytes for tensor in tensors)
        return total


class Images:
    """The last few images by an id that cannot be guessed; the same bytes are kept once.

    Args:
        count, nbytes: the least recently used are dropped beyond either.
    """

    def __init__(self, count: int = 8, nbytes: int = 1 << 30):
        self._count, self._limit = count, nbytes
        self._kept: OrderedDict[str, tuple[str, Kept]] = OrderedDict()
        self._ids: dict[str, str] = {}
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def add(self, content: bytes, kept: Kept) -> str:
        """Keep what was made of a file's bytes, and return its id: the one it has, where the bytes are kept already."""
        digest = hashlib.sha256(content).hexdigest()
        if (name := self._ids.get(digest)) is not None:  # two requests with one image at the same time
            self._kept.move_to_end(name)
            return name
        name = secrets.token_urlsafe(16)
        self._kept[name], self._ids[digest] = (digest, kept), name
        self.nbytes += kept.nbytes
        while len(self._kept) > self._count or (self.nbytes > self._limit and len(self._kept) > 1):
            self._drop(next(iter(self._kept)))
        return name

    def find(self, content: bytes) -> str | None:
        """The id under which these bytes are kept already."""
        return self._ids.get(hashlib.sha256(content).hexdigest())

    def get(self, name: str) -> Kept | None:
        """What is kept under an id; it is the last to be dropped now."""
        if name not in self._kept:
            return None
        self._kept.move_to_end(name)
        return self._kept[name][1]

    def _drop(self, name: str) -> None:
        digest, kept = self._kept.pop(name)
        del self._ids[digest]
        self.nbytes -= kept.nbytes
