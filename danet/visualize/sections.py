"""Sections shared by the pages of runs and evaluations: curves, class scores, confusion, calibration, images."""

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from danet.data.classes import Classes
from danet.evaluate.boundary import TOLERANCES, Boundary
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion
from danet.evaluate.per_image import ImageScores
from danet.recipes import Recipe
from danet.visualize.html import LONG, Section, bar, escape, percent, swatch, table
from danet.visualize.svg import Series, lines, matrix, reliability

if TYPE_CHECKING:
    from danet.evaluate.attention_metrics import AttentionMetrics

History = Sequence[Mapping[str, float]]
"""The rows of metrics.csv, one per validation."""

SCALES = {"position_scale": "alpha (position)", "channel_scale": "beta (channel)"}

_SHARES = {
    "own class": "attention_own",
    "by chance": "attention_chance",
    "own class, beyond 5 x 5": "attention_own_beyond",
}

_CONFUSIONS, _IMAGES, _SETTINGS = 12, 10, 200  # maximum numbers of rows and lines
_NEAR = TOLERANCES.index(3)


def warnings(lines: Sequence[str]) -> list[Section]:
    """Return a section with what should worry the user of a run; none if there is nothing. Backticks mark code."""
    items = "".join(f"<li>{escape(line, 600)}</li>" for line in lines)
    marked = re.sub("`([^`]*)`", r"<code>\1</code>", items)
    return [Section("Warnings", f'<ul class="warnings">{marked}</ul>')] if lines else []


def x_axis(recipes: Sequence[Recipe]) -> str:
    """Return the unit of the curves' x axis: "epoch", or "step" if one of the runs is measured in steps."""
    return "step" if any(recipe.optim.steps for recipe in recipes) else "epoch"


def run_curves(history: History, x: str) -> str:
    """Return all curves of one run, over the column `x`."""
    losses = [column for column in history[-1] if column.startswith("loss_") and column != "loss_total"]
    scales = [column for column in SCALES if column in history[-1]]
    scores = [("mIoU", "miou"), ("mean accuracy", "mean_accuracy"), ("pixel accuracy", "pixel_accuracy")]
    loss_lines = [_series(f"training, {column.removeprefix('loss_')}", history, column, x) for column in losses]
    if any(math.isfinite(row.get("validation_loss", math.nan)) for row in history):
        loss_lines.insert(0, _series("validation, cross-entropy", history, "validation_loss", x))
    charts = [
        lines("Validation", [_series(name, history, column, x, 100) for name, column in scores], x, "%"),
        lines("Losses", loss_lines, x, "loss"),
        lines("Learning rate", [_series("learning rate", history, "lr", x)], x, "of the backbone"),
        lines("Attention scales", [_series(SCALES[c], history, c, x) for c in scales], x, "alpha and beta"),
    ]
    if shares := [(label, column) for label, column in _SHARES.items() if column in history[-1]]:
        own = [_series(label, history, column, x, 100) for label, column in shares]
        charts.append(lines("Attention on the own class", own, x, "%"))
    return f'<div class="charts">{"".join(charts)}</div>'


def compared_curves(runs: Sequence[tuple[str, History]], x: str) -> str:
    """Return curves of several (name, history), one line per run."""
    columns = [
        ("Validation mIoU", "miou", "%", 100.0),
        ("Validation loss", "validation_loss", "cross-entropy", 1.0),
        ("Total training loss", "loss_total", "weighted sum of the losses", 1.0),
        ("Learning rate", "lr", "of the backbone", 1.0),
        ("alpha, of position attention", "position_scale", "alpha", 1.0),
        ("beta, of channel attention", "channel_scale", "beta", 1.0),
    ]
    charts = [
        lines(title, [_series(name, history, column, x, factor) for name, history in runs], x, unit)
        for title, column, unit, factor in columns
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def classes(confusion: Confusion, classes: Classes, boundary: Boundary | None = None) -> Section:
    """Return a table of the classes: IoU, recall, precision, share of the pixels, and boundary F if it was measured."""
    matrix, scores = confusion.matrix, confusion.scores()
    with np.errstate(invalid="ignore"):
        recall, precision = matrix.diagonal() / matrix.sum(1), matrix.diagonal() / matrix.sum(0)
        share = matrix.sum(1) / matrix.sum()
    boundary_f = None if boundary is None else boundary.scores().f[:, _NEAR]
    head = ["class", "IoU %", "recall %", "precision %", "pixels %"]
    rows = []
    for i, name in enumerate(classes.names):
        row = [swatch(classes.palette[i]) + escape(name), bar(float(scores.iou[i]))]
        row += [percent(float(values[i])) for values in (recall, precision)] + [percent(float(share[i]), 2)]
        rows.append(row if boundary_f is None else [*row, percent(float(boundary_f[i]))])
    if boundary_f is not None:
        head.append(f"boundary F % ({TOLERANCES[_NEAR]} pixels)")
    absent = len(classes) - scores.counted
    note = f" Classes in neither ground truth nor prediction are n/a and not counted: {absent}." if absent else ""
    about = f"mIoU {percent(scores.miou, 2, '%')} is the mean IoU of {scores.counted} classes, over full images.{note}"
    return Section("Classes", table(head, rows, about))


def confusion(confusion: Confusion, classes: Classes) -> Section:
    """Return the confusion matrix, and a table of the largest confusions."""
    counts, names = confusion.matrix, classes.names
    wrong = counts * ~np.eye(len(names), dtype=bool)
    largest = [divmod(int(i), len(names)) for i in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]]
    rows = [
        [
            f"{escape(names[true])} → {escape(names[predicted])}",
            percent(counts[true, predicted] / counts[true].sum()),
            percent(counts[true, predicted] / wrong.sum()),
            f"{counts[true, predicted]:,}",
        ]
        for true, predicted in largest
        if wrong[true, predicted]
    ]
    head = ["true class → predicted", "% of the true class", "% of all errors", "pixels"]
    drawing, errors = matrix(counts, names), table(head, rows, "Largest confusions")
    return Section("Confusion", f'<div class="beside"><div>{drawing}</div><div>{errors}</div></div>')


def trust(calibration: Calibration, boundary: Boundary, temperature: float | None = None) -> Section:
    """Return the reliability diagram, and boundary F by tolerance.

    Args:
        calibration: of the network.
        boundary: of the network.
        temperature: by which its logits are divided, if that was fitted on the same images.
    """
    f = boundary.scores().mean_f
    line = Series("boundary F", TOLERANCES, [100 * value for value in f.tolist()])
    charts = [reliability(calibration.table(), calibration.error)]
    charts.append(lines("Boundary F, mean over the classes", [line], "tolerance in pixels", "%"))
    fitted = "was fitted on these images; expect a larger error on others"
    note = "" if temperature is None else f"<p>The logits are divided by {temperature:.3g}, which {fitted}.</p>"
    return Section("Calibration and boundaries", f'{note}<div class="charts">{"".join(charts)}</div>')


def attention(metrics: "AttentionMetrics") -> Section:
    """Return where attention looks, by class, and what it is worth."""
    entries = metrics.as_dict()
    position, parts = entries["position"], [f"<p>{escape(line, 600)}</p>" for line in metrics.text().splitlines()]
    if position is not None:
        names = ("own", "chance", "own_beyond", "chance_beyond")
        rows = [
            [escape(name), *(percent(math.nan if row[key] is None else row[key]) for key in names)]
            for name, row in position["classes"].items()
        ]
        head = ["class", "on the own class %", "by chance %", "beyond 5 x 5 positions %", "by chance %"]
        about = "Share of the attention of a class's pixels that is on pixels of the same class, by ground truth"
        parts.append(table(head, rows, about))
    return Section("Attention", "".join(parts))


def images(rows: Sequence[ImageScores], drawings: str) -> Section:
    """Return drawings of images, and a table of those with the lowest and highest mIoU."""
    scored = sorted((row for row in rows if not math.isnan(row.miou)), key=lambda row: row.miou)
    ends = scored[:_IMAGES] + scored[_IMAGES:][-_IMAGES:]
    cells = [[escape(row.name), bar(row.miou), percent(row.pixel_accuracy), escape(row.worst_class)] for row in ends]
    note = (
        '<p class="note">By mIoU of the single image, over the classes in it. Orange: wrong; gray stripes: not'
        " labeled, not counted.</p>"
    )
    caption = f"{len(ends)} of {len(rows)} images, lowest mIoU first"
    scores = table(["image", "mIoU %", "pixel accuracy %", "worst class"], cells, caption)
    return Section("Worst and best images", note + drawings + scores)


def validation_images(count: int, dataset: str, split: str, root: Path | None = None) -> str:
    """Return which images were used for validation, as HTML.

    Args:
        count: how many.
        dataset: its name; "folder" for a user's own.
        split: of the dataset.
        root: the folder of the dataset.
    """
    name = dataset if dataset != "folder" else root.name if root is not None and root.name else "your folder"
    return f"the {count} images of the split {escape(split)} of {escape(name)}, each at its full size"


def settings(recipe: Mapping[str, Any]) -> Section:
    """Return the settings, as in recipe.yaml."""
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    escaped = "\n".join(escape(line, LONG) for line in text.splitlines()[:_SETTINGS])
    return Section("Settings", f"<pre>{escaped}</pre>")


def _series(name: str, history: History, column: str, x: str, factor: float = 1.0) -> Series:
    """Return a column as a line; nan in rows without it."""
    return Series(name, [row[x] for row in history], [factor * row.get(column, float("nan")) for row in history])
