"""Where images and masks lie in a folder without dataset.yaml: `danet init` looks for them, by the usual names of
folders and of files.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path
from string import digits

from danet.data.custom.layout import SPLIT, SPLITS, Layout, holds_images, images_in, masks_in
from danet.data.images.read import SUFFIXES
from danet.data.naming import LOSSLESS, SAME_STEM, Naming, naming_beside, naming_of
from danet.errors import InputError

_IMAGES = (
    *("images", "imgs", "img", "image", "jpegimages", "leftimg8bit", "images", "photos"),
    *("inputs", "input", "frames", "rgb", "raw", "imgdir", "imagespng", "imagesjpg", "pngimages", "original"),
    *("originalimages", "camerargb"),
)
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "segmentationclass"),
    *("segmentationclasspng", "segmentations", "segmentation", "seg", "gt", "gtfine", "groundtruth", "groundtruths"),
    *("targets", "target", "masksmachine", "ann", "anndir", "maskspng", "pixelmaps", "stuffthingmaps", "lab"),
    *("semantic", "trimaps", "cameraseg", "pedmasks"),
)
_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "": ("test", "testing")}
_SPLIT_WORDS = sorted((word for words in _WORDS.values() for word in words), key=len, reverse=True)
_BESIDE_WORDS = ("", "data", "set", "dataset", *_IMAGES, *_MASKS)
_DEPTH = 4
_MOST = 8  # folders of other names that are compared, file by file

Groups = Mapping[str, Mapping[str, Path]]
"""The folders that hold images, by what they would be called in dataset.yaml ("" for the folder itself): pattern ->
word of the split, "" if there is none -> folder.
"""


def find_layout(root: Path) -> tuple[Layout, list[str]]:
    """The layout: folders named as images and masks usually are, with the splits in them or around them; else masks
    beside their images; else the one folder whose files are named after those of another. And notes, a line each.

    Raises:
        InputError: no such folder, no images or masks, no mask named like an image.
    """
    if not root.is_dir():
        raise InputError(root, "no such folder", "give the folder that holds images and masks")
    groups = _groups(root, _DEPTH)
    chosen = _by_kind(groups) or _beside(groups) or _by_names(groups)
    if chosen is None:
        raise _nothing(root, groups)
    images, masks = chosen
    layout, notes = _with_splits(root, groups, images, masks)
    others = [pattern for pattern in groups if pattern not in chosen and _kind(pattern) in _IMAGES + _MASKS]
    if images == masks:
        others = [pattern for pattern, folders in groups.items() if pattern != images and _naming_beside(folders)]
    if others:
        shown = ", ".join(others[:6]) + (" ..." if others[6:] else "")
        notes.append(f"not used, besides {' and '.join(dict.fromkeys((layout.images, layout.masks)))}: {shown}")
    if images == masks and (naming := _naming_beside(groups[images])):
        return replace(layout, naming=naming), notes
    return _named(layout), notes


def _groups(root: Path, depth: int) -> dict[str, dict[str, Path]]:
    groups: dict[str, dict[str, Path]] = {}
    for place in (root, *_below(root, depth)):
        if holds_images(place):
            pattern, word = _pattern(place.relative_to(root).parts)
            groups.setdefault(pattern, {})[word] = place
    return groups


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        try:
            again = child.is_symlink() and folder.resolve().is_relative_to(child.resolve())
            if child.name.startswith(".") or not child.is_dir() or again:
                continue
            next(child.iterdir(), None)
        except OSError:  # one that cannot be read, such as a disk's lost+found
            continue
        yield child
        if depth > 1:
            yield from _below(child, depth - 1)


def _pattern(parts: Sequence[str]) -> tuple[str, str]:
    """What a folder would be called in dataset.yaml, and the word in its path that names a split."""
    for i in reversed(range(len(parts))):
        before, word, after = _divided(parts[i])
        if word:
            outer = tuple(SPLIT if part == word else part for part in parts[:i])
            alone = i == len(parts) - 1 and not before + after and SPLIT not in outer
            inner = () if alone else (f"{before}{SPLIT}{after}",)
            return "/".join((*outer, *inner, *parts[i + 1 :])), word
    if len(parts) > 1 and _plain(parts[-1]) not in _IMAGES + _MASKS and _plain(parts[-2]) in _IMAGES + _MASKS:
        return "/".join(parts[:-1]), parts[-1]
    return "/".join(parts), ""


def _divided(name: str) -> tuple[str, str, str]:
    """What precedes a split's word in a folder's name, the word as it stands, and what follows: train, train_images,
    trainannot, train2017.
    """
    for word in _SPLIT_WORDS:
        for at in (0, len(name) - len(word)):
            before, found, after = name[: max(0, at)], name[max(0, at) : at + len(word)], name[at + len(word) :]
            if found.lower() == word and _plain(before + after).strip(digits) in _BESIDE_WORDS:
                return before, found, after
    return name, "", ""


def _plain(name: str) -> str:
    return "".join(c for c in name.replace(SPLIT, "").lower() if c.isalnum())


def _kind(pattern: str) -> str:
    """The last name in a pattern that is more than a split's word and a number; "" if there is none."""
    names = (_plain(part).strip(digits) for part in reversed(pattern.split("/")))
    return next((name for name in names if name), "")


def _by_kind(groups: Groups) -> tuple[str, str] | None:
    """Images and masks in folders of the usual names, or masks in a folder below their images: those that belong
    together, of the same splits, in one folder, outermost, with a train split, most usual.
    """
    images = [pattern for pattern in groups if _kind(pattern) in _IMAGES]
    masks = [pattern for pattern, folders in groups.items() if _kind(pattern) in _MASKS and _files(folders)]

    def rank(pair: tuple[str, str]) -> tuple[object, ...]:
        ours, theirs = pair
        words = groups[ours].keys() & groups[theirs].keys()
        named, apart = ours in images, _parent(ours) != _parent(theirs)
        train = any(word.lower() in _WORDS["train"] for word in words)
        usual = (_IMAGES.index(_kind(ours)) if named else 0), _MASKS.index(_kind(theirs))
        return not words, not named, apart, ours.count("/") + theirs.count("/"), not train, usual, pair

    pairs = [(ours, theirs) for ours in images for theirs in masks if ours != theirs]
    pairs += [(parent, theirs) for theirs in masks if (parent := _parent(theirs)) in groups and parent not in masks]
    return min(pairs, key=rank, default=None)


def _beside(groups: Groups) -> tuple[str, str] | None:
    """The outermost folder in which masks lie beside their images, for both."""
    for pattern in sorted(groups, key=lambda pattern: (pattern.count("/"), bool(pattern), pattern)):
        if _naming_beside(groups[pattern]):
            return pattern, pattern
    return None


def _by_names(groups: Groups) -> tuple[str, str] | None:
    """The only two folders, called anything, whose files are named as images and their masks."""
    if len(groups) > _MOST:
        return None
    fitting: dict[bool, list[tuple[str, str]]] = {False: [], True: []}
    files = {pattern: _files(folders) for pattern, folders in groups.items()}
    for ours, theirs in permutations(groups, 2):
        images, masks = files[ours], files[theirs]
        naming = naming_of(images, masks)
        if naming is None or not groups[ours].keys() & groups[theirs].keys():
            continue
        wanted = {naming.mask_of(image) for image in images}
        if all(mask.name in wanted and mask.suffix.lower() in LOSSLESS for mask in masks):
            fitting[bool(naming.image_suffix)].append((ours, theirs))
    best = fitting[False] or fitting[True]
    return best[0] if len(best) == 1 else None


def _parent(pattern: str) -> str:
    return pattern.rpartition("/")[0]


def _files(folders: Mapping[str, Path]) -> list[Path]:
    return [file for place in folders.values() for file in masks_in(place)]


def _naming_beside(folders: Mapping[str, Path]) -> Naming | None:
    return naming_beside(_files(folders))


def _nothing(root: Path, groups: Groups) -> InputError:
    name = root.resolve().name
    if _kind(name) in _IMAGES + _MASKS or _divided(name)[1]:
        above = root.resolve().parent
        for folder in (above, above.parent):
            if _by_kind(_groups(folder, 2)):
                return InputError(root, "holds no images with their masks", f"give {folder}")
    if not groups:
        return InputError(root, f"no image in it ({', '.join(SUFFIXES)})", "give the folder of images and masks")
    patterns = [pattern or "the folder itself" for pattern in groups]
    places = ", ".join(patterns[:6]) + (" ..." if patterns[6:] else "")
    what = f"images in {places}, and which of them are masks is not known"
    remedy = f"call two folders {_IMAGES[0]} and {_MASKS[0]}, or write dataset.yaml by hand (docs/guide.md)"
    return InputError(root, what, remedy)


def _with_splits(root: Path, groups: Groups, images: str, masks: str) -> tuple[Layout, list[str]]:
    """The layout with the words of the splits that have images and masks in folders of their own, and notes."""
    found, covered = groups[images], groups[masks].keys()
    there = [word for word in found if word in covered or "" in covered]
    if not there:
        what = f"images in {', '.join(list(found)[:4])}, and masks in {', '.join(list(covered)[:4])}"
        raise InputError(root, what, "call the folders of masks as those of their images")
    words = {
        split: next((word for usual in _WORDS[split] for word in there if word.lower() == usual), None)
        for split in SPLITS
    }
    splits = {split: word for split, word in words.items() if word is not None}
    notes: list[str] = []
    used = set(splits.values())
    if len(splits) == 1:
        (word,) = splits.values()
        images, masks, splits = _one(images, word), (_one(masks, word) if word in covered else masks), {}
        notes = [f"train and val are parts of {images}, the only one of the two with masks"]
    elif not splits and "" in there:
        used = {""}
    elif not splits:
        shown = ", ".join(list(found)[:4])
        raise InputError(
            root / images, f"images in {shown}, not in train and val", "rename the folders, of the masks too"
        )
    if unused := [place.relative_to(root).as_posix() for word, place in found.items() if word not in used]:
        notes.insert(0, f"not used: the images in {', '.join(unused)}")
    return Layout(root, images or ".", masks or ".", SAME_STEM, splits), notes


def _one(pattern: str, word: str) -> str:
    """A pattern of split folders as the name of one of these."""
    if SPLIT in pattern:
        return pattern.replace(SPLIT, word)
    return f"{pattern}/{word}" if pattern else word


def _named(layout: Layout) -> Layout:
    """With the names that most masks have."""
    places = dict.fromkeys(layout.of(split) or layout.together for split in layout.splits or SPLITS)
    images = [file for results, _ in places for file in images_in(results)]
    masks = [file for _, masks in places for file in masks_in(masks)]
    if naming := naming_of(images, masks):
        return replace(layout, naming=naming)
    first = min(images).stem
    shown = f"masks such as {masks[0].name}, " if masks else ""
    what = f"no mask is named like an image ({shown}images such as {first})"
    raise InputError(layout.root / layout.masks, what, f"name the mask of {first}.jpg {first}.png, and so on")
