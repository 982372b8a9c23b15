"""A campaign's table: its rows, what is measured of each, and their differences."""

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean, stdev
from typing import Any, NamedTuple

import numpy as np

from benchmarks.intervals import by_images, by_seeds
from danet.errors import InputError
from danet.recipes import Recipe

GREEK = {"position": "alpha", "channel": "beta"}
"""Eq. 2 and 4: what each module's output is multiplied by, 0 at the start."""


class Row(NamedTuple):
    """A row of a campaign's table.

    Args:
        name: in --only, in the names of folders, and in the JSON.
        about: what it is, in a few words.
        recipe: how it is trained, with any seed.
        against: names of the rows that it is compared with.
        run: the row whose weights are shown; "" for its own.
        protocol: how they are shown the images.
        off: the modules whose attention is switched off for that: alpha or beta 0.
        published: the paper's mIoU in %, by its backbone.
        left_out: why it cannot be run; "" if it can.
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
    """A row's result with one seed.

    Args:
        names: of the images.
        matrices: P,K,K int64, the confusion matrix of each image.
        facts: what the JSON says of the run.
    """

    names: list[str]
    matrices: np.ndarray
    facts: dict[str, Any]


def summarize(row: Row, found: Mapping[tuple[str, int], Measured]) -> dict[str, Any]:
    """What the JSON says of a row: its mean and spread over the seeds, cost, and differences from others in `found`."""
    entries = {
        "name": row.name,
        "about": row.about,
        "published": dict(row.published),
        "left_out": row.left_out or None,
        "miou": None,
    }
    own = {seed: measured for (name, seed), measured in found.items() if name == row.name}
    if not own:
        return entries
    facts = [measured.facts for measured in own.values()]
    mious = [fact["miou"] for fact in facts]
    return entries | {
        "miou": mean(mious),
        "spread": stdev(mious) if len(mious) > 1 else None,
        "seeds": list(own),
        "iou": {name: _mean_of([fact["iou"][name] for fact in facts]) for name in facts[0]["iou"]},
        "parameters": facts[0]["parameters"],
        "seconds": _mean_of([fact["seconds"] for fact in facts]),
        "scales": {name: mean(fact["scales"][name] for fact in facts) for name in facts[0]["scales"]},
        "differences": list(_differences(row, own, found)),
    }


def _mean_of(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None]
    return mean(there) if there else None


def _differences(
    row: Row, own: Mapping[int, Measured], found: Mapping[tuple[str, int], Measured]
) -> Iterator[dict[str, Any]]:
    for other in row.against:
        pairs = {seed: (own[seed], found[other, seed]) for seed in own if (other, seed) in found}
        if pairs:
            if any(a.names != b.names for a, b in pairs.values()):
                raise InputError(f"{row.name} and {other}", "were shown other images", "give --out another folder")
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


def _difference_in_words(entry: dict[str, Any]) -> str:
    def interval(ends: Sequence[float] | None) -> str:
        return "[n/a]" if ends is None else f"[{100 * ends[0]:+.1f} {100 * ends[1]:+.1f}]"

    intervals = f"{interval(entry['by_seeds_95'])} {interval(entry['by_images_95'])}"
    return f"{100 * entry['mean']:+.2f} to {entry['against']} {intervals}"


def table(entries: dict[str, Any]) -> str:
    """The result for people; mIoU and differences in %, beside them the paper's mIoU on Cityscapes."""
    lines = [
        f"{'':36}{'mIoU %':>14}{'R50 / R101':>16}{'M param.':>10}{'s':>7}  {'scales':24}"
        "differences, 95 % by seeds, by images"
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
        told = "; ".join(_difference_in_words(entry) for entry in row["differences"])
        lines.append(f"{row['about']:36}{scores:>14}{published:>16}{cost}  {scales:24}{told}")
    return "\n".join(lines)
