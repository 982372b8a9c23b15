"""The page that compares several runs. Command: `danet report RUN RUN...`."""

import math
from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from danet import recipes
from danet.recipes import parse_fold
from danet.visualize import sections
from danet.visualize.html import LONG, Section, bar, document, escape, percent, table
from danet.visualize.run_page import Run, best_row, validation_split
from danet.visualize.svg import key


def page(runs: Sequence[Run]) -> bytes:
    """Return the page: results, settings that differ, curves, and IoU of each class.

    All scores are from the runs' own validations, for their best weights. The best ones are marked if all runs were
    validated on the same images; of folds, the mean is given.
    """
    best = (
        max(runs, key=lambda run: _comparable(_miou(run))) if len({_validated_on(run) for run in runs}) == 1 else None
    )
    if best is not None:
        about = f"Best validation mIoU: {percent(_miou(best), 2, '%')}, {escape(best.name)}."
    else:
        about = _over_folds(runs) or (
            "The runs were validated on different data, so their scores cannot be compared, and no best one is marked."
        )
    lead = (
        f"{about} The scores are from each run's own validations, over full images, for its best weights. The weights"
        f" were selected by the same scores."
    )
    head = ["", *(f"{key(i)}{escape(run.name)}" for i, run in enumerate(runs))]
    x = sections.x_axis([run.recipe for run in runs])
    charts = sections.compared_curves([(run.name, run.history) for run in runs], x)
    parts = [
        Section("Results", table(head, _results(runs, best))),
        Section("Settings that differ", _differences(runs, head)),
        Section("Curves", charts),
        Section("IoU of each class, in %", f'<div class="slim">{table(head, _classes(runs, best is not None))}</div>'),
    ]
    return document(f"{len(runs)} runs", lead, [], parts)


def _validated_on(run: Run) -> tuple[object, ...]:
    """Return what is equal for runs with the same validation images, as far as their folders say."""
    return *_divided(run), validation_split(run.recipe.data)


def _divided(run: Run) -> tuple[object, ...]:
    """Return what is equal for runs on folds of the same images, or on the same dataset."""
    data = run.recipe.data
    root, folds = data.root if data.dataset == "folder" else None, None
    if data.fold is not None:
        folds = data.train_split, parse_fold(data.fold)[1]
    return data.dataset, root, run.card.classes.names, folds


def _over_folds(runs: Sequence[Run]) -> str | None:
    """Return the mean over runs on different folds of the same images; None for other runs."""
    folds = {run.recipe.data.fold for run in runs}
    if None in folds or len(folds) < len(runs) or len({_divided(run) for run in runs}) > 1:
        return None
    scores = [miou for run in runs if not math.isnan(miou := _miou(run))]
    count = parse_fold(runs[0].recipe.data.fold or "")[1]
    if len(scores) < 2:
        return None
    return (
        f"Best validation mIoU over {len(scores)} of {count} folds: mean {percent(mean(scores), 2, '%')}, standard"
        f" deviation {percent(stdev(scores), 2)}."
    )


def _results(runs: Sequence[Run], best: Run | None) -> Iterator[list[str]]:
    def row(name: str, *values: str) -> list[str]:
        return [name, *values]

    bests, x = [best_row(run.history) for run in runs], sections.x_axis([run.recipe for run in runs])
    yield row("best mIoU, %", *(_marked(percent(_miou(run), 2), run is best) for run in runs))
    yield row(f"in {x}", *(f"{own[x]:.0f}" for own in bests))
    yield row("pixel accuracy there, %", *(percent(own["pixel_accuracy"], 2) for own in bests))
    yield row("last mIoU, %", *(percent(run.history[-1]["miou"], 2) for run in runs))
    yield row("progress", *(_progress(run) for run in runs))
    yield row("training speed, images/s", *(f"{run.history[-1]['images_per_second']:.3g}" for run in runs))
    yield row("dataset", *(_dataset(run) for run in runs))
    yield row("backbone", *(escape(run.recipe.network.backbone) for run in runs))
    yield row("architecture", *(escape(run.recipe.network.architecture) for run in runs))
    yield row("attention", *(_attention(run) for run in runs))
    yield row("parameters, millions", *(f"{run.parameters / 1e6:.2f}" for run in runs))
    yield row("seed", *(str(run.recipe.seed) for run in runs))


def _dataset(run: Run) -> str:
    data = run.recipe.data
    name = data.dataset if data.root is None or data.dataset != "folder" else data.root.name
    return escape(f"{name}, validated on {validation_split(data)}")


def _progress(run: Run) -> str:
    x, optim = sections.x_axis([run.recipe]), run.recipe.optim
    return f"{run.history[-1][x]:.0f} of {optim.steps or optim.epochs} {x}s"


def _differences(runs: Sequence[Run], head: Sequence[str]) -> str:
    flat = [dict(_flat(recipes.to_dict(run.recipe))) for run in runs]
    rows = [
        [f"<code>{escape(name)}</code>", *(escape(str(settings[name]), LONG) for settings in flat)]
        for name in flat[0]
        if any(settings[name] != flat[0][name] for settings in flat)
    ]
    return table(head, rows) if rows else "<p>None: the recipes are equal.</p>"


def _flat(entries: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in entries.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _classes(runs: Sequence[Run], marked: bool) -> Iterator[list[str]]:
    """Yield a row for each class of any run; `marked`: with its best score in bold."""
    scores = [run.card.metrics.get("iou", {}) for run in runs]
    for name in dict.fromkeys(name for run in runs for name in run.card.classes.names):
        values = [math.nan if iou.get(name) is None else iou[name] for iou in scores]
        best = max(values, key=_comparable)
        yield [escape(name), *(_marked(bar(value), marked and value == best) for value in values)]


def _attention(run: Run) -> str:
    network = run.recipe.network
    if network.architecture == "dranet":
        return "position and channel"
    if network.architecture != "danet":
        return "none of DANet"
    return " and ".join(name for name in ("position", "channel") if getattr(network, name)) or "none"


def _miou(run: Run) -> float:
    return best_row(run.history)["miou"]


def _comparable(value: float) -> float:
    return -1.0 if math.isnan(value) else value


def _marked(cell: str, best: bool) -> str:
    return f'<span class="best">{cell}</span>' if best else cell
