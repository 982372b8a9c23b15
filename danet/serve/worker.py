"""One thread that computes, and the requests that wait for it: those of a kind go through the network together.

Nobody waits for a batch to fill: when the thread is free it takes the oldest request and, up to a limit, all that fit
with it. A request whose client left is taken out.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from danet.data.images.channels import resized
from danet.model.preprocess import normalize
from danet.predict.inference import segment
from danet.predict.predictor import Predictor, Segmentation
from danet.predict.protocols import WHOLE


@dataclass(eq=False)
class _Job:
    function: Callable[[list[Any]], Sequence[Any]]
    item: Any
    kind: Hashable
    most: int
    done: asyncio.Future[Any]
    urgent: bool = False


class Worker:
    """The thread and its line. `run` must be running, as a task, in the loop whose requests ask."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "danet-compute", _give_way)
        self._waiting: list[_Job] = []
        self._wake = asyncio.Event()
        self.batches = self.batched = 0

    def __len__(self) -> int:
        return len(self._waiting)

    async def together(
        self, function: Callable[[list[Any]], Sequence[Any]], item: Any, kind: Hashable, most: int
    ) -> Any:
        """The item's result of `function([item, ...])`, called once for up to `most` waiting items of one kind."""
        return await self._wait(_Job(function, item, kind, most, asyncio.get_running_loop().create_future()))

    async def first(self, function: Callable[..., Any], *args: Any) -> Any:
        """`function(*args)`, before all that wait for `together`: for what takes milliseconds."""
        done = asyncio.get_running_loop().create_future()
        return await self._wait(_Job(lambda _: [function(*args)], None, None, 1, done, urgent=True))

    async def _wait(self, job: _Job) -> Any:
        urgent = sum(other.urgent for other in self._waiting)
        self._waiting.insert(urgent if job.urgent else len(self._waiting), job)
        self._wake.set()
        try:
            return await job.done
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    async def run(self) -> None:
        """Work off the line until cancelled; what is being computed then is finished."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                while not self._waiting:
                    self._wake.clear()
                    await self._wake.wait()
                jobs = self._take()
                try:
                    results = await loop.run_in_executor(self._thread, jobs[0].function, [job.item for job in jobs])
                except Exception as error:
                    for job in jobs:
                        if not job.done.done():
                            job.done.set_exception(error)
                else:
                    for job, result in zip(jobs, results, strict=True):
                        if not job.done.done():
                            job.done.set_result(result)
        finally:
            self._thread.shutdown()

    def _take(self) -> list[_Job]:
        head = self._waiting[0]
        alike = [job for job in self._waiting if job.function == head.function and job.kind == head.kind]
        jobs = alike[: head.most]
        self._waiting = [job for job in self._waiting if job not in jobs]
        if not head.urgent:  # a question about a kept image is no image
            self.batches += 1
            self.batched += len(jobs)
        return jobs


def _give_way() -> None:
    """The thread that answers goes first: on Linux each has a priority of its own, which torch's threads inherit."""
    if sys.platform == "linux":
        os.nice(5)


@torch.inference_mode()
def segment_together(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Segmentation]:
    """Segment H,W,3 uint8 images of one size, the network called once.

    The numbers are those of one image at a time, to the rounding of another batch size.
    """
    card, protocol = predictor.card, predictor.shown_by(WHOLE)
    shown = torch.from_numpy(np.stack([resized(image, card.size) for image in images]))
    logits = predictor.logits(normalize(shown.to(predictor.device), card.mean, card.std))  # B,K,h,w
    found = []
    for image, own in zip(images, logits.split(1), strict=True):
        labels, confidence = segment(
            lambda _, own=own: own, image, card.mean, card.std, predictor.device, card.size, protocol
        )
        found.append(Segmentation("image", image, labels, confidence, card.classes))
    return found
