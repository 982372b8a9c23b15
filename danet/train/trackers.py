"""Experiment trackers: Weights & Biases, MLflow, trackio and TensorBoard get the numbers of metrics.csv.

Commands: `danet train --tracker NAME`, `--tensorboard`. Each adapter is opened at the first validation, because
trackers start threads, and the processes that load images must be forked before. It then gets all rows, so that a
resumed run is complete, in a new run of MLflow and trackio and in the same one of the others.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from danet.errors import InputError, first_line, missing_package, print_note, unknown_name
from danet.train import run_folder


class Tracker(Protocol):
    """A run in a tracker."""

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        ...

    def close(self) -> None:
        """End the run."""
        ...


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, run: Path, _settings: Mapping[str, Any]):
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(run / "tensorboard"), purge_step=0)

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Add a scalar for each number."""
        for name, number in numbers.items():
            self._writer.add_scalar(name, number, step)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases; WANDB_PROJECT, WANDB_MODE=offline and so on are its own settings."""

    def __init__(self, run: Path, settings: Mapping[str, Any]):
        wandb: Any = import_module("wandb")
        name = run_folder.identity(run)
        self._run = wandb.init(name=name, id=name, resume="allow", dir=str(run), config=dict(settings))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers; W&B ignores steps that the run has already."""
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the run, which uploads the rest."""
        self._run.finish()


class MLflow:
    """A run of MLflow; MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME are its own settings."""

    def __init__(self, run: Path, settings: Mapping[str, Any]):
        mlflow: Any = import_module("mlflow")
        self._client = mlflow
        mlflow.start_run(run_name=run_folder.identity(run))
        flat = [(name, str(value)[:500]) for name, value in flatten(settings)]
        for start in range(0, len(flat), 100):
            mlflow.log_params(dict(flat[start : start + 100]))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers as metrics."""
        self._client.log_metrics(dict(numbers), step=step)

    def close(self) -> None:
        """End the run."""
        self._client.end_run()


class Trackio:
    """A run of trackio, which keeps it on this machine unless TRACKIO_SPACE_ID is set."""

    def __init__(self, run: Path, settings: Mapping[str, Any]):
        self._trackio: Any = import_module("trackio")
        self._trackio.init(project="danet", name=run_folder.identity(run), config=dict(flatten(settings)))

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Log the numbers."""
        self._trackio.log(dict(numbers), step=step)

    def close(self) -> None:
        """Finish the run."""
        self._trackio.finish()


TRACKERS: dict[str, Callable[[Path, Mapping[str, Any]], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
    "trackio": Trackio,
}
"""Package -> adapter: (run folder, recipe) -> tracker."""


def require_tracker(name: str) -> None:
    """Check that a tracker is known and installed.

    Raises:
        InputError: it is not.
    """
    if name not in TRACKERS:
        raise unknown_name("tracker", name, TRACKERS)
    if find_spec(name) is None and name == "tensorboard":
        raise missing_package(name, "needs the package tensorboard", "track")
    if find_spec(name) is None:
        raise InputError("tracker", f"needs the package {name}", f"install it: uv pip install {name}")


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Return the values of nested settings with their names: ("optim.lr", 0.01)."""
    pairs: list[tuple[str, Any]] = []
    for name, value in settings.items():
        pairs += flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else [(prefix + name, value)]
    return pairs


class TrackerLog:
    """A context manager that sends the rows of metrics.csv to trackers.

    A tracker that fails, as without a connection, is noted and gets no more rows: it must not end the training.

    Args:
        names: of `TRACKERS`.
        run: the run folder.
        settings: the recipe.

    Raises:
        InputError: the folder of TensorBoard's files is a link.
    """

    def __init__(self, names: Sequence[str], run: Path, settings: Mapping[str, Any]):
        self._names, self._run, self._settings = names, run, settings
        self._open: dict[str, Tracker] | None = None
        if "tensorboard" in names and (folder := run / "tensorboard").is_symlink():
            what = "is a link to another folder, which would be written to"
            raise InputError(folder, what, "remove it, or choose another `folder`")

    def __enter__(self) -> "TrackerLog":
        return self

    def __exit__(self, *_: object) -> None:
        for name, tracker in list((self._open or {}).items()):
            with self._dropping(name):
                tracker.close()

    def add(self, history: Sequence[Mapping[str, float]]) -> None:
        """Send the last row; the first call sends all rows."""
        rows = history[-1:]
        if self._open is None:
            self._open, rows = {}, history
            for name in self._names:
                with self._dropping(name):
                    self._open[name] = TRACKERS[name](self._run, self._settings)
        for name, tracker in list(self._open.items()):
            with self._dropping(name):
                for row in rows:
                    tracker.log(int(row["step"]), {k: v for k, v in row.items() if k != "step" and math.isfinite(v)})

    @contextmanager
    def _dropping(self, name: str) -> Iterator[None]:
        """Drop a tracker that fails, and say so."""
        try:
            yield
        except Exception as error:  # trackers have their own types
            assert self._open is not None
            self._open.pop(name, None)
            kept = self._run / run_folder.METRICS
            print_note(
                f"note: the tracker {name} failed ({first_line(error)}) and gets no more rows; all are in {kept}"
            )
