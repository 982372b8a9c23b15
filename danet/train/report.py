"""RUN/report.html, written after each validation, and at the end of the run with a full evaluation of its best weights.

Command: `danet report RUN` writes the final page again.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from danet.data.classes import Classes
from danet.data.samples import Sample
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import Evaluation, check_classes, measure
from danet.evaluate.warning_signs import warning_signs
from danet.files import write_atomically
from danet.predict.attention import Inspection
from danet.predict.predictor import load
from danet.recipes import Recipe
from danet.train import run_folder, training_data
from danet.train.build import load_split
from danet.visualize import run_page

FILE = "report.html"

ATTENTION_IMAGES = 50
"""Validation images, evenly spaced, on which attention is measured at the end."""


class FinalReport(NamedTuple):
    """The page of a finished run, and what it is about.

    Args:
        page: HTML.
        evaluation: of the best weights on the validation images.
        warnings: see `warning_signs`.
    """

    page: bytes
    evaluation: Evaluation
    warnings: list[str]


def write(
    run: Path, recipe: Recipe, history: Sequence[Mapping[str, Any]], confusion: Confusion, classes: Classes
) -> None:
    """Write the page of a run in progress.

    Args:
        run: the run folder.
        recipe: its recipe.
        history: rows of metrics.csv, one per validation.
        confusion: confusion matrix of the last validation.
        classes: the classes.
    """
    signs = warning_signs(recipe, classes, confusion, history)
    data = training_data.read(run)
    page = run_page.unfinished(run.resolve().name, recipe, history, confusion, classes, signs, data)
    write_atomically(run / FILE, page)


def finish(run: Path, device: str, advance: Callable[[int, int], None]) -> FinalReport:
    """Write the page of a finished run, and return it; arguments as in `final_report`."""
    final = final_report(run, device, advance=advance)
    write_atomically(run / FILE, final.page)
    return final


def final_report(
    run: Path,
    device: str | None = None,
    root: Path | None = None,
    advance: Callable[[int, int], None] = lambda _done, _total: None,
) -> FinalReport:
    """Return the page of a run, with its best weights evaluated on the validation images.

    The page includes boundary F, calibration, and the worst and best images. This takes about as long as a validation.

    Args:
        run: the run folder.
        device: "cpu" or "cuda"; None: a GPU if available.
        root: the dataset's folder, if it has moved since the run.
        advance: called with (done, total) after each image.

    Raises:
        InputError: not the folder of a run with a validation, or its dataset is missing.
    """
    content = run_folder.read(run)._replace(data=training_data.read(run))
    predictor = load(run / run_folder.BEST, device)
    samples = load_split(content.recipe, "val_split", run_folder.find_root(run, content.recipe, root))
    check_classes(predictor.card, samples, str(run))
    numbered = enumerate(predictor.predictions(samples), 1)
    counted = (advance(i, len(samples)) or prediction for i, prediction in numbered)
    measured = set(np.linspace(0, len(samples) - 1, ATTENTION_IMAGES).astype(int)) if predictor.has_attention else set()
    position = itertools.count()

    def inspect(sample: Sample) -> Inspection | None:
        return predictor.inspect_pixels(sample.name, sample.image) if next(position) in measured else None

    evaluation = measure(counted, samples, inspect=inspect)
    signs = warning_signs(content.recipe, samples.classes, evaluation.confusion, content.history)
    return FinalReport(run_page.page(content, evaluation, predictor, samples, signs), evaluation, signs)
