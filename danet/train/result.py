"""What a training run returns."""

from dataclasses import dataclass
from pathlib import Path

from danet.train import run_folder
from danet.train.report import FinalReport


@dataclass(frozen=True)
class Result:
    """The outcome of a run.

    Args:
        miou: best validation mIoU, NaN before the first validation.
        stopped_by: number of the signal that stopped the run; None: it is complete.
        folder: the run folder.
        final: the evaluation of the best weights; None unless the run is complete.
    """

    miou: float
    stopped_by: int | None = None
    folder: Path = Path()
    final: FinalReport | None = None

    def __repr__(self) -> str:
        state = "complete" if self.stopped_by is None else "stopped"
        return f"Result({str(self.folder)!r}, {state}, best mIoU {self.miou:.1%})"

    @property
    def weights(self) -> Path:
        """The file of the best weights, for `danet.load` and `danet.evaluate`."""
        return self.folder / run_folder.BEST
