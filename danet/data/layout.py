"""Where the pictures and masks of a user's folder lie: as dataset.yaml says it, and as `danet init` finds it."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import digits

from danet.data.bands import RGB, Bands
from danet.data.images import ARRAYS, SUFFIXES, list_images
from danet.data.naming import SAME_STEM, Naming, naming_beside, naming_of
from danet.errors import InputError

SPLITS = ("train", "val")
SPLIT = "{split}"
"""What stands for the split in the names of folders."""

_IMAGES = (
    *("images", "imgs", "img", "image", "jpegimages", "leftimg8bit", "pictures", "photos"),
    *("inputs", "input", "frames", "rgb", "raw"),
)
_MASKS = (
    *("masks", "mask", "labels", "label", "annotations", "annotation", "annots", "annot", "segmentationclass"),
    *("segmentations", "segmentation", "seg", "gt", "gtfine", "groundtruth", "groundtruths", "targets", "target"),
    *("masksmachine", "ann"),
)
_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation"), "": ("test", "testing")}
_SPLIT_WORDS = tuple(word for words in _WORDS.values() for word in words)
_DEPTH = 4


@dataclass(frozen=True)
class Layout:
    """The folders of pictures and masks.

    Args:
        root: the user's folder.
        images, masks: folders below it. "{split}" in a name is where the split's folder is meant; without it these
            folders may hold one for each split, or all pictures.
        naming: how masks are called.
        splits: "train" and "val" -> what their folders are called.
    """

    root: Path
    images: str = "images"
    masks: str = "masks"
    naming: Naming = SAME_STEM
    splits: Mapping[str, str] = field(default_factory=lambda: {split: split for split in SPLITS})

    def of(self, split: str) -> tuple[Path, Path] | None:
        """The folders of a split's pictures and masks; None where the pictures of all splits lie together: no split
        has a folder.
        """
        name = self.splits.get(split, split)
        names = {name, *self.splits.values()}
        if SPLIT in self.images or any(self._inside(self.images, each).is_dir() for each in names):
            return self._inside(self.images, name), self._inside(self.masks, name)
        return None

    @property
    def together(self) -> tuple[Path, Path]:
        """The folders of pictures and masks without train and val folders."""
        return self.root / self.images, self.root / self.masks

    def _inside(self, pattern: str, name: str) -> Path:
        return self.root / pattern.replace(SPLIT, name) if SPLIT in pattern else self.root / pattern / name


def list_pictures(places: tuple[Path, Path], naming: Naming, bands: Bands = RGB) -> list[Path]:
    """The pictures directly in the first folder; where the masks lie there too, without these.

    Raises:
        InputError: see `list_images`; nothing but masks.
    """
    images, masks = places
    found = list_images(images, bands)
    if images != masks:
        return found
    if pictures := [file for file in found if not naming.is_mask(file)]:
        return pictures
    what = f"no picture in it beside the masks, STEM{naming.mask_suffix}"
    raise InputError(images, what, "add them, or mend mask_suffix in dataset.yaml")


def find_layout(root: Path) -> tuple[Layout, list[str]]:
    """The layout of a folder without dataset.yaml, by the usual names of folders (images and masks, train and val in
    them or around them) or, where pictures and masks lie together, of files; and notes, a line each.

    Raises:
        InputError: no such folder, no pictures or masks, folders named as nobody does, no mask named like a picture.
    """
    if not root.is_dir():
        raise InputError(root, "no such folder", "give the folder that holds images and masks")
    groups = _groups(root)
    images, masks = _chosen(groups, _IMAGES), _chosen(groups, _MASKS)
    if images is None and masks is None and "" in groups and _beside(groups[""]):
        images = masks = ""
    elif images is None and masks is not None and "" in groups:
        images = ""
    elif images is not None and masks is None and _beside(groups[images]):
        masks = images
    if images is None or masks is None:
        what, usual = ("pictures", _IMAGES) if images is None else ("masks", _MASKS)
        raise InputError(root, f"no folder of {what} in it ({', '.join(usual[:6])}, ...)", _instead(root, what, usual))
    splits, images_at, masks_at, notes = _with_splits(root, groups[images], images, masks)
    naming = _beside(groups[images]) if images == masks else None
    layout = Layout(root, images_at, masks_at, naming or SAME_STEM, splits)
    return (layout if naming else _named(layout)), notes


def _groups(root: Path) -> dict[str, dict[str, Path]]:
    """The folders that hold pictures, by what they would be called in dataset.yaml: pattern -> split's word, "" if
    there is none -> folder. The pattern of `root` is "".
    """
    groups: dict[str, dict[str, Path]] = {}
    for place in (root, *_below(root, _DEPTH)):
        if _holds_pictures(place):
            pattern, word = _pattern(place.relative_to(root).parts)
            groups.setdefault(pattern, {})[word] = place
    return groups


def _pattern(parts: Sequence[str]) -> tuple[str, str]:
    """What a folder would be called in dataset.yaml, and the word in its path that names a split."""
    for i in reversed(range(len(parts))):
        before, word, after = _divided(parts[i])
        if word:
            last = i == len(parts) - 1 and not before + after
            inner = () if last else (f"{before}{SPLIT}{after}",)
            return "/".join((*parts[:i], *inner, *parts[i + 1 :])), word
    if len(parts) > 1 and _plain(parts[-1]) not in _IMAGES + _MASKS and _plain(parts[-2]) in _IMAGES + _MASKS:
        return "/".join(parts[:-1]), parts[-1]
    return "/".join(parts), ""


def _divided(name: str) -> tuple[str, str, str]:
    """What precedes a split's word in a folder's name, the word as it stands, and what follows: train, train_images,
    trainannot, train2017.
    """
    for word in sorted(_SPLIT_WORDS, key=len, reverse=True):
        for at in (0, len(name) - len(word)):
            before, found, after = name[: max(0, at)], name[max(0, at) : at + len(word)], name[at + len(word) :]
            if found.lower() == word and _plain(before + after).strip(digits) in ("", *_IMAGES, *_MASKS):
                return before, found, after
    return name, "", ""


def _plain(name: str) -> str:
    return "".join(c for c in name.replace(SPLIT, "").lower() if c.isalnum())


def _chosen(groups: Iterable[str], usual: Sequence[str]) -> str | None:
    """The pattern that is called by one of these names: the outermost, then the most usual."""
    kinds = {pattern: _kind(pattern) for pattern in groups}
    named = [(pattern.count("/"), usual.index(kind), pattern) for pattern, kind in kinds.items() if kind in usual]
    return min(named)[2] if named else None


def _kind(pattern: str) -> str:
    """The last name in a pattern that is more than a split's word and a number; "" if there is none."""
    names = (_plain(part).strip(digits) for part in reversed(pattern.split("/")))
    return next((name for name in names if name), "")


def _instead(root: Path, what: str, usual: Sequence[str]) -> str:
    if _plain(root.name) in _IMAGES + _MASKS and _chosen(_groups(root.parent), usual) is not None:
        return f"give {root.parent}"
    return f"put all {what} into {root / usual[0]}"


def _with_splits(
    root: Path, found: Mapping[str, Path], images: str, masks: str
) -> tuple[dict[str, str], str, str, list[str]]:
    """The words of the splits that have folders of their own, the two folders as dataset.yaml names them, and notes."""
    words = {
        split: next((word for usual in _WORDS[split] for word in found if word.lower() == usual), None)
        for split in SPLITS
    }
    splits = {split: word for split, word in words.items() if word is not None}
    what = images or root.name
    notes: list[str] = []
    if len(splits) == 1:
        (word,) = splits.values()
        images, masks, splits = _one(images, word), _one(masks, word), {}
        notes = [f"train and val are parts of {images}, the only one of the two"]
        used = {word}
    elif splits:
        used = set(splits.values())
    elif "" in found:
        used = {""}
    else:
        shown = ", ".join(list(found)[:4])
        raise InputError(
            root / images, f"pictures in {shown}, not in train and val", "rename the folders, of the masks too"
        )
    if unused := [word or "the folder itself" for word in found if word not in used]:
        notes.insert(0, f"not used: pictures of {what} in {', '.join(unused)}")
    return splits, images or ".", masks or ".", notes


def _one(pattern: str, word: str) -> str:
    """A pattern of split folders as the name of one of these."""
    if SPLIT in pattern:
        return pattern.replace(SPLIT, word)
    return f"{pattern}/{word}" if pattern else word


def _below(folder: Path, depth: int) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            yield child
            if depth > 1:
                yield from _below(child, depth - 1)


def _holds_pictures(place: Path) -> bool:
    return any(not file.name.startswith(".") and file.suffix.lower() in SUFFIXES + ARRAYS for file in place.iterdir())


def _beside(folders: Mapping[str, Path]) -> Naming | None:
    return naming_beside([file for place in folders.values() for file in masks_in(place)])


def _named(layout: Layout) -> Layout:
    """With the names that most masks have."""
    places = [layout.of(split) or layout.together for split in layout.splits or SPLITS]
    pictures = [file for images, _ in places for file in pictures_in(images)]
    masks = [file for _, masks in places for file in masks_in(masks)]
    if naming := naming_of(pictures, masks):
        return replace(layout, naming=naming)
    first = min(pictures).stem
    shown = f"masks such as {masks[0].name}, " if masks else ""
    what = f"no mask is named like a picture ({shown}pictures such as {first})"
    raise InputError(layout.root / layout.masks, what, f"name the mask of {first}.jpg {first}.png, and so on")


def pictures_in(place: Path) -> list[Path]:
    """The pictures directly in a folder; arrays where there are no others."""
    return masks_in(place) or sorted(p for p in place.iterdir() if p.suffix.lower() in ARRAYS)


def masks_in(place: Path) -> list[Path]:
    """What may be masks directly in a folder.

    Raises:
        InputError: no such folder.
    """
    if not place.is_dir():
        raise InputError(place, "no such folder, but one of pictures", "make it, with the masks of those pictures")
    return sorted(p for p in place.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))
