"""The sections on numbers that pages of runs and of evaluations share."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import yaml

from danet.data.classes import Classes
from danet.evaluate.boundary import TOLERANCES, Boundary
from danet.evaluate.calibration import Calibration
from danet.evaluate.confusion import Confusion
from danet.evaluate.per_image import ImageScores
from danet.visualize.html import Section, bar, escape, percent, swatch, table
from danet.visualize.svg import Series, lines, matrix, reliability

_CONFUSIONS, _IMAGES = 12, 10
_NEAR = TOLERANCES.index(3)


def classes(confusion: Confusion, classes: Classes, boundary: Boundary | None = None) -> Section:
    """IoU of each class as a bar, with recall, precision, share of the pixels, and boundary F if it was measured."""
    matrix, scores = confusion.matrix, confusion.scores()
    with np.errstate(invalid="ignore"):
        recall, precision = matrix.diagonal() / matrix.sum(1), matrix.diagonal() / matrix.sum(0)
        share = matrix.sum(1) / matrix.sum()
    near = None if boundary is None else boundary.scores().f[:, _NEAR]
    head = ["class", "IoU %", "recall %", "precision %", "pixels %"]
    rows = []
    for i, name in enumerate(classes.names):
        row = [swatch(classes.palette[i]) + escape(name), bar(float(scores.iou[i]))]
        row += [percent(float(values[i])) for values in (recall, precision)] + [percent(float(share[i]), 2)]
        rows.append(row if near is None else [*row, percent(float(near[i]))])
    if near is not None:
        head.append(f"boundary F % ({TOLERANCES[_NEAR]} pixels)")
    left_out = len(classes) - scores.counted
    note = (
        f" {left_out} classes are in neither ground truth nor prediction: n/a, and left out of it." if left_out else ""
    )
    about = f"mIoU {percent(scores.miou, 2)} % is the mean of the {scores.counted} IoU, over full images.{note}"
    return Section("Classes", table(head, rows, about))


def confusion(confusion: Confusion, names: Sequence[str]) -> Section:
    """The matrix, and its largest mistakes in words."""
    counts = confusion.matrix
    wrong = counts * ~np.eye(len(names), dtype=bool)
    largest = [divmod(int(i), len(names)) for i in np.argsort(-wrong, axis=None, kind="stable")[:_CONFUSIONS]]
    rows = [
        [
            f"{escape(names[true])} → {escape(names[seen])}",
            percent(counts[true, seen] / counts[true].sum()),
            percent(counts[true, seen] / wrong.sum()),
            f"{counts[true, seen]:,}",
        ]
        for true, seen in largest
        if wrong[true, seen]
    ]
    head = ["true class → predicted", "% of the true class", "% of all mistakes", "pixels"]
    lost = table(head, rows, "Where most pixels are lost")
    return Section("Confusion", f'<div class="beside"><div>{matrix(counts, names)}</div><div>{lost}</div></div>')


def trust(calibration: Calibration, boundary: Boundary) -> Section:
    """Whether confidences can be believed, and how well borders are placed."""
    f = boundary.scores().mean_f
    line = Series("boundary F", TOLERANCES, [100 * value for value in f.tolist()])
    charts = [reliability(calibration.table(), calibration.error)]
    charts.append(lines("Boundary F, mean of the classes", [line], "within so many pixels", "%"))
    return Section("Calibration and boundaries", f'<div class="charts">{"".join(charts)}</div>')


def images(rows: Sequence[ImageScores], drawings: str) -> Section:
    """The drawn images, and a table of the lowest and the highest mIoU."""
    scored = sorted((row for row in rows if not math.isnan(row.miou)), key=lambda row: row.miou)
    ends = scored[:_IMAGES] + scored[_IMAGES:][-_IMAGES:]
    lines_ = [[escape(row.name), bar(row.miou), percent(row.pixel_accuracy), escape(row.worst_class)] for row in ends]
    note = (
        '<p class="note">By mIoU of the image alone, over the classes in it. Orange: wrong; gray stripes: not'
        " labeled, and not counted.</p>"
    )
    counted = f"{len(ends)} of {len(rows)} images, lowest mIoU first"
    list_ = table(["image", "mIoU %", "pixel accuracy %", "worst class"], lines_, counted)
    return Section("Worst and best images", note + drawings + list_)


def settings(recipe: Mapping[str, Any]) -> Section:
    """As in recipe.yaml."""
    text = yaml.safe_dump(dict(recipe), sort_keys=False, allow_unicode=True)
    lines_ = "\n".join(escape(line) for line in text.splitlines()[:_SETTINGS])
    return Section("Settings", f"<pre>{lines_}</pre>")


_SETTINGS = 200
