"""Find images and masks in a folder without dataset.yaml, by the usual names of folders and files.

Folders are described by patterns, as dataset.yaml names them: `images/train` and `images/val` are both `images`, and
`train/images` and `val/images` are `{split}/images`. "" is the root itself.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, permutations
from pathlib import Path
from string import digits

from danet.data.custom.layout import (
    PLACEHOLDER,
    SPLIT_NAMES,
    SPLITS,
    STAR,
    Layout,
    holds_arrays,
    image_files,
    image_files_or_arrays,
)
from danet.data.images.formats import HAS_HEIF, HEIF_SUFFIXES
from danet.data.images.read import describe_suffixes
from danet.data.naming import LOSSLESS, SAME_STEM, Naming, composed, guess_naming, guess_naming_in_one_folder
from danet.errors import InputError, list_names, missing_folder, missing_package

# folder names in lower case, without punctuation; the most usual first
_IMAGES = (
    *("images", "imgs", "img", "image", "jpegimages", "leftimg8bit"),
    *("pictures", "photos"),  # vocabulary: old name (users' folders)
    *("inputs", "input", "frames", "rgb", "raw", "imgdir", "imagespng", "imagesjpg", "pngimages", "original"),
    *("originalimages", "camerargb"),
)
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "segmentationclass"),
    *("segmentationclasspng", "segmentations", "segmentation", "seg", "gt", "gtfine", "groundtruth", "groundtruths"),
    *("targets", "target", "masksmachine", "ann", "anndir", "maskspng", "pixelmaps", "stuffthingmaps", "lab"),
    *("semantic", "trimaps", "cameraseg", "pedmasks"),
)
_LONGEST_FIRST = sorted((name for names in SPLIT_NAMES.values() for name in names), key=len, reverse=True)
_NEXT_TO_SPLIT = ("", "data", "set", "dataset", *_IMAGES, *_MASKS)  # trainset, train_images, trainannot
_MAX_DEPTH = 6
_MAX_FOLDERS = 20_000
_MAX_COMPARED = 8  # folders with unusual names that are compared file by file

Folders = dict[Path, list[Path]]
"""Folders that contain images, and their image files; arrays are not listed."""

Groups = dict[str, dict[str, Folders]]
"""The folders that contain images: pattern -> split name in the path ("" if there is none) -> folders."""


def find_layout(root: Path) -> tuple[Layout, list[str]]:
    """Find the images and masks below a folder.

    Three ways are tried in turn: folders with the usual names, with splits inside or around them; masks next to their
    images; and the only two folders whose files have matching names. If there are no other masks, label maps of danet
    are taken for masks.

    Returns:
        The layout, and notes for the user, one line each.

    Raises:
        InputError: no such folder, too many folders in it, no images, no masks, or no mask that is named after an
            image.
    """
    if not root.is_dir():
        raise missing_folder(root, "specify the folder that contains the images and masks")
    groups = _group_folders(root, _MAX_DEPTH)
    chosen = _choose(groups)
    predicted = chosen is None
    if chosen is None:
        without = groups
        groups = _group_folders(root, _MAX_DEPTH, predicted)
        chosen = _choose(groups)
        if chosen is None:
            raise _not_found(root, without)
    images, masks = chosen = _widen(groups, *chosen)
    layout, notes = _with_splits(root, groups, images, masks)
    if predicted:
        notes.append("the masks are label maps of danet, which it predicted")
    if STAR in layout.images:
        parts = list(dict.fromkeys(each.part for each in layout.folders()))
        notes.append(f"images are in {len(parts)} folders, {layout.images}: {list_names(parts, 6)}")
    others = [pattern for pattern in groups if pattern not in chosen and _kind(pattern) in _IMAGES + _MASKS]
    if images == masks:
        others = [pattern for pattern, folders in groups.items() if pattern != images and _naming_in(folders)]
    if others:
        notes.append(f"not used: the folders {list_names(others, 6)}")
    if images == masks and (naming := _naming_in(groups[images])):
        return replace(layout, naming=naming), notes
    return _with_naming(layout, predicted), notes


def _choose(groups: Groups) -> tuple[str, str] | None:
    """Return the patterns of the folders of the images and of their masks."""
    return _find_usual_names(groups) or _find_shared_folder(groups) or _find_matching_files(groups)


def _group_folders(root: Path, depth: int, predicted: bool = False) -> Groups:
    groups: Groups = {}
    for count, folder in enumerate(chain([root], _subfolders(root, depth))):
        if count > _MAX_FOLDERS:
            raise InputError(root, f"contains more than {_MAX_FOLDERS:,} folders", "specify the folder of one dataset")
        if (files := image_files(folder, predicted)) or holds_arrays(folder):
            pattern, split = _pattern(folder.relative_to(root).parts)
            groups.setdefault(pattern, {}).setdefault(split, {})[folder] = files
    return groups


def _subfolders(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        try:
            loop = child.is_symlink() and folder.resolve().is_relative_to(child.resolve())
            if child.name.startswith(".") or not child.is_dir() or loop:
                continue
            next(child.iterdir(), None)
        except OSError:  # not readable, such as a disk's lost+found
            continue
        yield child
        if depth > 1:
            yield from _subfolders(child, depth - 1)


def _pattern(parts: Sequence[str]) -> tuple[str, str]:
    """Return the pattern of a folder, and the split name in its path.

    Folders inside one with the usual name of images or masks are parts of it, such as images/berlin: images/*.
    """
    split, inside = "", list(parts)
    for i in reversed(range(len(parts))):
        before, split, after = _partition_split(parts[i])
        if split:
            inside[:i] = [PLACEHOLDER if part == split else part for part in parts[:i]]
            last = i == len(parts) - 1 and not before + after and PLACEHOLDER not in inside[:i]
            inside[i:] = [*([] if last else [f"{before}{PLACEHOLDER}{after}"]), *parts[i + 1 :]]
            break
    usual = [i for i, part in enumerate(inside) if _kind(part) in _IMAGES + _MASKS]
    if usual:
        inside[usual[-1] + 1 :] = [part if PLACEHOLDER in part else STAR for part in inside[usual[-1] + 1 :]]
    return "/".join(inside), split


def _partition_split(name: str) -> tuple[str, str, str]:
    """Partition a folder's name at the name of a split: train, train_images, trainannot, train2017."""
    for split in _LONGEST_FIRST:
        for at in (0, len(name) - len(split)):
            start, stop = max(0, at), at + len(split)
            before, found, after = name[:start], name[start:stop], name[stop:]
            if found.lower() == split and _plain(before + after).strip(digits) in _NEXT_TO_SPLIT:
                return before, found, after
    return name, "", ""


def _plain(name: str) -> str:
    return "".join(c for c in name.replace(PLACEHOLDER, "").lower() if c.isalnum())


def _kind(pattern: str) -> str:
    """Return the innermost name in a pattern that is more than a split and a number, or ""."""
    names = (_plain(part).strip(digits) for part in reversed(pattern.split("/")))
    return next((name for name in names if name), "")


def _find_usual_names(groups: Groups) -> tuple[str, str] | None:
    """Find folders of images and masks with the usual names, or a folder of masks inside the one of its images.

    The best pair has common splits, a common parent, the fewest levels, a train split, and the most usual names.
    """
    images = [pattern for pattern in groups if _kind(pattern) in _IMAGES]
    masks = [pattern for pattern, folders in groups.items() if _kind(pattern) in _MASKS and _files(folders)]

    def rank(pair: tuple[str, str]) -> tuple[object, ...]:
        image, mask = pair
        splits = groups[image].keys() & groups[mask].keys()
        named, apart = image in images, _parent(image) != _parent(mask)
        train = any(split.lower() in SPLIT_NAMES["train"] for split in splits)
        usual = (_IMAGES.index(_kind(image)) if named else 0), _MASKS.index(_kind(mask))
        return not splits, not named, apart, image.count("/") + mask.count("/"), not train, usual, pair

    pairs = [(image, mask) for image in images for mask in masks if image != mask]
    pairs += [(parent, mask) for mask in masks if (parent := _parent(mask)) in groups and parent not in masks]
    return min(pairs, key=rank, default=None)


def _widen(groups: Groups, images: str, masks: str) -> tuple[str, str]:
    """Replace the name of a folder by * if there are others like it, such as city1/images and city2/images.

    The folders of all are added to `groups` under the new patterns.
    """
    for place, name in enumerate(images.split("/")):
        if STAR in name or PLACEHOLDER in name or _kind(name) in _IMAGES + _MASKS or name not in masks.split("/"):
            continue
        others = [pattern for pattern in groups if _starred(pattern, place, images) is not None]
        values = {_starred(pattern, place, images): pattern for pattern in others}
        pairs = {
            value: (pattern, mask)
            for value, pattern in values.items()
            if value and (mask := _replaced(masks, name, value)) in groups
        }
        if len(pairs) > 1:
            wide = _replaced(images, name, STAR), _replaced(masks, name, STAR)
            for pair in pairs.values():
                for pattern, narrow in zip(wide, pair, strict=True):
                    for split, folders in groups.pop(narrow, {}).items():
                        groups.setdefault(pattern, {}).setdefault(split, {}).update(folders)
            images, masks = wide
    return images, masks


def _starred(pattern: str, place: int, like: str) -> str | None:
    """Return the name at `place` of a pattern that is otherwise equal to another."""
    own, other = pattern.split("/"), like.split("/")
    if len(own) != len(other) or own[:place] != other[:place] or own[place + 1 :] != other[place + 1 :]:
        return None
    return own[place]


def _replaced(pattern: str, old: str, new: str) -> str:
    return "/".join(new if part == old else part for part in pattern.split("/"))


def _find_shared_folder(groups: Groups) -> tuple[str, str] | None:
    """Find the outermost folder that contains both images and their masks."""
    for pattern in sorted(groups, key=lambda pattern: (pattern.count("/"), bool(pattern), pattern)):
        if _naming_in(groups[pattern]):
            return pattern, pattern
    return None


def _find_matching_files(groups: Groups) -> tuple[str, str] | None:
    """Find the only two folders, whatever their names, whose files are named like images and their masks."""
    if len(groups) > _MAX_COMPARED:
        return None
    fitting: dict[int, list[tuple[str, str]]] = {}
    files = {pattern: _files(folders) for pattern, folders in groups.items()}
    for image, mask in permutations(groups, 2):
        images, masks = files[image], files[mask]
        naming = guess_naming(images, masks)
        if naming is None or not groups[image].keys() & groups[mask].keys():
            continue
        expected = {composed(naming.mask_of(file)) for file in images}
        stems = {Path(name).stem for name in expected}
        if all(composed(file.stem) in stems and file.suffix.lower() in LOSSLESS for file in masks):
            reversible = bool(naming.image_suffix or naming.image_part or naming.mask_part)
            doubt = reversible + (reversible and not naming.names_masks)
            endings_differ = any(composed(file.name) not in expected for file in masks)
            fitting.setdefault(doubt + 3 * endings_differ, []).append((image, mask))
    best = fitting[min(fitting)] if fitting else []
    return best[0] if len(best) == 1 else None


def _parent(pattern: str) -> str:
    return pattern.rpartition("/")[0]


def _files(folders: Mapping[str, Folders]) -> list[Path]:
    return [file for own in folders.values() for files in own.values() for file in files]


def _naming_in(folders: Mapping[str, Folders]) -> Naming | None:
    return guess_naming_in_one_folder(_files(folders))


def _not_found(root: Path, groups: Groups) -> InputError:
    name = root.resolve().name
    if _kind(name) in _IMAGES + _MASKS or _partition_split(name)[1]:
        above = root.parent if root.name not in ("", "..") else root.resolve().parent
        for folder in (above, above.parent):
            try:
                around = _group_folders(folder, 2)
            except InputError:  # too many folders to look for an advice
                continue
            pair = _find_usual_names(around) or ()
            found = [each.resolve() for pattern in pair for own in around[pattern].values() for each in own]
            if any(each.is_relative_to(root.resolve()) for each in found):
                return InputError(root, "contains no images with masks", f"use {folder}")
    if not groups:
        heif = sum(file.suffix.lower() in HEIF_SUFFIXES for file in root.rglob("*"))
        if heif and not HAS_HEIF:
            return missing_package(root, f"contains {heif} HEIC images, and pillow-heif is not installed", "heif")
        what = f"contains no images ({describe_suffixes()})"
        return InputError(root, what, "specify the folder that contains the images and masks")
    places = list_names([pattern or "the folder itself" for pattern in groups], 6)
    if _has_lossy_masks(groups):
        what = f"the files in {places} have the same names, but masks in a lossy format such as JPEG are not read"
        return InputError(root, what, "save the masks as PNG")
    remedy = f"name the two folders {_IMAGES[0]} and {_MASKS[0]}, or write dataset.yaml by hand"
    return InputError(root, f"found images in {places}, but no pair of images and masks among them", remedy)


def _has_lossy_masks(groups: Groups) -> bool:
    """Return whether there are two folders with files of the same names, and masks in neither."""
    files = [_files(folders) for folders in groups.values()]
    if len(files) != 2 or any(all(file.suffix.lower() in LOSSLESS for file in own) for own in files):
        return False
    stems = [{composed(file.stem) for file in own} for own in files]
    return stems[0] <= stems[1] or stems[1] <= stems[0]


def _with_splits(root: Path, groups: Groups, images: str, masks: str) -> tuple[Layout, list[str]]:
    """Return the layout with the splits for which there are both images and masks, and notes."""
    image_folders, mask_folders = groups[images], groups[masks]
    paired = [split for split in image_folders if split in mask_folders or "" in mask_folders]
    if not paired:
        what = (
            f"images are in {list_names(list(image_folders), 4)}, but masks are in {list_names(list(mask_folders), 4)}"
        )
        raise InputError(root, what, "use the same names for the folders of the masks as for those of the images")
    by_split = {
        split: next((name for usual in SPLIT_NAMES[split] for name in paired if name.lower() == usual), None)
        for split in SPLITS
    }
    splits = {split: name for split, name in by_split.items() if name is not None}
    notes: list[str] = []
    used = set(splits.values())
    if len(splits) == 1:
        (name,) = splits.values()
        masks = _only_split(masks, name) if name in mask_folders else masks
        images, splits = _only_split(images, name), {}
        notes = [f"{images} is the only split with masks: part of it is used for validation"]
    elif splits and STAR in images:
        images, masks = (
            pattern if PLACEHOLDER in pattern or not own.keys() & used else f"{pattern}/{PLACEHOLDER}"
            for pattern, own in ((images, image_folders), (masks, mask_folders))
        )
    elif not splits and "" in paired:
        used = {""}
    elif not splits:
        what = f"its folders are named {list_names(list(image_folders), 4)}, not train and val"
        raise InputError(root / images, what, "rename them, and those of the masks")
    unused = [f.relative_to(root).as_posix() for name, own in image_folders.items() if name not in used for f in own]
    if unused:
        notes.insert(0, f"not used: the images in {list_names(unused)}")
    return Layout(root, images or ".", masks or ".", SAME_STEM, splits), notes


def _only_split(pattern: str, name: str) -> str:
    """Return the folder of one split."""
    if PLACEHOLDER in pattern:
        return pattern.replace(PLACEHOLDER, name)
    return f"{pattern}/{name}" if pattern else name


def _with_naming(layout: Layout, predicted: bool) -> Layout:
    """Return the layout with the naming that most masks follow, which may be label maps of danet."""
    folders = layout.folders()
    images = [file for each in folders for file in image_files_or_arrays(each.images)]
    mask_folders = {each.masks for each in folders if each.masks.is_dir()}
    masks = [file for folder in mask_folders for file in image_files(folder, predicted)]
    lossless = [all(file.suffix.lower() in LOSSLESS for file in files) for files in (images, masks)]
    if lossless == [True, False] and guess_naming(masks, images):
        what = f"its files ({list_names([file.name for file in masks], 1)}) may be the images of the masks in "
        remedy = "swap the two folders, or save the masks as PNG"
        raise InputError(layout.root / layout.masks, f"{what}{layout.images}", remedy)
    if naming := guess_naming(images, masks):
        return replace(layout, naming=naming)
    first = min(images)
    examples = f"masks such as {masks[0].name}, " if masks else ""
    what = f"no mask is named after an image ({examples}images such as {first.name})"
    raise InputError(layout.root / layout.masks, what, f"name the mask of {first.name} {first.stem}.png, and so on")
