"""Workers on a Ray cluster: each is a process that takes items, a list at a time, and is replaced when it dies.

Items are small, such as paths: what they name never passes through Ray. When a worker dies, its items are tried again,
each alone in a worker. An item that kills two workers this way is given up by name, and the others continue. No item is
to blame when a machine of the cluster ends.
"""

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

from danet.errors import InputError, missing_package

KILLS = 2
"""Number of workers that an item may kill on its own before it is given up."""

_DEATHS_IN_A_ROW = 5  # per worker, before the run ends
_SECONDS = 1.0  # between looks at the workers
_STARTS = 3  # attempts: Ray gives a busy machine only 30 s

Item = TypeVar("Item")
Taken = TypeVar("Taken", contravariant=True)


@runtime_checkable
class Worker(Protocol[Taken]):
    """What runs in each process."""

    def many(self, items: Sequence[Taken]) -> Any:
        """Process several items together."""
        ...

    def alone(self, item: Taken) -> Any:
        """Process an item that may have killed a worker."""
        ...


@dataclass(frozen=True)
class Workers:
    """How many workers there are, and on what.

    Args:
        count: number of workers; None: one for each CPU of the cluster but one, or as many as its GPUs suffice for.
        gpus: number of GPUs of a worker, may be a fraction; None: 1 if the cluster has GPUs, otherwise 0.

    Raises:
        InputError: a number out of range.
    """

    count: int | None = None
    gpus: float | None = None

    def __post_init__(self):
        if self.count is not None and self.count < 1:
            raise InputError("workers", f"must be at least 1, got {self.count}", "leave it out to use all CPUs")
        if self.gpus is not None and not (0 <= self.gpus <= 1 or self.gpus == int(self.gpus)):
            remedy = "use 0, a fraction such as 0.5, or a whole number"
            raise InputError("gpus_per_worker", f"must be 0 or more, got {self.gpus:g}", remedy)

    def resolve(self, cpus: float, gpus: float) -> tuple[int, float, float]:
        """Return the number of workers, and the CPUs and GPUs of each, for a cluster that has this many.

        One CPU is left to Ray, or half of the only one.

        Raises:
            InputError: the cluster has too few GPUs.
        """
        own = (1.0 if gpus else 0.0) if self.gpus is None else self.gpus
        if own > gpus:
            what = f"a worker needs {own:g} GPUs, and the Ray cluster has {gpus:g}"
            raise InputError("gpus_per_worker", what, "use 0 to compute on CPUs")
        free = cpus - 1 if cpus >= 2 else cpus / 2
        count = self.count or max(1, int(gpus / own) if own else int(free))
        return count, min(1.0, free / count), own


class Finished(NamedTuple):
    """Items that a worker has processed together, and the result of `many`."""

    items: Sequence[Any]
    result: Any


class FinishedAlone(NamedTuple):
    """An item, and the result of `alone`; None if it has killed `KILLS` workers and is given up."""

    item: Any
    result: Any


@contextmanager
def cluster(workers: Workers) -> Iterator[tuple[int, float, float]]:
    """Connect to the running Ray cluster, or start one on this machine, and yield `Workers.resolve`.

    Raises:
        InputError: Ray is not installed; the cluster cannot be reached; too few GPUs.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")  # otherwise uv run uploads the working directory
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # otherwise a warning; `device` says it anyway
    try:
        import ray
    except ImportError as error:
        raise missing_package("engine", "ray is not installed", "ray") from error
    for attempt in range(1, _STARTS + 1):
        try:
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
            break
        except Exception as error:  # Ray raises many types, also Exception itself
            ray.shutdown()
            if attempt < _STARTS and "timed out during startup" in str(error):
                continue
            what = f"cannot start Ray, or connect to it ({' '.join(str(error).split())[:200]})"
            raise InputError("engine", what, "check RAY_ADDRESS, or unset it to start Ray on this machine") from error
    try:
        available = ray.cluster_resources()
        yield workers.resolve(available.get("CPU", 1), available.get("GPU", 0))
    finally:
        ray.shutdown()


def process(
    start: Callable[[], Worker[Item]],
    bundles: Sequence[Sequence[Item]],
    resources: tuple[int, float, float],
    remaining: Callable[[Sequence[Item]], Sequence[Item]],
) -> Iterator[Finished | FinishedAlone]:
    """Process lists of items on workers, and yield what becomes of them, in any order.

    Args:
        start: makes a worker; it is called in its process.
        bundles: the lists of items that a worker processes together.
        resources: what `cluster` yields.
        remaining: called with the items of a worker that died; returns those that are still to be processed.

    Raises:
        InputError: raised by a worker; too many workers died in a row.
        OSError: raised by a worker.
    """
    import ray
    from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError

    pool = _Pool(start, *resources)
    waiting, suspects, kills, in_a_row = deque(bundles), deque[Item](), Counter[Item](), 0
    running: dict[Any, tuple[int, Sequence[Item], bool]] = {}
    try:
        while waiting or suspects or running:
            while pool.idle and (waiting or suspects):
                alone = bool(suspects)
                items = [suspects.popleft()] if alone else waiting.popleft()
                slot, call = pool.call(items, alone)
                running[call] = slot, items, alone
            done, _ = ray.wait(list(running), num_returns=1, timeout=_SECONDS)
            for call in done:
                slot, items, alone = running.pop(call)
                try:
                    result = ray.get(call)
                except RayTaskError as error:
                    raise error.cause if isinstance(error.cause, InputError | OSError) else error from None
                except (RayActorError, OutOfMemoryError) as error:
                    in_a_row += 1
                    if in_a_row > _DEATHS_IN_A_ROW * resources[0]:
                        raise _too_many_deaths(in_a_row, error) from error
                    lost = isinstance(error, ActorUnavailableError) or not pool.has_node(slot)
                    pool.replace(slot)
                    if not alone:
                        left = remaining(items)
                        if lost and left:
                            waiting.append(left)
                        else:
                            suspects += left
                        continue
                    kills[items[0]] += not lost
                    if kills[items[0]] < KILLS:
                        suspects += items
                    else:
                        yield FinishedAlone(items[0], None)
                    continue
                pool.idle.append(slot)
                in_a_row = 0
                yield FinishedAlone(items[0], result) if alone else Finished(items, result)
    finally:
        pool.stop()


class _Pool:
    """The workers, each with a number."""

    def __init__(self, start: Callable[[], Worker], count: int, cpus: float, gpus: float):
        import ray

        self._start = start
        self._kind = ray.remote(num_cpus=cpus, num_gpus=gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._actors: dict[int, Any] = {}
        self._nodes: dict[int, Any] = {}
        self.idle = deque(range(count))

    def call(self, items: Sequence[Any], alone: bool) -> tuple[int, Any]:
        """Give items to an idle worker, which is started if needed; return its number and the call."""
        slot = self.idle.popleft()
        if slot not in self._actors:
            self._actors[slot] = self._kind.remote(self._start)
            self._nodes[slot] = self._actors[slot].node.remote()
        actor = self._actors[slot]
        return slot, actor.alone.remote(items[0]) if alone else actor.many.remote(items)

    def has_node(self, slot: int) -> bool:
        """Return whether a worker that died had begun, on a machine that still belongs to the cluster."""
        import ray
        from ray.exceptions import RayError

        try:
            own = ray.get(self._nodes[slot])
        except RayError:
            return False
        return any(node["Alive"] for node in ray.nodes() if node["NodeID"] == own)

    def replace(self, slot: int) -> None:
        """Forget a worker that died; the next call starts another."""
        del self._actors[slot], self._nodes[slot]
        self.idle.append(slot)

    def stop(self) -> None:
        """End all workers."""
        import ray

        for actor in self._actors.values():
            ray.kill(actor)


class _Actor:
    """The process of a worker, which is made by the first call, so that its errors are those of the call."""

    def __init__(self, start: Callable[[], Worker]):
        self._start = start
        self._worker: Worker | None = None

    def node(self) -> str:
        import ray

        return ray.get_runtime_context().get_node_id()

    def many(self, items: Sequence[Any]) -> Any:
        return self._made().many(items)

    def alone(self, item: Any) -> Any:
        return self._made().alone(item)

    def _made(self) -> Worker:
        self._worker = self._worker or self._start()
        return self._worker


def _too_many_deaths(count: int, error: Exception) -> InputError:
    what = f"{count} workers died in a row without a result ({' '.join(str(error).split())[:200]})"
    return InputError("engine", what, "use fewer `workers` or more memory, and run the same command again to continue")
