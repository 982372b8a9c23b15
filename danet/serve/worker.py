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
