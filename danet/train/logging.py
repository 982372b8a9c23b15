"""Progress of a run on standard error.

A terminal shows a bar. Files and pipes get a line after each validation, and one a minute.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from danet.errors import print_note, printable

SECONDS_PER_LINE = 60.0
"""The time between two lines of progress where there is no terminal."""

_MUCH_WARMUP = 0.25  # of the steps


class TrainingProgress:
    """A context manager that displays the progress of a run and measures its speed.

    Args:
        steps: number of steps of the whole run.
        first: the step at which it starts.
        batch: images per step.
        visible: whether this process displays anything.
    """

    def __init__(self, steps: int, first: int, batch: int, visible: bool):
        self.batch, self._total, self._step, self._first = batch, steps, first, first
        console = Console(stderr=True)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TimeRemainingColumn(),
        )
        self._bar = Progress(*columns, console=console, disable=not (visible and console.is_terminal))
        self._by_lines = visible and not console.is_terminal
        self._begun = self._last_line = time.monotonic()
        self._task = self._bar.add_task("training", total=steps, completed=first)
        self._scores = ""
        self._reset_clock()

    def __enter__(self) -> "TrainingProgress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside this block as time spent waiting for images."""
        start = time.monotonic()
        yield
        self._waited += time.monotonic() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time inside this block out of the speed and of the remaining time."""
        start = time.monotonic()
        yield
        pause = time.monotonic() - start
        self._started, self._begun = self._started + pause, self._begun + pause

    def advance(self, loss: float) -> None:
        """Display a completed step."""
        self._steps += 1
        self._step += 1
        speed = self.speed()
        pace, waiting = speed["images_per_second"], speed["waiting"]
        text = f"loss {loss:.3f}  {pace:.{1 if pace >= 1 else 2}f} images/s, {waiting:.0%} waiting for data"
        self._bar.update(self._task, advance=1, description=text + self._scores)
        now = time.monotonic()
        if self._by_lines and now - self._last_line >= SECONDS_PER_LINE:
            seconds = (now - self._begun) / (self._step - self._first) * (self._total - self._step)
            self.note(f"step {self._step} of {self._total}: {text}, about {duration(seconds)} left")

    def validated(self, epoch: int, miou: float, best: float, loss: float) -> None:
        """Display the scores of a validation, and restart the clock of `speed`.

        Args:
            epoch: number of completed epochs.
            miou: of this validation.
            best: the highest mIoU so far.
            loss: the validation loss.
        """
        self._scores = f"  mIoU {miou:.1%} (best {best:.1%})"
        self.note(f"epoch {epoch}, step {self._step}: mIoU {miou:.1%} (best {best:.1%}), validation loss {loss:.3f}")
        self._reset_clock()

    def note(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        if self._by_lines:
            print_note(text)
            self._last_line = time.monotonic()
        elif not self._bar.disable:
            self._bar.console.print(Text(printable(text)))

    def speed(self) -> dict[str, float]:
        """Return training images per second since the last validation, and the share of time spent waiting for data."""
        elapsed = max(time.monotonic() - self._started, 1e-9)
        return {"images_per_second": self._steps * self.batch / elapsed, "waiting": self._waited / elapsed}

    def _reset_clock(self) -> None:
        self._started, self._waited, self._steps = time.monotonic(), 0.0, 0


def duration(seconds: float) -> str:
    """Return a time in minutes or hours, rounded."""
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def note_steps(folder: Path, step: int, steps: int, warmup: int) -> None:
    """Say so if a resumed run has no step left, or if warmup takes much of a new one."""
    if step == steps:
        print_note(f"{folder}: all {steps} steps are done; only the report is made again")
    elif step == 0 and warmup > _MUCH_WARMUP * steps:
        what = f"warmup takes {warmup} of {steps} steps"
        print_note(f"note: {what}; train longer, or set `optim.warmup` to {steps // 10}")
