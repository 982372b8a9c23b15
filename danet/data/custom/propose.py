"""Propose the dataset.yaml of a user's folder from its masks. Command: danet init DIR."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from danet.data.annotations.labelme import check_old_folders
from danet.data.annotations.recognize import FORMATS, import_advice, recognize
from danet.data.annotations.source import Source
from danet.data.classes import IGNORE, Classes, Color
from danet.data.custom.binary_values import note_ignored
from danet.data.custom.class_lists import find_class_lists
from danet.data.custom.name_classes import Choose, NamedClasses, name_colors, name_values, refuse_to_choose
from danet.data.custom.proposal import Pixels, Proposal
from danet.data.custom.scan_masks import MaskKind, MaskScan, infer_meaning, scan
from danet.data.custom.settings import VAL
from danet.data.custom.split_lists import find_lists
from danet.data.custom.splits import choose_validation, divided_sequences, find_sequences
from danet.data.datasets import cityscapes
from danet.errors import InputError, list_names, missing_folder

_FIRST_INSTANCE = 1000  # instance ids of class 1 begin at 1000 in Cityscapes
_MAX_CODES = 64  # masks with more values above 255 contain instance ids, not class codes


def propose(
    root: Path, ignore: int | None = None, first_class: int | None = None, choose: Choose = refuse_to_choose
) -> Proposal:
    """Read every mask below a folder and propose its dataset.yaml.

    Args:
        root: the folder that contains the images and masks.
        ignore: the mask value of unlabeled pixels, if known.
        first_class: whether the first name of a list of names is that of value 0 or 1, if known.
        choose: called if a list of names has several readings.

    Raises:
        InputError: no images or masks were found; the masks contain smoothed colors or instance ids; no mask has the
            value `ignore`; a list of names has several readings, and `choose` is not given.
    """
    if first_class not in (None, 0, 1):
        raise InputError("first_class", f"must be 0 or 1, got {first_class}", "leave it out if you do not know it")
    scanned = _scan(root)
    if scanned.layout.splits:
        return _describe_classes(scanned, ignore, first_class, choose)
    lists, notes = find_lists(scanned.layout, [pair.image for pair in scanned.found])
    division, by_sequence = ("", False) if lists else _find_sequences([pair.name for pair in scanned.found])
    layout = replace(scanned.layout, lists=lists)
    scanned = replace(scanned, layout=layout, notes=(*scanned.notes, *notes))
    proposal = _describe_classes(scanned, ignore, first_class, choose)
    return replace(proposal, by_sequence=by_sequence, division=division)


def _find_sequences(names: Sequence[str]) -> tuple[str, bool]:
    """Return how images without lists and folders are divided, in one line, and whether by sequence."""
    sequences = [frames for frames in find_sequences(names).values() if len(frames) > 1]
    if not sequences:
        return f"a fraction of {VAL} of the images is used for validation", False
    val = choose_validation(names, VAL, by_sequence=True)
    divided = divided_sequences({"train": [name for name in names if name not in val], "val": list(val)})
    count = f"{len(sequences)} sequences" if len(sequences) > 1 else "one sequence"
    kept = "each is in train or in val"
    if divided:
        kept = f"the last frames of {divided[0]} are in val" + (
            ", every other is in train or in val" * (len(sequences) > 1)
        )
    what = f"{sum(map(len, sequences))} images are read as frames of {count} (same name but the last number)"
    return f"{what}: {kept}; if they are unrelated, write split_by: image", True


def _describe_classes(scanned: MaskScan, ignore: int | None, first_class: int | None, choose: Choose) -> Proposal:
    """Propose the classes and how masks are read."""
    masks = scanned.layout.root / scanned.layout.masks
    lists = find_class_lists(scanned.layout)
    if scanned.colors:
        _check_colors(masks, scanned.colors)
        return _colored(scanned, name_colors(scanned.colors, lists))
    _check_values(masks, scanned.values, ignore)
    meaning = infer_meaning(scanned, ignore, bool(lists))
    if not meaning.ids:
        raise InputError(masks, f"every pixel is unlabeled (value {meaning.ignore})", "label some pixels")
    if meaning.kind == "Cityscapes label ids":
        others = {value: IGNORE for value in range(34) if value not in meaning.ids}
        label_map = {value: train_id for train_id, value in enumerate(meaning.ids)} | others
        notes = (*note_ignored(scanned.values, (IGNORE,)), *meaning.notes)
        return _proposal(scanned, meaning.kind, scanned.values, cityscapes.CLASSES, IGNORE, label_map, notes)
    if meaning.threshold is not None:
        scanned = replace(scanned, values=_divide(scanned.values, meaning.threshold))
    whole = replace(scanned, values=_unite(scanned.values, meaning.same))
    named = name_values(whole, meaning, lists, first_class, choose)
    label_map = {value: train_id for train_id, values in enumerate(named.keys.values()) for value in values}
    label_map |= dict.fromkeys(named.ignored[1:], IGNORE)
    if meaning.same:
        label_map |= {value: label_map.get(other, IGNORE) for value, other in meaning.same.items()}
        label_map = dict(sorted(label_map.items()))
    spare = Classes.named(tuple(named.keys)).palette
    palette = (scanned.palette.get(values[0], spare[i]) for i, values in enumerate(named.keys.values()))
    identity = all(value == train_id for value, train_id in label_map.items())
    ignored_notes = note_ignored(scanned.values, named.ignored) if ignore is None else ()
    notes = (*ignored_notes, *meaning.notes, *named.notes)
    void = named.ignored[0] if named.ignored else None
    mapping = None if identity else label_map
    classes = Classes(tuple(named.keys), tuple(palette))
    proposal = _proposal(scanned, meaning.kind, scanned.values, classes, void, mapping, notes)
    if meaning.threshold is None:
        return proposal
    notes, (smoothed,) = proposal.notes[: -len(named.notes) - 1], meaning.notes
    if tuple(named.keys.values()) != ((0,), (255,)) or named.ignored:
        smoothed = f"{smoothed}, which danet check reports as errors; save the masks without smoothing"
        return replace(proposal, notes=(*notes, smoothed, *named.notes))
    smoothed = f"{smoothed}, divided by threshold: {meaning.threshold}; other thresholds make objects larger or smaller"
    return replace(proposal, label_map=None, threshold=meaning.threshold, notes=(*notes, smoothed, *named.notes))


def _unite(values: Mapping[int, int], same: Mapping[int, int]) -> dict[int, int]:
    """Return the pixels of each value, with those of the values that mean the same."""
    united: Counter[int] = Counter()
    for value, pixels in values.items():
        united[same.get(value, value)] += pixels
    return dict(united)


def _divide(values: Mapping[int, int], threshold: int) -> dict[int, int]:
    """Return the pixels of 0 and 255, with those of the values between them."""
    high = sum(pixels for value, pixels in values.items() if value >= threshold)
    return {0: sum(values.values()) - high, 255: high}


def _colored(scanned: MaskScan, named: NamedClasses[Color]) -> Proposal:
    colors = tuple(named.keys.values())
    classes = Classes(tuple(named.keys), tuple(own[0] for own in colors))
    return replace(_proposal(scanned, "colors", scanned.colors, classes, None, None, named.notes), colors=colors)


def _check_colors(masks: Path, colors: Mapping[Color, int]) -> None:
    if len(colors) > IGNORE:
        frequent = ", ".join(str(list(color)) for color in sorted(colors, key=lambda c: -colors[c])[:8])
        what = f"the masks have {len(colors)} colors, probably from smoothed edges (most frequent: {frequent})"
        remedy = "save them as PNG without smoothing, one exact color per class; if they are photos, swap the folders"
        raise InputError(masks, what, remedy)


def _scan(root: Path) -> MaskScan:
    """Scan a folder, or advise to import it if it is the export of an annotation tool."""
    if not root.is_dir():
        raise missing_folder(root, "specify the folder that contains the images and masks")
    source = Source(root)
    if advice := import_advice(source, ("masks",)):  # one of several masks per image would be taken for the only one
        raise advice
    if not recognize(source, ("labelme",)):
        check_old_folders(source)
    try:
        scanned = scan(root)
    except InputError as error:
        raise import_advice(source) or error from error
    if advice := import_advice(source, [name for name in FORMATS if name != "cvat-masks"]):  # which are read here
        scanned = replace(scanned, notes=(*scanned.notes, f"not used: {advice.what}; to use it, {advice.remedy}"))
    return scanned


def _check_values(masks: Path, values: Mapping[int, int], ignore: int | None) -> None:
    if negative := [value for value in values if value < 0 and value != ignore]:
        shown = list_names([str(value) for value in negative], 3)
        remedy = f"set `ignore` to {negative[0]} if it means no data, or correct the masks"
        raise InputError(masks, f"the masks have negative values ({shown}), which cannot be class ids", remedy)
    ids = [value for value in values if value >= 0]
    low, high = min(ids, default=0), max((value for value in ids if value != 65535), default=0)
    if high >= _FIRST_INSTANCE or (high > IGNORE and len(ids) > _MAX_CODES):
        few = len(ids) <= _MAX_CODES
        what = f"the masks have {len(ids)} values from {low} to {high}: {'perhaps ' * few}instance ids, not class ids"
        remedy = "use masks of class ids (Cityscapes: *_labelIds.png)"
        remedy += "; or, if they are classes, write dataset.yaml by hand, with a label_map" if few else ""
        raise InputError(masks, what, remedy)
    if ignore not in (None, IGNORE, *values):
        remedy = f"choose one of {list_names([str(value) for value in values])}, or omit `ignore`"
        raise InputError("ignore", f"no mask has the value {ignore}", remedy)


def _proposal(
    scanned: MaskScan,
    kind: MaskKind,
    values: Pixels,
    classes: Classes,
    ignore: int | None,
    label_map: dict[int, int] | None,
    notes: tuple[str, ...],
) -> Proposal:
    bands = scanned.channels, scanned.transparent
    notes = (*scanned.notes, *notes)
    exif = None if scanned.upright is None else "apply" if scanned.upright else "ignore"
    return Proposal(
        scanned.layout,
        scanned.pairs,
        kind,
        values,
        classes,
        ignore,
        label_map,
        notes,
        *bands,
        exif=exif,
        white=scanned.white,
    )
