"""SIGINT and SIGTERM as a flag that the loop looks at after each step; a second one ends the process at once."""

import signal
from types import FrameType

import torch

from danet.train.distributed import Process


class Interruption:
    """A context manager; `signal` is the number of the signal that came, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def __enter__(self) -> "Interruption":
        self._previous = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def agreed(self, process: Process) -> bool:
        """Whether a signal came to any of the processes, so that all of them stop after the same step."""
        return bool(process.sum(torch.tensor(int(self.signal is not None))))

    def check(self, *_: object) -> None:
        """Raises KeyboardInterrupt once a signal has come: in work of which nothing needs saving."""
        if self.signal is not None:
            raise KeyboardInterrupt

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.signal is not None:
            self.__exit__()
            signal.raise_signal(number)
        self.signal = number
