"""The fingerprint of a run's data, stored in its checkpoints, and what has changed when the run is resumed."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from danet.data import fingerprint as data
from danet.data.classes import IGNORE
from danet.data.samples import Samples
from danet.errors import list_names

_SPLITS = {"train": "training", "val": "validation"}
_SHOWN = 3


def fingerprint(train: Samples, val: Samples) -> dict[str, Any]:
    """Return the fingerprint of the training and the validation samples as plain values."""
    own = {"train": data.fingerprint(train), "val": data.fingerprint(val)}
    both = {key: {split: found[key] for split, found in own.items()} for key in ("images", "files")}
    return own["train"] | both


def describe_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between two fingerprints, one short line each; nothing if the data is the same."""
    changes = list(_class_changes(before["classes"], now["classes"]))
    if not changes:
        changes += _label_changes(before, now)
    for key in ("channels", "white", "exif"):
        if before[key] != now[key]:
            changes.append(f"{key} in dataset.yaml was {_or_none(before[key])} and is now {_or_none(now[key])}")
    for split, adjective in _SPLITS.items():
        counts, files = (before["images"][split], now["images"][split]), (before["files"], now["files"])
        found = list(_file_changes(split, adjective, *files))
        if not found and counts[0] != counts[1]:
            found = [f"the run started with {counts[0]} {adjective} images, but there are {counts[1]} now"]
        changes += found
    return changes


def _class_changes(before: Sequence[str], now: Sequence[str]) -> Iterator[str]:
    added, removed = [name for name in now if name not in before], [name for name in before if name not in now]
    if not added and not removed and before != now:
        i = next(i for i, pair in enumerate(zip(before, now, strict=True)) if pair[0] != pair[1])
        yield f"the classes were reordered: class {i} was {before[i]} and is now {now[i]}"
    elif len(before) == len(now):
        pairs = [f"{a} is now {b}" for a, b in zip(before, now, strict=True) if a != b]
        yield from [f"classes were renamed: {list_names(pairs, _SHOWN)}"] if pairs else []
    else:
        yield from [f"classes were added: {list_names(added, _SHOWN)}"] if added else []
        yield from [f"classes were removed: {list_names(removed, _SHOWN)}"] if removed else []


def _label_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    def meaning(fingerprint: Mapping[str, Any], value: str) -> str:
        target = fingerprint["label_map"].get(value)
        return "unknown" if target is None else "ignored" if target == IGNORE else fingerprint["classes"][target]

    values = dict.fromkeys([*before["label_map"], *now["label_map"]])
    differing = [value for value in values if before["label_map"].get(value) != now["label_map"].get(value)]
    if differing:
        value, more = differing[0], f" (and {len(differing) - 1} other values)" if differing[1:] else ""
        yield f"mask value {value} was {meaning(before, value)} and is now {meaning(now, value)}{more}"


def _file_changes(
    split: str, adjective: str, before: Mapping[str, Mapping[str, list[int]]], now: Mapping[str, Any]
) -> Iterator[str]:
    """Yield how the files of a split differ; `before` and `now` map each split to its files."""
    old, new = before[split], now[split]
    missing, added = [name for name in old if name not in new], [name for name in new if name not in old]
    of = f"of {len(old)} {adjective} images"
    renamed = _renamed({name: old[name] for name in missing}, {name: new[name] for name in added})
    if renamed:
        yield f"{len(renamed)} {of} were renamed ({list_names(renamed, _SHOWN)})"
    elif missing or added:
        other = next(name for name in _SPLITS if name != split)
        moved = [name for name in missing if name in now[other] and name not in before[other]]
        gone = [name for name in missing if name not in moved]
        yield from [f"{len(gone)} {of} are missing ({list_names(gone, _SHOWN)})"] if gone else []
        yield from [f"{len(moved)} {of} are now in {other} ({list_names(moved, _SHOWN)})"] if moved else []
        fresh = [name for name in added if name not in before[other] or name in now[other]]
        yield from [f"there are new {adjective} images: {len(fresh)} ({list_names(fresh, _SHOWN)})"] if fresh else []
    for i, kind in enumerate(("images", "masks")):
        changed = [name for name in old if name in new and _differ(old[name][i::2], new[name][i::2])]
        if changed:
            yield f"{len(changed)} of {len(old)} {adjective} {kind} have other contents ({list_names(changed, _SHOWN)})"
    if not missing and not added and list(old) != list(new):
        yield f"the order of the {adjective} images has changed"


def _renamed(missing: Mapping[str, list[int]], added: Mapping[str, list[int]]) -> list[str]:
    """Return "a is now b" for each missing file, if all of them have the same size as just one added file."""
    by_size = {tuple(entry[:2]): name for name, entry in added.items()}
    sizes = [tuple(entry[:2]) for entry in missing.values()]
    if not missing or len(by_size) < len(added) or len(set(sizes)) < len(sizes) or set(sizes) != by_size.keys():
        return []
    return [f"{name} is now {by_size[size]}" for name, size in zip(missing, sizes, strict=True)]


def _differ(before: Sequence[int], now: Sequence[int]) -> bool:
    """Compare a size, and the checksum if both fingerprints have it."""
    return any(a != b for a, b in zip(before, now, strict=False))


def _or_none(value: object) -> object:
    return "not set" if value is None else value
