"""RUN/tensorboard: the numbers of metrics.csv for TensorBoard. Command: `danet train RECIPE --tensorboard`, and
`tensorboard --logdir runs` to see them.
"""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

from danet.errors import InputError


def require() -> None:
    """Raises InputError where TensorBoard is not installed."""
    if find_spec("tensorboard") is None:
        raise InputError("--tensorboard", "needs the package tensorboard", "pip install 'danet[track]'")


class Events:
    """A context manager around a run.

    Args:
        folder: where the event files go; None: nothing is written.
    """

    def __init__(self, folder: Path | None):
        self._folder, self._writer = folder, None

    def __enter__(self) -> "Events":
        return self

    def __exit__(self, *_: object) -> None:
        if self._writer is not None:
            self._writer.close()

    def add(self, history: Sequence[Mapping[str, float]]) -> None:
        """Write the last row, by step; the first time all rows, in place of those of an interrupted run."""
        if self._folder is None:
            return
        rows = history[-1:]
        if self._writer is None:  # not before the workers have been started: it brings a thread
            from torch.utils.tensorboard import SummaryWriter

            self._writer, rows = SummaryWriter(str(self._folder), purge_step=0), history
        for row in rows:
            for name in row.keys() - {"step"}:
                self._writer.add_scalar(name, row[name], int(row["step"]))
        self._writer.flush()
