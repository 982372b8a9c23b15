"""What a run's metrics.csv holds, as curves: of one run, or of several in one chart."""

from collections.abc import Mapping, Sequence

from danet.recipes import Recipe
from danet.visualize.svg import Series, lines

History = Sequence[Mapping[str, float]]
"""The rows of metrics.csv, one a validation."""

SCALES = {"position_scale": "alpha (position)", "channel_scale": "beta (channel)"}


def axis(recipes: Sequence[Recipe]) -> str:
    """What is counted along x: epochs, unless a run was measured out in steps."""
    return "step" if any(recipe.optim.steps for recipe in recipes) else "epoch"


def series(name: str, history: History, column: str, x: str, factor: float = 1.0) -> Series:
    """A column; nan where a row lacks it."""
    return Series(name, [row[x] for row in history], [factor * row.get(column, float("nan")) for row in history])


def of_one(history: History, x: str) -> str:
    """All curves of a run."""
    losses = [column for column in history[-1] if column.startswith("loss_") and column != "loss_total"]
    scales = [column for column in SCALES if column in history[-1]]
    accuracy = [("mIoU", "miou"), ("mean accuracy", "mean_accuracy"), ("pixel accuracy", "pixel_accuracy")]
    charts = [
        lines("Validation", [series(name, history, column, x, 100) for name, column in accuracy], x, "%"),
        lines(
            "Training losses",
            [series(c.removeprefix("loss_"), history, c, x) for c in losses],
            x,
            "cross entropy, nats",
        ),
        lines("Learning rate", [series("learning rate", history, "lr", x)], x, "of the backbone"),
        lines("Scales of the attention", [series(SCALES[c], history, c, x) for c in scales], x, "alpha and beta"),
    ]
    return f'<div class="charts">{"".join(charts)}</div>'


def of_several(runs: Sequence[tuple[str, History]], x: str) -> str:
    """A line for each run."""
    columns = [
        ("Validation mIoU", "miou", "%", 100.0),
        ("Training loss, all together", "loss_total", "nats", 1.0),
        ("Learning rate", "lr", "of the backbone", 1.0),
        ("alpha, of position attention", "position_scale", "alpha", 1.0),
        ("beta, of channel attention", "channel_scale", "beta", 1.0),
    ]
    charts = [
        lines(title, [series(name, history, column, x, factor) for name, history in runs], x, unit)
        for title, column, unit, factor in columns
    ]
    return f'<div class="charts">{"".join(charts)}</div>'
