"""RUN/report.html: the page of a run in progress, and of a finished run with its best weights evaluated in full.

Commands: `danet train`, `danet report RUN`.
"""

from collections.abc import Sequence
from typing import NamedTuple

from danet import recipes
from danet.data.classes import Classes
from danet.data.samples import Samples
from danet.evaluate.confusion import Confusion
from danet.evaluate.evaluation import Evaluation
from danet.predict.predictor import Predictor
from danet.recipes import Data, Recipe
from danet.visualize import sections, training_data, worst_images
from danet.visualize.html import Section, document, escape, pairs, percent
from danet.visualize.sections import History
from danet.visualize.training_data import NOTHING, TrainingData
from danet.weights.file import Card


class Run(NamedTuple):
    """The content of a run's folder.

    Args:
        name: of the folder.
        recipe: its settings.
        history: the rows of metrics.csv, at least one.
        card: of best.safetensors.
        parameters: number of trained parameters in these weights.
        data: what was recorded of its training data.
    """

    name: str
    recipe: Recipe
    history: History
    card: Card
    parameters: int
    data: TrainingData = NOTHING


def validation_split(data: Data) -> str:
    """Return the name of the images on which a run is validated."""
    return data.val_split if data.fold is None else f"{data.train_split}, fold {data.fold}"


def unfinished(
    name: str,
    recipe: Recipe,
    history: History,
    confusion: Confusion,
    classes: Classes,
    warnings: Sequence[str] = (),
    data: TrainingData = NOTHING,
) -> bytes:
    """Return the page of a run in progress, from the confusion matrix and the warnings of its last validation."""
    last, best, x = history[-1], best_row(history), sections.x_axis([recipe])
    lead = (
        f"{escape(recipe.about, 300)}. The scores are those of the last validation, in {x} {last[x]:.0f}."
        f" Images, calibration and boundaries are added at the end of the run, or by <code>danet report</code>."
    )
    parts = [
        *sections.warnings(warnings),
        _curves(recipe, history),
        *training_data.section(data, confusion, classes),
        sections.classes(confusion, classes),
        sections.confusion(confusion, classes),
        sections.settings(recipes.to_dict(recipe)),
    ]
    scores = [(f"{which} mIoU", percent(row["miou"], 2, "%")) for which, row in (("last", last), ("best", best))]
    return document(name, lead, [*scores, *_facts(recipe, history, best)], parts)


def page(
    run: Run, evaluation: Evaluation, predictor: Predictor, samples: Samples, warnings: Sequence[str] = ()
) -> bytes:
    """Return the page of a run whose best weights have been evaluated on these samples, with its warnings."""
    best, scores, x = best_row(run.history), evaluation.confusion.scores(), sections.x_axis([run.recipe])
    data, miou, recorded = run.recipe.data, percent(scores.miou, 2, "%"), percent(best["miou"], 2, "%")
    split = validation_split(data)
    lead = (
        f"{escape(run.recipe.about, 300)}. The scores are those of best.safetensors, the weights of {x} {best[x]:.0f},"
        f" on {sections.validation_images(len(samples), data.dataset, split, data.root)}."
    )
    facts = [
        ("mIoU", miou),
        *([("in training", recorded)] if recorded != miou else []),
        *_facts(run.recipe, run.history, best),
        ("pixel accuracy", percent(scores.pixel_accuracy, 2, "%")),
        ("calibration error", percent(evaluation.calibration.error, 2, "%")),
        ("parameters", f"{run.parameters / 1e6:.2f} M"),
    ]
    parts = [
        *sections.warnings(warnings),
        _curves(run.recipe, run.history),
        *training_data.section(run.data, evaluation.confusion, evaluation.classes),
        sections.classes(evaluation.confusion, evaluation.classes, evaluation.boundary),
        sections.confusion(evaluation.confusion, evaluation.classes),
        *([] if evaluation.attention is None else [sections.attention(evaluation.attention)]),
        sections.trust(evaluation.calibration, evaluation.boundary, _temperature(predictor.card)),
        sections.images(evaluation.images, worst_images.drawn(predictor, samples, evaluation.images)),
        sections.settings(recipes.to_dict(run.recipe)),
    ]
    return document(run.name, lead, facts, parts)


def _temperature(card: Card) -> float | None:
    """Return what divides the logits, if the card says so; it may come from elsewhere."""
    value = card.metrics.get("temperature")
    return value if isinstance(value, float) else None


def best_row(history: History) -> dict[str, float]:
    """Return the first row with the highest mIoU; the first row if no validation had a labeled pixel."""
    return dict(max(history, key=lambda row: -1.0 if row["miou"] != row["miou"] else row["miou"]))


def _facts(recipe: Recipe, history: History, best: dict[str, float]) -> list[tuple[str, str]]:
    x, total = sections.x_axis([recipe]), recipe.optim.steps or recipe.optim.epochs
    return [
        (f"best {x}", f"{best[x]:.0f} of {total}"),
        ("training speed", f"{history[-1]['images_per_second']:.3g} images/s"),
    ]


def _curves(recipe: Recipe, history: History) -> Section:
    """Return charts, or the numbers of a single validation."""
    if len(history) > 1:
        return Section("Curves", sections.run_curves(history, sections.x_axis([recipe])))
    return Section("The only validation so far", pairs([_in_words(*entry) for entry in history[0].items()]))


_SHARES = {
    "miou": "mIoU",
    "pixel_accuracy": "pixel accuracy",
    "mean_accuracy": "mean accuracy",
    "attention_own": "attention on the pixel's own class",
    "attention_chance": "the same by chance",
    "attention_own_beyond": "attention on the own class, beyond the neighborhood",
    "attention_chance_beyond": "the same by chance, beyond the neighborhood",
    "waiting": "time spent waiting for images",
}
"""Columns of metrics.csv that are fractions -> what they are."""


def _in_words(column: str, value: float) -> tuple[str, str]:
    """Return what a column of metrics.csv is, and its value, fractions in percent."""
    if column in _SHARES:
        return _SHARES[column], percent(value, 2, "%")
    names = {**sections.SCALES, "lr": "learning rate"}
    return names.get(column, column.replace("_", " ")), f"{value:.5g}"
