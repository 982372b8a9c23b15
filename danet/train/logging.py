"""What a run shows while it runs: one line on a terminal's standard error, nothing elsewhere. Also times waiting for
data against computing.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn


class TrainingProgress:
    """A context manager around the steps of a run.

    Args:
        steps: of the whole run.
        first: the step it begins at.
        batch: images a step.
        shown: whether this process shows anything.
    """

    def __init__(self, steps: int, first: int, batch: int, shown: bool):
        self.batch = batch
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not (shown and console.is_terminal))
        self._task = self._bar.add_task("training", total=steps, completed=first)
        self._validated = ""
        self._begin()

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around what waits for images."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    def advance(self, loss: float) -> None:
        """One step done."""
        self._steps += 1
        speed = self.speed()
        text = f"loss {loss:.3f}  {speed['images_per_second']:.1f} images/s, {speed['waiting']:.0%} waiting for data"
        self._bar.update(self._task, advance=1, description=text + self._validated)

    def validated(self, epoch: int, miou: float, best: float) -> None:
        """A validation done; the clock of `speed` begins anew."""
        self._validated = f"  mIoU {miou:.4f} (best {best:.4f})"
        self._bar.console.print(f"epoch {epoch}: mIoU {miou:.4f}") if not self._bar.disable else None
        self._begin()

    def speed(self) -> dict[str, float]:
        """Training images a second since the last validation, and the share of that time spent waiting for data."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return {"images_per_second": self._steps * self.batch / elapsed, "waiting": self._waited / elapsed}

    def _begin(self) -> None:
        self._started, self._waited, self._steps = time.monotonic(), 0.0, 0
