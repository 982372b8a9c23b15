"""What the operations of the server share: the thread that computes, the decoder, the kept images."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

import numpy as np
from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException

from danet.predict.attention import Module, Seen, see_pixels
from danet.predict.predictor import Predictor, Segmentation
from danet.serve import responses
from danet.serve.decoder import Decoder
from danet.serve.guard import Budget, Limits
from danet.serve.image_store import Images, Kept
from danet.serve.prometheus import Counters, resident_bytes
from danet.serve.worker import Worker, segment_together

BATCH_PIXELS = 1 << 21
"""Pixels through the network at once, as it is shown them; one image goes through whatever it has."""


def max_pixels(predictor: Predictor) -> int:
    """Of an image: less where the network takes images as they are and is not shown them at a size of its own."""
    return 4 << 20 if predictor.card.size is None else 32 << 20


class Service:
    """One server's state.

    Args:
        predictor: what it serves.
        limits: what it takes.
    """

    def __init__(self, predictor: Predictor, limits: Limits):
        self.predictor = predictor
        self.card = responses.card(predictor)
        self.worker = Worker()
        self.decoder = Decoder(max_pixels(predictor), limits.decode_seconds, predictor.card.bands)
        self.images = Images()
        self.waiting = Budget(limits.waiting)
        self.questions = Budget(4 * limits.waiting)
        self.budget = Budget(limits.held_bytes)
        self.counters = Counters(
            {
                "danet_waiting": ("Images received and not yet answered.", lambda: self.waiting.held),
                "danet_held_bytes": ("Bytes of bodies and decoded images.", lambda: self.budget.held),
                "danet_batches": ("Calls of the network since the start.", lambda: self.worker.batches),
                "danet_batched": ("Images in them.", lambda: self.worker.batched),
                "danet_kept_images": ("Images of open pages.", lambda: len(self.images)),
                "danet_kept_bytes": ("Their memory.", lambda: self.images.nbytes),
                "danet_resident_bytes": ("This process's memory.", resident_bytes),
            }
        )

    @asynccontextmanager
    async def running(self, _: FastAPI) -> AsyncIterator[None]:
        """The application's lifespan."""
        work = asyncio.create_task(self.worker.run())
        yield
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        self.decoder.close()

    @contextmanager
    def place(self) -> Iterator[None]:
        """A place among the images that wait; Busy if there is none."""
        self.waiting.take(1)
        try:
            yield
        finally:
            self.waiting.give_back(1)

    async def ask(self, function: Callable[..., Any], *args: Any) -> Any:
        """A short question about a kept image; Busy if too many wait."""
        self.questions.take(1)
        try:
            return await self.worker.first(function, *args)
        finally:
            self.questions.give_back(1)

    async def decode(self, content: bytes, request: Request) -> np.ndarray:
        """The image, counted with what the request holds."""
        image = await self.decoder.decode(content)
        request.scope["danet.body"].hold(image.nbytes)
        return image

    async def segment(self, content: bytes, request: Request) -> Segmentation:
        """With the other images of its size that wait."""
        image = await self.decode(content, request)
        most = max(1, min(8, BATCH_PIXELS // (self.predictor.card.size or max(image.shape[:2])) ** 2))
        return await self.worker.together(self._segment, image, image.shape, most)

    async def look(self, content: bytes, request: Request) -> Kept:
        """The image with all that attention needs, where the network has it."""
        image = await self.decode(content, request)
        return await self.worker.together(self._look, image, None, 1)

    async def keep(self, content: bytes, request: Request) -> tuple[str, Kept]:
        """The same, kept under an id."""
        name = self.images.find(content)
        if name is None or (kept := self.images.get(name)) is None:
            kept = await self.look(content, request)
            name = self.images.add(content, kept)
        return name, kept

    async def kept_segmentation(self, name: str, without: Module | None) -> Segmentation:
        """A kept image's prediction, or what it would be with a module's attention switched off."""
        if without is None:
            return self.kept(name).segmentation
        return await self.ask(self.seen(self.kept(name)).without, without)

    def seen(self, kept: Kept) -> Seen:
        """What the network saw; 409 where it cannot be looked into."""
        if kept.seen is None:
            what = "this network's attention cannot be looked into"
            raise HTTPException(409, f"{what}; serve .safetensors weights of a network with attention")
        return kept.seen

    def kept(self, name: str) -> Kept:
        """What is kept under an id; 404 if nothing is."""
        kept = self.images.get(name)
        if kept is None:
            raise HTTPException(404, "no such image; only the last few are kept, send it again")
        return kept

    def _segment(self, images: list[np.ndarray]) -> list[Segmentation]:
        return segment_together(self.predictor, images)

    def _look(self, images: list[np.ndarray]) -> list[Kept]:
        if not any(self.card["attention"].values()):
            return [Kept(found, None) for found in segment_together(self.predictor, images)]
        found = [see_pixels(self.predictor, "image", image) for image in images]
        return [Kept(seen.segmentation, seen) for seen in found]
