"""Rows of a campaign, their results and differences, and the printed table."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from benchmarks.intervals import by_seeds
from danet.errors import InputError
from danet.evaluate.intervals import by_images
from danet.recipes import Recipe

GREEK = {"position": "alpha", "channel": "beta"}
"""Name in the paper of each module's scale (Eq. 2 and 4), which is 0 at the start."""

SHARES = ("attention_own", "attention_chance", "attention_own_beyond", "attention_chance_beyond")
"""Columns of metrics.csv: shares of attention on the own class, on a few validation images."""


class Row(NamedTuple):
    """A row of a campaign's table.

    Args:
        name: in --only, folder names and JSON.
        about: label in the table.
        recipe: of the training, except for the seed.
        against: names of the rows to compare with.
        run: the row whose weights are evaluated; "" for its own.
        protocol: of the evaluation.
        off: modules whose attention is switched off in the evaluation (alpha or beta 0).
        published: the paper's mIoU in %, by backbone.
        left_out: why it is not possible; "" if it is.
    """

    name: str
    about: str
    recipe: Recipe
    against: tuple[str, ...] = ()
    run: str = ""
    protocol: str = "whole"
    off: tuple[str, ...] = ()
    published: Mapping[str, float] = {}
    left_out: str = ""


class Measured(NamedTuple):
    """The result of a row with one seed.

    Args:
        names: of the images.
        matrices: confusion matrix of each image, P,K,K int64.
        facts: the entry of the run in the JSON.
    """

    names: list[str]
    matrices: np.ndarray
    facts: dict[str, Any]


def summarize(row: Row, measured: Mapping[tuple[str, int], Measured]) -> dict[str, Any]:
    """Return the JSON entry of a row: mean and spread over the seeds, cost, and differences to other rows."""
    entries = {
        "name": row.name,
        "about": row.about,
        "published": dict(row.published),
        "left_out": row.left_out or None,
        "miou": None,
    }
    own = {seed: result for (name, seed), result in measured.items() if name == row.name}
    if not own:
        return entries
    facts = [result.facts for result in own.values()]
    mious = [fact["miou"] for fact in facts]
    return entries | {
        "miou": mean(mious),
        "spread": stdev(mious) if len(mious) > 1 else None,
        "seeds": list(own),
        "iou": {name: _mean_of([fact["iou"][name] for fact in facts]) for name in facts[0]["iou"]},
        "parameters": facts[0]["parameters"],
        "seconds": _mean_of([fact["seconds"] for fact in facts]),
        "scales": {name: mean(fact["scales"][name] for fact in facts) for name in facts[0]["scales"]},
        "attention": {name: mean(fact["attention"][name] for fact in facts) for name in facts[0]["attention"]},
        "differences": list(_differences(row, own, measured)),
    }


def _mean_of(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _differences(
    row: Row, own: Mapping[int, Measured], measured: Mapping[tuple[str, int], Measured]
) -> Iterator[dict[str, Any]]:
    for other in row.against:
        pairs = {seed: (own[seed], measured[other, seed]) for seed in own if (other, seed) in measured}
        if pairs:
            if any(a.names != b.names for a, b in pairs.values()):
                raise InputError(f"{row.name} and {other}", "evaluated on different images", "choose another `out`")
            gains = [a.facts["miou"] - b.facts["miou"] for a, b in pairs.values()]
            yield {
                "against": other,
                "seeds": list(pairs),
                "mean": mean(gains),
                "of_each": gains,
                "by_seeds_95": by_seeds(gains),
                "by_images_95": by_images(
                    [a.matrices for a, _ in pairs.values()], [b.matrices for _, b in pairs.values()]
                ),
            }


def _format_difference(entry: dict[str, Any]) -> str:
    def interval(ends: Sequence[float] | None) -> str:
        return "[n/a]" if ends is None else f"[{100 * ends[0]:+.1f} {100 * ends[1]:+.1f}]"

    intervals = f"{interval(entry['by_seeds_95'])} {interval(entry['by_images_95'])}"
    return f"{100 * entry['mean']:+.2f} vs {entry['against']} {intervals}"


def _shares(row: Mapping[str, Any]) -> str:
    """Return the share of attention on the own class next to its value by chance, in %."""
    shares = row.get("attention") or {}
    return f"{100 * shares[SHARES[0]]:.0f} ({100 * shares[SHARES[1]]:.0f})" if shares else ""


def table(entries: dict[str, Any]) -> str:
    """Format the result; mIoU and differences in %, and the paper's mIoU on Cityscapes."""
    lines = [
        f"{'':36}{'mIoU, %':>14}{'R50 / R101':>16}{'M param.':>10}{'s':>7}  {'scales':24}{'own class':12}"
        "differences [95% over seeds] [over images]"
    ]
    for row in entries["rows"]:
        published = " / ".join(f"{value:.2f}" for value in row["published"].values())
        if row["miou"] is None:
            lines.append(f"{row['about']:36}{'n/a':>14}{published:>16}  {row['left_out'] or 'not run yet'}")
            continue
        spread = "" if row["spread"] is None else f" +- {100 * row['spread']:.1f}"
        scores = f"{100 * row['miou']:.2f}{spread}"
        scales = " ".join(f"{GREEK[name]} {value:+.2f}" for name, value in row["scales"].items())
        seconds = "n/a" if row["seconds"] is None else f"{row['seconds']:.0f}"
        cost = f"{row['parameters'] / 1e6:10.2f}{seconds:>7}"
        differences = "; ".join(_format_difference(entry) for entry in row["differences"])
        lines.append(f"{row['about']:36}{scores:>14}{published:>16}{cost}  {scales:24}{_shares(row):12}{differences}")
    return "\n".join(lines)
