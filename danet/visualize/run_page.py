"""RUN/report.html: a run so far, from what validation counted; a run with its best weights, measured in full. Commands:
`danet train`, `danet report RUN`.
"""

from typing import NamedTuple

from danet import recipes
from danet.data.classes import Classes
from danet.data.samples import Samples
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import Evaluation
from danet.predict.predictor import Predictor
from danet.predict.protocols import WHOLE
from danet.recipes import Recipe
from danet.visualize import curves, scores, worst_images
from danet.visualize.curves import History
from danet.visualize.html import Section, document, escape, pairs, percent
from danet.weights.file import Card


class Run(NamedTuple):
    """A run's folder, read.

    Args:
        name: of the folder.
        history: the rows of metrics.csv, at least one.
        card: of best.safetensors.
        parameters: how many numbers of these weights were trained.
    """

    name: str
    recipe: Recipe
    history: History
    card: Card
    parameters: int


def unfinished(name: str, recipe: Recipe, history: History, confusion: Confusion, classes: Classes) -> bytes:
    """The page of a run after a validation, from its confusion matrix; nothing is computed but the page."""
    last, best, x = history[-1], best_row(history), curves.axis([recipe])
    lead = (
        f"{escape(recipe.about, 300)}. Below are the numbers of the last validation, in {x} {last[x]:.0f}."
        f" Images, calibration and boundaries are added at the end of the run, or by <code>danet report</code>."
    )
    sections = [
        _curves(recipe, history),
        scores.classes(confusion, classes),
        scores.confusion(confusion, classes.names),
        scores.settings(recipes.to_dict(recipe)),
    ]
    scored = [(f"{which} mIoU", f"{percent(row['miou'], 2)} %") for which, row in (("last", last), ("best", best))]
    facts = [*scored, *_facts(recipe, history, best)]
    return document(name, lead, facts, sections)


def page(run: Run, measured: Evaluation, predictor: Predictor, samples: Samples) -> bytes:
    """The page of a run whose best weights have been measured over these samples."""
    best, found, x = best_row(run.history), measured.confusion.scores(), curves.axis([run.recipe])
    data, recorded = run.recipe.data, f"{percent(best['miou'], 2)} %"
    lead = (
        f"{escape(run.recipe.about, 300)}. Below is what best.safetensors, the weights of {x} {best[x]:.0f},"
        f" does on the {len(samples)} full images of {escape(data.dataset)} {escape(data.val_split)}."
    )
    facts = [
        ("mIoU", f"{percent(found.miou, 2)} %"),
        *([("as validated in training", recorded)] if recorded != f"{percent(found.miou, 2)} %" else []),
        *_facts(run.recipe, run.history, best),
        ("pixel accuracy", f"{percent(found.pixel_accuracy, 2)} %"),
        ("calibration error", f"{percent(measured.calibration.error, 2)} %"),
        ("parameters", f"{run.parameters / 1e6:.2f} M"),
    ]
    protocol = predictor.shown_by(WHOLE)
    sections = [
        _curves(run.recipe, run.history),
        scores.classes(measured.confusion, measured.classes, measured.boundary),
        scores.confusion(measured.confusion, measured.classes.names),
        scores.trust(measured.calibration, measured.boundary),
        scores.images(measured.images, worst_images.drawn(predictor, samples, measured.images, protocol)),
        scores.settings(recipes.to_dict(run.recipe)),
    ]
    return document(run.name, lead, facts, sections)


def best_row(history: History) -> dict[str, float]:
    """The first row with the best mIoU, or the first of all where no image had a labeled pixel."""
    return dict(max(history, key=lambda row: -1.0 if row["miou"] != row["miou"] else row["miou"]))


def _facts(recipe: Recipe, history: History, best: dict[str, float]) -> list[tuple[str, str]]:
    x, total = curves.axis([recipe]), recipe.optim.steps or recipe.optim.epochs
    return [
        (f"best {x}", f"{best[x]:.0f} of {total}"),
        ("trained at", f"{history[-1]['images_per_second']:.3g} images/s"),
    ]


def _curves(recipe: Recipe, history: History) -> Section:
    """Charts; for a single validation, its numbers."""
    if len(history) > 1:
        return Section("Curves", curves.of_one(history, curves.axis([recipe])))
    only = [(curves.SCALES.get(name, name.replace("_", " ")), f"{value:.5g}") for name, value in history[0].items()]
    return Section("The only validation so far", pairs(only))
