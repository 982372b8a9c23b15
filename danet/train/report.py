"""RUN/report.html, written by the run itself: after each validation from what was counted there, and at its end with
the best weights measured in full. `danet report RUN` does the latter again.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from danet.data import registry
from danet.data.classes import Classes
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import check_classes, measure
from danet.files import write_atomically
from danet.predict.predictor import load
from danet.recipes import Recipe
from danet.train import run_folder
from danet.visualize import run_page

FILE = "report.html"


def write(
    run: Path, recipe: Recipe, history: Sequence[Mapping[str, Any]], confusion: Confusion, classes: Classes
) -> None:
    """The page of a run that goes on.

    Args:
        history: the rows of metrics.csv, one a validation.
        confusion: of the last validation.
    """
    write_atomically(run / FILE, run_page.unfinished(run.resolve().name, recipe, history, confusion, classes))


def finish(run: Path, device: str, advance: Callable[[int, int], None]) -> None:
    """Write the page of a run that has ended; `advance` as in `measured`."""
    write_atomically(run / FILE, measured(run, device, advance=advance))


def measured(
    run: Path,
    device: str | None = None,
    root: Path | None = None,
    advance: Callable[[int, int], None] = lambda _done, _all: None,
) -> bytes:
    """The page of a run with its best weights measured over the validation images: boundary F, calibration, and the
    worst and best images, for the time of one validation.

    Args:
        root: where the dataset lies, if no longer where the recipe says.
        advance: is told (done, all) after each image.

    Raises:
        InputError: not the folder of a run that was validated; its dataset is not there.
    """
    read, predictor = run_folder.read(run), load(run / run_folder.BEST, device)
    chosen = read.recipe.data
    samples = registry.load(chosen.dataset, root or chosen.root, chosen.val_split)
    check_classes(predictor.card, samples, str(run))
    predicted = enumerate(predictor.predictions(samples), 1)
    counted = (advance(i, len(samples)) or prediction for i, prediction in predicted)
    return run_page.page(read, measure(counted, samples), predictor, samples)
