"""What the values of a user's masks mean, guessed from those that were found: which are classes, and which is
"unlabeled". Used by init.py.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from danet.data.classes import IGNORE
from danet.data.custom.scan_masks import Survey
from danet.data.datasets import cityscapes

Kind = Literal["ids", "0/255", "palette", "rgb", "off by one", "cityscapes labelIds"]


@dataclass(frozen=True)
class Meaning:
    """The mask value of each class, in order of their train ids; the value that means unlabeled; what is doubtful."""

    kind: Kind
    ids: tuple[int, ...]
    ignore: int | None
    notes: tuple[str, ...] = ()


def meaning_of(found: Survey, listed: int, ignore: int | None) -> Meaning:
    """The likeliest meaning of the masks' values.

    Args:
        listed: how many names of classes the user has written down.
        ignore: the value that means unlabeled, where the user knows it.
    """
    values = tuple(found.values)
    if ignore is None:
        special = _binary(found) or _cityscapes(found) or _gray_coded(found)
        if special:
            return special
    void = IGNORE if ignore is None else ignore
    ids = tuple(value for value in values if value not in (void, IGNORE))
    if ignore is None and ids == tuple(range(listed + 1)) and listed > 1:
        void = min((0, listed), key=lambda value: found.values[value])
        rest = meaning_of(found, 0, void)
        note = f"{listed} names for {listed + 1} values: {void}, the rarer of 0 and {listed}, is taken as unlabeled"
        return Meaning(rest.kind, rest.ids, void, (note, *rest.notes))
    if not ids:
        return Meaning("ids", (), void)
    first = 1 if ids[0] == 1 else 0
    whole = tuple(value for value in range(first, ids[-1] + 1) if value != void)
    notes = []
    if ids != whole:
        gaps = [value for value in whole if value not in ids]
        if 2 * len(ids) >= len(whole):
            notes.append(
                f"no pixel of value {', '.join(map(str, gaps))}: kept as classes, for the values lie among others"
            )
            ids = whole
        else:
            notes.append("the values have wide gaps: only those found became classes; add others to label_map")
    if len(ids) == 1:
        notes.append("only one class: there is nothing to tell apart")
    if ids[0] == 0 and len(ids) > 2 and ignore is None:
        notes.append("value 0 is taken as a class; if it means unlabeled, use danet init DIR --ignore 0")
    if max(ids) > IGNORE:
        notes.append("values above 255 are taken as classes; if they number objects, give the masks of classes")
    kind: Kind = "off by one" if first == 1 else "palette" if found.palette else "ids"
    return Meaning(kind, ids, void, tuple(notes))


def _binary(found: Survey) -> Meaning | None:
    """Masks of 0 and 255, with or without smoothed edges."""
    between = {value: pixels for value, pixels in found.values.items() if value not in (0, 255)}
    if not {0, 255} <= found.values.keys():
        return None
    if not between:
        return Meaning("0/255", (0, 255), None)
    smoothed = len(between) >= 3 and max(between) >= 128 and max(between.values()) < found.values[255]
    if not smoothed or sum(between.values()) > 0.25 * sum(found.values.values()):
        return None
    what = f"{sum(between.values())} pixels with {len(between)} values between 0 and 255: smoothed edges"
    return Meaning("0/255", (0, 255), None, (f"{what}, which danet check refuses; save masks without smoothing",))


def _cityscapes(found: Survey) -> Meaning | None:
    ids = found.values.keys() - {IGNORE}
    frequent = {7, 11, 21, 23, 26}  # road, building, vegetation, sky, car
    gaps = ids and len(ids) <= max(ids)
    if not ids or max(ids) > 33 or not (found.label_ids or (frequent <= ids and gaps)):
        return None
    note = "the values look like Cityscapes' labelIds; if they are not, write your own classes and label_map"
    return Meaning("cityscapes labelIds", cityscapes.TRAIN_TO_LABEL_ID, IGNORE, () if found.label_ids else (note,))


def _gray_coded(found: Survey) -> Meaning | None:
    """Classes spread evenly over 0..255 so that they can be seen: 0, 127, 255."""
    values = tuple(found.values)
    steps = [after - before for before, after in pairwise(values)]
    if len(values) < 3 or values[-1] > IGNORE or min(steps) < 16 or max(steps) > 2 * min(steps) or found.palette:
        return None
    note = "the values are spread over 0..255, so 255 is taken as a class; if it means unlabeled, map it to 255"
    return Meaning("ids", values, None, (note,) if values[-1] == IGNORE else ())
