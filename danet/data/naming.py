"""How masks are named after their images: a.png or a_mask.png for a.jpg, a_mask.png for a_sat.jpg."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif")
_MASK_WORDS = ("mask", "label", "seg", "annot", "gt", "truth", "target", "semantic")


class Naming(NamedTuple):
    """The mask of an image is called as its stem, without `image_suffix` at its end, and `mask_suffix` after it."""

    mask_suffix: str = ".png"
    image_suffix: str = ""

    def mask_of(self, image: Path) -> str:
        """The name of an image's mask."""
        return f"{image.stem.removesuffix(self.image_suffix)}{self.mask_suffix}"

    def is_mask(self, file: Path) -> bool:
        """Whether a file that lies where images and masks lie together is a mask."""
        return file.name.endswith(self.mask_suffix)


SAME_STEM = Naming()


def naming_of(images: Iterable[Path], masks: Iterable[Path]) -> Naming | None:
    """How most masks of one folder are named after the images of another; None where no mask is."""
    stems, names = {image.stem for image in images}, [mask.name for mask in masks]
    ends = (next((name[i:] for i in range(len(name), 0, -1) if name[:i] in stems), None) for name in names)
    votes = Counter(end for end in ends if end is not None)
    if likeliest := _likeliest(votes, min(len(stems), len(names))):
        return Naming(likeliest)
    ours, theirs = _common_end(list(stems)), _common_end(names)
    bases = {stem.removesuffix(ours) for stem in stems}
    paired = sum(name.removesuffix(theirs) in bases for name in names)
    return Naming(theirs, ours) if ours and 2 * paired > len(names) else None


def naming_beside(files: Sequence[Path]) -> Naming | None:
    """How masks are named that lie beside their images, most of them; None where these files are not such."""
    stems = {file.with_suffix("") for file in files}
    ends = Counter(
        file.name[i:] for file in files for i in range(1, len(file.stem)) if file.with_name(file.stem[:i]) in stems
    )
    if named := _likeliest({end: count for end, count in ends.items() if not end[0].isalnum()}, len(files)):
        return Naming(named)
    lossless = Counter(file.suffix for file in files if file.suffix.lower() in LOSSLESS)
    twice = len(files) - len(stems)
    if same := [suffix for suffix, count in lossless.items() if twice and count == twice]:
        return Naming(same[0])
    return _two_ends(files)


def _likeliest(ends: Mapping[str, int], files: int) -> str | None:
    """Of the endings that a third of the files have, one that names a mask, and then the most frequent."""
    often = [end for end, count in ends.items() if 3 * count >= files]
    return max(often, key=lambda end: (_names_masks(end), ends[end], end), default=None)


def _names_masks(end: str) -> bool:
    return any(word in end.lower() for word in _MASK_WORDS)


def _two_ends(files: Sequence[Path]) -> Naming | None:
    """a_sat.jpg and a_mask.png: two endings after the last "_" or "-", and the same names before them."""
    bases: dict[str, set[Path]] = {}
    for file in files:
        at = max(file.name.rfind("_"), file.name.rfind("-"))
        if at > 0:
            bases.setdefault(file.name[at:], set()).add(file.with_name(file.name[:at]))
    words = [end for end in bases if _names_masks(end)]
    if len(words) != 1:
        return None
    (mask,) = words
    other = max((end for end in bases if end != mask), key=lambda end: len(bases[end] & bases[mask]), default=None)
    if other is None or 2 * len(bases[other] & bases[mask]) <= len(bases[mask]):
        return None
    return Naming(mask, Path(other).stem)


def _common_end(names: Sequence[str]) -> str:
    """What all names end with, from its first character that is no letter and no digit on."""
    alike = takewhile(lambda letters: len(set(letters)) == 1, zip(*(name[::-1] for name in names), strict=False))
    end = "".join(letters[0] for letters in alike)[::-1]
    return end[next((i for i, c in enumerate(end) if not c.isalnum()), len(end)) :]
