"""Binary masks of one folder in which white has different values: 255, or 1 in masks of 0 and 1 and of 1 bit."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from danet.data.classes import IGNORE
from danet.errors import list_names

WHITE = 255

_BLACK_AND_ONE, _BLACK_AND_WHITE = {0, 1}, {0, WHITE}


def is_smoothed(values: Mapping[int, int]) -> bool:
    """Return whether masks are of 0 and 255 with smoothed edges.

    Args:
        values: mask value -> pixels.
    """
    between = {value: pixels for value, pixels in values.items() if value not in _BLACK_AND_WHITE}
    if not values.keys() >= _BLACK_AND_WHITE or len(between) < 3 or max(between) < 128:
        return False
    return max(between.values()) < values[WHITE] and sum(between.values()) <= 0.25 * sum(values.values())


def are_mixed(masks: Sequence[Collection[int]]) -> bool:
    """Return whether some masks have 0 and 1, others 0 and 255, and none has other values or both 1 and 255.

    Args:
        masks: the values of each mask.
    """
    found = [set(values) for values in masks]
    whole = all(values <= _BLACK_AND_ONE or values <= _BLACK_AND_WHITE for values in found)
    return whole and _BLACK_AND_ONE in found and _BLACK_AND_WHITE in found


def describe_mixed(masks: Mapping[Path, Collection[int]]) -> str:
    """Describe masks that `are_mixed`, in one line; `masks` maps files to values."""
    ones = [file.name for file, values in masks.items() if 1 in values]
    others = "the others have 0 and 255, and none has both 1 and 255"
    return f"masks with the values 0 and 1: {len(ones)} of {len(masks)} ({list_names(ones, 5)}); {others}"


def describe_dark(masks: Mapping[Path, Collection[int]]) -> str | None:
    """Describe masks of 0 and 1 beside others that are divided by a threshold, in one line; None if there are none."""
    dark = [file.name for file, values in masks.items() if 1 in values and set(values) <= _BLACK_AND_ONE]
    if not dark:
        return None
    return f"masks of only 0 and 1, which are below the threshold: {len(dark)} of {len(masks)} ({list_names(dark, 5)})"


def note_ignored(values: Mapping[int, int], ignored: Collection[int]) -> tuple[str, ...]:
    """Return a note that 255 is read as unlabeled, if masks have it and it is; else nothing.

    Args:
        values: mask value -> pixels.
        ignored: the values that are read as unlabeled.
    """
    if IGNORE not in values or IGNORE not in ignored:
        return ()
    what = f"{IGNORE} is read as unlabeled: {values[IGNORE] / sum(values.values()):.1%} of the pixels are ignored"
    return (f"{what}; if it is a class, add it to classes and label_map, and remove ignore",)
