"""Run all computation in one thread, and batch the requests that wait for it.

No request waits for a batch to fill. When the thread is free, it takes the oldest job and, up to a limit, all jobs that
can run with it. Jobs of clients that have disconnected are removed from the queue.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from danet.arrays import without_gradients
from danet.data.images.channels import resize_long_side
from danet.model.preprocess import normalize
from danet.predict.inference import labels_from_logits, on_device
from danet.predict.predictor import Predictor
from danet.predict.segmentation import Segmentation


@dataclass(eq=False)
class _Job:
    function: Callable[[list[Any]], Sequence[Any]]
    item: Any
    kind: Hashable
    max_batch: int
    done: asyncio.Future[Any]
    urgent: bool = False


class Worker:
    """A compute thread and its queue. Start `run` as a task in the event loop that submits jobs."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "danet-compute", _lower_priority)
        self._queue: list[_Job] = []
        self._wake = asyncio.Event()
        self.batches = self.batched = 0

    def __len__(self) -> int:
        return len(self._queue)

    async def submit(
        self, function: Callable[[list[Any]], Sequence[Any]], item: Any, kind: Hashable, max_batch: int
    ) -> Any:
        """Return the result for `item` of `function(items)`, called with up to `max_batch` waiting items of a kind."""
        return await self._enqueue(_Job(function, item, kind, max_batch, asyncio.get_running_loop().create_future()))

    async def submit_urgent(self, function: Callable[..., Any], *args: Any) -> Any:
        """Return `function(*args)`, computed before all jobs of `submit`. Use it for work of a few milliseconds."""
        done = asyncio.get_running_loop().create_future()
        return await self._enqueue(_Job(lambda _: [function(*args)], None, None, 1, done, urgent=True))

    async def _enqueue(self, job: _Job) -> Any:
        urgent = sum(other.urgent for other in self._queue)
        self._queue.insert(urgent if job.urgent else len(self._queue), job)
        self._wake.set()
        try:
            return await job.done
        finally:
            if job in self._queue:
                self._queue.remove(job)

    async def run(self) -> None:
        """Process the queue until cancelled, then let the running job finish."""
        loop = asyncio.get_running_loop()
        try:
            while True:
                while not self._queue:
                    self._wake.clear()
                    await self._wake.wait()
                jobs = self._next_batch()
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

    def _next_batch(self) -> list[_Job]:
        first = self._queue[0]
        matching = [job for job in self._queue if job.function == first.function and job.kind == first.kind]
        jobs = matching[: first.max_batch]
        self._queue = [job for job in self._queue if job not in jobs]
        if not first.urgent:  # the counters are about images only
            self.batches += 1
            self.batched += len(jobs)
        return jobs


def _lower_priority() -> None:
    """Let the thread that answers requests run first. On Linux, torch's threads inherit this thread's priority."""
    if sys.platform == "linux":
        os.nice(5)


@without_gradients
def segment_batch(predictor: Predictor, images: Sequence[np.ndarray]) -> list[Segmentation]:
    """Segment H,W,3 uint8 images of one size in one forward pass.

    The results equal those for single images, up to the rounding of another batch size.
    """
    card, align_corners = predictor.card, predictor.network.align_corners
    inputs = np.stack([resize_long_side(image, card.size) for image in images])  # B,h,w,3
    logits = predictor.logits(normalize(on_device(inputs, predictor.device), card.mean, card.std))  # B,K,h',w'
    input_size, results = (inputs.shape[1], inputs.shape[2]), []
    for i, image in enumerate(images):
        result = labels_from_logits(logits[i : i + 1], input_size, (image.shape[0], image.shape[1]), align_corners)
        results.append(Segmentation("image", image, *result, card.classes))
    return results
