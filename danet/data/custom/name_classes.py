"""Match lists of class names with the values or colors in masks.

A list that gives values or colors is matched by them. A list of names alone is matched by position, which is certain
only if it has as many names as there are values; otherwise, the user chooses whether the first name means value 0 or 1.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, NamedTuple, TypeVar

from danet.data.classes import IGNORE, Color
from danet.data.custom.class_lists import ClassList
from danet.data.custom.scan_masks import MaskScan, Meaning, if_unlabeled
from danet.errors import InputError, list_names

BACKGROUND = "background"

_BINARY = (BACKGROUND, "foreground")
_UNNAMED = "class names cannot be inferred from masks: replace the names under classes"
_UNLABELED_COLOR = "if a color means unlabeled, remove it from classes and colors, and write it as ignore: [r, g, b]"
_UNLABELED = ("unlabeled", "unlabelled", "unlabel", "void", "ignore", "ignored", "nodata")  # vocabulary: old name
_BACKGROUNDS = (BACKGROUND, "bg", "backgr", "none", "nothing", *_UNLABELED)
_MAX_SHOWN = 8

Key = TypeVar("Key", int, Color)
"""A mask value or color."""


@dataclass(frozen=True)
class NamedClasses(Generic[Key]):
    """The classes of a dataset, with their values or colors in the masks.

    Args:
        keys: name -> the values or colors of the class, in the order of the train ids.
        ignored: the values or colors of unlabeled pixels.
        notes: what the user should review, one line each.
    """

    keys: Mapping[str, tuple[Key, ...]]
    ignored: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()


class Reading(NamedTuple):
    """A possible reading of a list of names.

    Args:
        first_class: the position among the values that the first name belongs to: 0 or 1.
        named: the classes.
        text: each value with its name and its share of the pixels, on one line.
    """

    first_class: int
    named: NamedClasses[int]
    text: str


Choose = Callable[[str, Sequence[Reading]], Reading]
"""Asks the user for one of several readings; the text says what is not clear, without the readings."""


def refuse_to_choose(what: str, readings: Sequence[Reading]) -> Reading:
    """Raise an error that names all readings: a `Choose` for programs without a terminal.

    Raises:
        InputError: always.
    """
    shown = "; ".join(f"`first_class` {reading.first_class}: {reading.text}" for reading in readings)
    options = " or ".join(str(reading.first_class) for reading in readings)
    raise InputError("first_class", f"{what} ({shown})", f"choose `first_class` {options}")


def name_values(
    scanned: MaskScan, meaning: Meaning, lists: Sequence[ClassList], first_class: int | None, choose: Choose
) -> NamedClasses[int]:
    """Name the classes of masks of values.

    Args:
        scanned: the masks.
        meaning: what their values mean.
        lists: the lists of class names; the first that fits is used.
        first_class: the position that the first name of a list belongs to; None: see `choose`.
        choose: called if the first name of a list may belong to either of the first two values.

    Raises:
        InputError: `first_class` is given without a list of names alone.
    """
    notes: list[str] = []
    for listed in lists:
        matched = _listed_values(listed, scanned)
        if matched:
            if first_class is not None:
                raise InputError("first_class", f"{listed.file.name} gives the value of each class", "leave it out")
            return _by_value(listed, matched, scanned, meaning)
        named = _by_position(listed, scanned, meaning, first_class, choose)
        if isinstance(named, NamedClasses):
            return named
        notes.append(named)
    if first_class is not None and not lists:
        raise InputError("first_class", "there is no list of class names", "leave it out, or add classes.txt")
    if meaning.kind == "0/255" or meaning.ids == (0, 1):
        names, more = _BINARY, ()
    else:
        names, more = tuple(f"class_{value}" for value in meaning.ids), (_UNNAMED,)
    keys = {name: (value,) for name, value in zip(names, meaning.ids, strict=True)}
    return NamedClasses(keys, _ignored(meaning, scanned), (*notes, *more))


def name_colors(colors: Mapping[Color, int], lists: Sequence[ClassList]) -> NamedClasses[Color]:
    """Name the classes of masks of colors; `colors` maps each color to its number of pixels."""
    for listed in lists:
        matched = [(entry.name, entry.color) for entry in listed.entries if entry.color is not None]
        if not _fits((color for _, color in matched), colors, (0, 0, 0)):
            continue
        keys, merged = _merged(matched)
        notes = [f"{listed.file.name} is read by color", *merged]
        absent = [name for name, own in keys.items() if not any(color in colors for color in own)]
        notes += [f"{name} is kept as a class; {_UNLABELED_COLOR}" for name in keys if _is_unlabeled(name)]
        named = {color for own in keys.values() for color in own}
        others = {color: pixels for color, pixels in colors.items() if color not in named}
        if (0, 0, 0) in others and not any(map(_is_background, keys)):
            keys = {BACKGROUND: ((0, 0, 0),), **keys}
            del others[0, 0, 0]
        if others:
            notes.append(f"{_unlisted(listed, others, colors)}: kept as classes; {_UNLABELED_COLOR}")
        keys |= {"rgb_{}_{}_{}".format(*color): (color,) for color in others}
        return NamedClasses(keys, (), (*notes, *_absent(listed, absent)))
    notes = [f"{listed.file.name} is not used: it lists no color that the masks have" for listed in lists]
    if len(colors) == 2 and (0, 0, 0) in colors:
        return NamedClasses(
            {name: (color,) for name, color in zip(_BINARY, sorted(colors), strict=True)}, (), (*notes,)
        )
    keys = {"rgb_{}_{}_{}".format(*color): (color,) for color in colors}
    return NamedClasses(keys, (), (*notes, _UNLABELED_COLOR, _UNNAMED))


def _listed_values(listed: ClassList, scanned: MaskScan) -> list[tuple[str, int]]:
    """Return (name, mask value) of each listed class, by its value or color; nothing if none is in the masks."""
    value_of = {color: value for value, color in reversed(scanned.palette.items())}
    value_of |= {color: value for value, color in scanned.palette.items() if value in scanned.values}
    gray = all(len(set(entry.color)) == 1 for entry in listed.entries if entry.color is not None)
    matched = []
    for name, value, color in listed.entries:
        if color is not None:
            value = color[0] if gray and not scanned.palette else value_of.get(color)
        if value is not None:
            matched.append((name, value))
    background = next((value for value in scanned.values if scanned.palette.get(value) == (0, 0, 0)), 0)
    return matched if _fits((value for _, value in matched), scanned.values, background) else []


def _fits(listed: Iterable[Key], used: Iterable[Key], background: Key) -> bool:
    """Return whether a list has a value or color of the masks, apart from that of the background."""
    found = set(listed) & set(used)
    return bool(found - {background}) or (bool(found) and set(used) == {background})


def _by_value(
    listed: ClassList, matched: Iterable[tuple[str, int]], scanned: MaskScan, meaning: Meaning
) -> NamedClasses[int]:
    given, pixels = meaning.ignore not in (None, IGNORE), scanned.values
    keys, merged = _merged((name, v) for name, v in matched if not (v == IGNORE and _is_unlabeled(name)))
    notes = [f"{listed.file.name} is read by value", *merged]
    if given:  # by the user
        keys = {name: rest for name, own in keys.items() if (rest := tuple(v for v in own if v != meaning.ignore))}
    notes += [f"{name} is kept as a class; {if_unlabeled(own[0])}" for name, own in keys.items() if _is_unlabeled(name)]
    named = {value for own in keys.values() for value in own}
    ignored = tuple(value for value in _ignored(meaning, scanned) if value not in named)
    others = {value: pixels[value] for value in pixels if value not in named and value not in ignored}
    if 0 in others and not any(map(_is_background, keys)):
        keys[BACKGROUND] = (0,)
        del others[0]
    if others:
        notes.append(
            f"{_unlisted(listed, others, pixels)}: kept as classes; to ignore one, add VALUE: 255 to label_map"
        )
    keys |= {f"class_{value}": (value,) for value in others}
    absent = [name for name, own in keys.items() if not any(value in pixels for value in own)]
    keys = dict(sorted(keys.items(), key=lambda item: item[1]))
    return NamedClasses(keys, ignored, (*notes, *_absent(listed, absent)))


def _by_position(
    listed: ClassList, scanned: MaskScan, meaning: Meaning, first_class: int | None, choose: Choose
) -> NamedClasses[int] | str:
    """Match names by position, or return why the list is not used."""
    count, file = len(listed.names), listed.file.name
    used = tuple(value for value in meaning.ids if value in scanned.values)
    sparse = max(used) > count  # names in the order of the values, whatever these are
    values = used if sparse else tuple(range(count + 1))
    positions = [values.index(value) for value in used]
    certain = _first_position(listed, positions, sparse) if first_class is None else first_class
    readings = [_read(listed, scanned, meaning, values, first) for first in (0, 1)]
    if certain is not None:
        return readings[certain].named
    if positions[-1] > count or (sparse and len(used) < count):
        what = f"{file} is not used: it has {count} names, but the masks have {len(used)} classes"
        return f"{what}; to use it, delete dataset.yaml and run danet init DIR --first-class 0 (or 1)"
    first, second = values[:2]
    given = f"{len(used)} values" if sparse else f"the values {used[0]} to {used[-1]}"
    what = (
        f"{file} has {count} name{'s' * (count != 1)} for {given}, so the first name may be that of {first} or {second}"
    )
    return choose(what, readings).named


def _first_position(listed: ClassList, positions: Sequence[int], sparse: bool) -> int | None:
    """Return the position of the first name if it is certain."""
    count = len(listed.names)
    if positions[-1] > count:
        return None
    if positions[-1] == count and (positions[0] > 0 or count == 1):
        return 1
    complete = len(positions) == count and positions[-1] < count
    return 0 if complete or (not sparse and positions[-1] < count and _is_background(listed.names[0])) else None


def _read(listed: ClassList, scanned: MaskScan, meaning: Meaning, values: Sequence[int], first: int) -> Reading:
    """Read a list whose first name belongs to the value at position `first`."""
    before, unlabeled, notes = _ignored(meaning, scanned), [], []
    of = [(name, values[first + i]) for i, name in enumerate(listed.names) if first + i < len(values)]
    keys, merged = _merged((name, value) for name, value in of if value not in before)
    others = [v for v in meaning.ids if v in scanned.values and all(v not in own for own in keys.values())]
    if first == 1 and others[:1] == [values[0]]:
        if any(map(_is_background, keys)):
            unlabeled.append(others.pop(0))
        else:
            keys = {BACKGROUND: (others.pop(0),), **keys}
            notes.append(f"{values[0]} is read as {BACKGROUND}; {if_unlabeled(values[0])}")
    if first == 0 and len(others) == 1:
        unlabeled.append(others.pop())
    ignored = (*unlabeled, *(v for v in before if v in scanned.values or not unlabeled))
    keys |= {f"class_{value}": (value,) for value in others}
    names = {value: name for name, own in keys.items() for value in own} | dict.fromkeys(ignored, "unlabeled")
    total = sum(scanned.values.values())
    shares = [f"{v} {names[v]} {pixels / total:.1%}" for v, pixels in scanned.values.items() if v in names]
    text = ", ".join(shares if len(shares) <= _MAX_SHOWN else [*shares[: _MAX_SHOWN - 3], "...", *shares[-2:]])
    absent = [name for name, own in keys.items() if not any(value in scanned.values for value in own)]
    notes.append(f"{listed.file.name} is read by position, from value {values[first]} on: {text}")
    notes += [*merged, *_absent(listed, absent)]
    return Reading(first, NamedClasses(keys, ignored, tuple(notes)), text)


def _ignored(meaning: Meaning, scanned: MaskScan) -> tuple[int, ...]:
    """Return the values that mean unlabeled before any list is read, that of `ignore:` first."""
    if meaning.ignore is None:
        return ()
    return tuple(dict.fromkeys((meaning.ignore, *(v for v in (IGNORE,) if v in scanned.values))))


def _merged(matched: Iterable[tuple[str, Key]]) -> tuple[dict[str, tuple[Key, ...]], list[str]]:
    """Return the keys of each name, and notes.

    Keys that share a name become one class, and so do names that share a key: NAME/NAME.
    """
    names: dict[Key, list[str]] = {}
    for name, key in matched:
        names.setdefault(key, []).append(name)
    keys: dict[str, tuple[Key, ...]] = {}
    notes = []
    for key, own in names.items():
        own = list(dict.fromkeys(own))
        keys["/".join(own)] = (*keys.get("/".join(own), ()), key)
        if len(own) > 1:
            notes.append(f"{' and '.join(own)} have the same value or color ({_text(key)}), so they are one class")
    for name, shared in keys.items():
        if len(shared) > 1:
            listed = ", ".join(map(_text, shared))
            notes.append(f"{name} is the name of {len(shared)} values or colors ({listed}), so they are one class")
    return keys, notes


def _absent(listed: ClassList, names: Sequence[str]) -> list[str]:
    what = f"{listed.file.name} lists classes that no pixel has: {len(names)} ({list_names(names, _MAX_SHOWN)})"
    return [f"{what}; they are kept"] if names else []


def _unlisted(listed: ClassList, others: Mapping[Key, int], pixels: Mapping[Key, int]) -> str:
    total = sum(pixels.values())
    shares = [f"{_text(key)} {count / total:.2%}" for key, count in others.items()]
    return f"{listed.file.name} has no name for {list_names(shares, _MAX_SHOWN)}"


def _text(key: int | Color) -> str:
    return str(key) if isinstance(key, int) else str(list(key))


def _is_background(name: str) -> bool:
    return _plain(name) in _BACKGROUNDS


def _is_unlabeled(name: str) -> bool:
    return _plain(name) in _UNLABELED


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
