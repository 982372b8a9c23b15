"""State that all requests share: the compute thread, the decoder and the stored images."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from danet.errors import InputError
from danet.predict.batched import segment_batch
from danet.predict.modules import Module
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation
from danet.serve import responses
from danet.serve.decoder import NAME, Decoder
from danet.serve.image_store import ImageStore, StoredImage
from danet.serve.limits import Budget, Busy, Limits, Stopping
from danet.serve.peers import Peers
from danet.serve.prometheus import Metrics, resident_bytes
from danet.serve.responses import Encoding
from danet.serve.worker import Worker

if TYPE_CHECKING:
    from danet.predict.attention import Inspection

log = logging.getLogger("danet.serve")

_RESULT_BYTES = 5  # of labels and confidence, per pixel
_SHORTEST = 32  # pixels: a shorter side counts as this, since the network's cost depends on its stride
_NO_DECODER = "the image decoder cannot be started"

BATCH_PIXELS = 1 << 21
"""Maximum number of pixels in a batch, after resizing. A batch of one image may have more."""


def max_pixels(predictor: Predictor) -> int:
    """Return the maximum size of an image, which is lower if the network runs at the image's own size."""
    return 4 << 20 if predictor.card.size is None else 32 << 20


class Elsewhere(Exception):  # noqa: N818 (not an error)
    """The request is for another process of the server.

    Args:
        number: of that process.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number


class Service:
    """State of one server.

    Args:
        predictor: the network to serve.
        limits: limits on requests.
        peers: the processes of the server; without addresses, it is the only one.
    """

    def __init__(self, predictor: Predictor, limits: Limits, peers: Peers):
        self.predictor, self.peers = predictor, peers
        self.stopping = Stopping()
        self.model_card = responses.model_card(predictor)
        self.worker = Worker()
        self.decoder = Decoder(max_pixels(predictor), limits.decode_seconds, predictor.card.bands)
        self.images = ImageStore(nbytes=limits.stored_bytes, prefix=peers.prefix)
        self.waiting = Budget(limits.waiting)
        self.queries = Budget(4 * limits.waiting)
        self.memory = Budget(limits.held_bytes)
        self.metrics = Metrics(
            {
                "danet_waiting": ("Images received and not yet answered.", lambda: self.waiting.held),
                "danet_held_bytes": ("Memory of bodies and decoded images.", lambda: self.memory.held),
                "danet_batches": ("Batches computed since the start.", lambda: self.worker.batches),
                "danet_batched": ("Images in these batches.", lambda: self.worker.batched),
                "danet_kept_images": ("Images stored for queries.", lambda: len(self.images)),
                "danet_kept_bytes": ("Memory of stored images.", lambda: self.images.nbytes),
                "danet_resident_bytes": ("Resident memory of the process.", resident_bytes),
            }
        )

    @asynccontextmanager
    async def lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Run the compute thread during the application's lifespan."""
        work = asyncio.create_task(self.worker.run())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        self.decoder.close()

    @contextmanager
    def queue_slot(self) -> Iterator[None]:
        """Occupy one of the places for waiting images.

        Raises:
            Busy: all places are taken.
        """
        self.waiting.acquire(1)
        try:
            yield
        finally:
            self.waiting.release(1)

    async def query(self, function: Callable[..., Any], *args: Any) -> Any:
        """Run a short function in the compute thread, before all waiting images.

        Raises:
            Busy: too many queries are waiting.
        """
        self.queries.acquire(1)
        try:
            return await self.worker.submit_urgent(function, *args)
        finally:
            self.queries.release(1)

    async def check_ready(self) -> None:
        """Check that images can be segmented.

        Raises:
            Busy: the server is stopping, or the decoder cannot be started.
        """
        if self.stopping.active:
            raise Busy("the server is stopping")
        try:
            await self.decoder.prepare()
        except ChildProcessError as error:
            raise Busy(_NO_DECODER) from error

    async def decode(self, content: bytes, request: Request) -> np.ndarray:
        """Decode an image, and charge its memory and that of its result to the request."""
        try:
            image = await self.decoder.decode(content)
        except ChildProcessError as error:
            log.error("%s", error)
            raise Busy(_NO_DECODER) from error
        height, width = image.shape[:2]
        if self.predictor.card.size is None and (most := max_pixels(self.predictor)) < _SHORTEST * max(height, width):
            what = f"{width} x {height}: this network takes a long side of at most {most // _SHORTEST:,} pixels"
            raise InputError(NAME, what, "send a part of it")
        request.scope["danet.body"].hold(image.nbytes + _RESULT_BYTES * height * width)
        return image

    async def encode(self, segmentation: Segmentation, encoding: Encoding, request: Request) -> bytes:
        """Encode a segmentation, charging the memory for it; afterwards, the request holds only the result."""
        body = request.scope["danet.body"]
        body.hold(await asyncio.to_thread(encoding.memory, segmentation))
        content = await asyncio.to_thread(encoding.encode, segmentation)
        body.keep(len(content))
        return content

    async def segment(self, content: bytes, request: Request) -> Segmentation:
        """Segment an image, in a batch with waiting images of the same size."""
        image = await self.decode(content, request)
        max_batch = max(1, min(8, BATCH_PIXELS // (self.predictor.card.size or max(image.shape[:2])) ** 2))
        return await self.worker.submit(self._segment, image, image.shape, max_batch)

    async def inspect(self, content: bytes, request: Request) -> StoredImage:
        """Segment an image, and compute what attention queries need if the network supports them."""
        image = await self.decode(content, request)
        return await self.worker.submit(self._inspect, image, None, 1)

    async def store(self, content: bytes, request: Request) -> tuple[str, StoredImage]:
        """Inspect an image and store the result, unless it is already stored. Return its id and the result."""
        image_id = self.images.find(content)
        if image_id is None or (image := self.images.get(image_id)) is None:
            image = await self.inspect(content, request)
            image_id = self.images.add(content, image)
        return image_id, image

    async def encode_stored(self, image_id: str, without: Module | None, encoding: Encoding, request: Request) -> bytes:
        """Encode a stored image's prediction, or its prediction with one module's attention switched off."""
        image = self.stored(image_id)
        segmentation = image.segmentation
        if without is not None:
            request.scope["danet.body"].hold(_RESULT_BYTES * segmentation.labels.size)
            segmentation = await self.query(self.inspection(image).without, without)
        return await self.encode(segmentation, encoding, request)

    def inspection(self, image: StoredImage) -> "Inspection":
        """Return an image's inspection.

        Raises:
            HTTPException: 409, the network does not support it.
        """
        if image.inspection is None:
            what = "this network does not support attention queries"
            raise HTTPException(409, f"{what}; serve the .safetensors weights of a network with attention modules")
        return image.inspection

    def stored(self, image_id: str) -> StoredImage:
        """Return a stored image.

        Raises:
            Elsewhere: another process may have it.
            HTTPException: 404, no image has this id.
        """
        if (owner := self.peers.owner(image_id)) is not None:
            raise Elsewhere(owner)
        image = self.images.get(image_id)
        if image is None:
            raise HTTPException(404, "image not found (only recent images are kept); send it again")
        return image

    def _segment(self, images: list[np.ndarray]) -> list[Segmentation]:
        return segment_batch(self.predictor, images)

    def _inspect(self, images: list[np.ndarray]) -> list[StoredImage]:
        if not any(self.model_card["attention"].values()):
            return [StoredImage(result, None) for result in segment_batch(self.predictor, images)]
        inspections = [self.predictor.inspect_pixels("image", image) for image in images]
        return [StoredImage(inspection.segmentation, inspection) for inspection in inspections]
