"""How masks are named after their images: exact rules, pairing of files, and guesses from the names in a folder."""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

LOSSLESS = (".png", ".bmp", ".tif", ".tiff", ".gif", ".pgm", ".pbm", ".ppm", ".tga")
"""The suffixes of mask files."""

_MASK_WORDS = ("mask", "label", "seg", "annot", "gt", "truth", "target", "semantic")
_MAX_COMPARED = 50  # masks whose names are compared with those of all images
_MAX_COMPARISONS = 100_000


class Naming(NamedTuple):
    """How a mask is named after its image.

    The mask's name is the image's stem without `image_suffix`, with `mask_part` in place of `image_part`, and then
    `mask_suffix`.

    Args:
        mask_suffix: the end of a mask's name.
        image_suffix: the end of an image's stem that masks do not have.
        image_part: a text in the image's stem; only its first occurrence is replaced. "": `mask_part` is a prefix.
        mask_part: the text in its place.
    """

    mask_suffix: str = ".png"
    image_suffix: str = ""
    image_part: str = ""
    mask_part: str = ""

    def mask_of(self, image: Path) -> str:
        """Return the file name of an image's mask."""
        stem = image.stem.removesuffix(self.image_suffix).replace(self.image_part, self.mask_part, 1)
        return f"{stem}{self.mask_suffix}"

    def is_mask(self, file: Path) -> bool:
        """Return whether a file is a mask, in a folder that contains both images and masks."""
        if not file.name.endswith(self.mask_suffix):
            return False
        if not self.mask_part:
            return not self.image_part or self.image_part not in file.stem
        return self.mask_part in file.stem if self.image_part else file.stem.startswith(self.mask_part)

    @property
    def names_masks(self) -> bool:
        """Whether the names of masks have a word for masks, so that they are not the images."""
        return names_masks(self.mask_part + self.mask_suffix)

    @property
    def masks(self) -> str:
        """The names of masks as a pattern, such as "*_mask.png"."""
        middle = f"*{self.mask_part}*" if self.image_part and self.mask_part else f"{self.mask_part}*"
        return f"{middle}{self.mask_suffix}"


SAME_STEM = Naming()


def match_masks(images: Sequence[Path], masks: Path, naming: Naming = SAME_STEM) -> dict[Path, Path]:
    """Return the mask of each image, or where it should be if there is none.

    Names match if they are equal, or else after Unicode normalization: macOS decomposes accents in names, other systems
    do not.
    In a folder of masks, a mask may also have another lossless suffix than most.

    Args:
        images: the images.
        masks: the folder of the masks, which need not exist.
        naming: how masks are named.
    """
    names = sorted(file.name for file in masks.iterdir()) if masks.is_dir() else []
    present = set(names)
    exact = {composed(name): name for name in reversed(names)}
    by_stem = {composed(Path(n).stem): n for n in reversed(names) if Path(n).suffix.lower() in LOSSLESS}
    shared = masks in {image.parent for image in images}
    matched = {}
    for image in images:
        wanted = naming.mask_of(image)
        name = wanted if wanted in present else exact.get(composed(wanted))
        if name is None and not shared and Path(wanted).suffix.lower() in LOSSLESS:
            name = by_stem.get(composed(Path(wanted).stem))
        matched[image] = masks / (name or wanted)
    return matched


def composed(name: str) -> str:
    """Return a file name in Unicode's form NFC: macOS decomposes accents, other systems do not."""
    return unicodedata.normalize("NFC", name)


def guess_naming(images: Iterable[Path], masks: Iterable[Path]) -> Naming | None:
    """Guess how the masks of one folder are named after the images of another, or return None."""
    stems = {composed(image.stem) for image in images}
    names = [composed(mask.name) for mask in masks]
    suffixes = (next((name[i:] for i in range(len(name), 0, -1) if name[:i] in stems), None) for name in names)
    counts = Counter(suffix for suffix in suffixes if suffix is not None)
    endings = sum(count for suffix, count in counts.items() if suffix.lower() in LOSSLESS)
    if 2 * endings > len(names):  # a.png and b.tif: the same names with different endings
        return Naming(max((suffix for suffix in counts if suffix.lower() in LOSSLESS), key=lambda s: (counts[s], s)))
    if likeliest := _likeliest(counts, min(len(stems), len(names))):
        return Naming(likeliest)
    image_suffix, mask_suffix = _common_suffix(list(stems)), _common_suffix(names)
    bases = {stem.removesuffix(image_suffix) for stem in stems}
    paired = sum(name.removesuffix(mask_suffix) in bases for name in names)
    if image_suffix and 2 * paired > len(names):
        return Naming(mask_suffix, image_suffix)
    return _replaced_part(sorted(stems), names)


def guess_naming_in_one_folder(files: Sequence[Path]) -> Naming | None:
    """Guess how masks are named that are in the same folder as their images, or return None."""
    files = [file.with_name(composed(file.name)) for file in files]
    stems = {file.with_suffix("") for file in files}
    suffixes = Counter(
        file.name[i:] for file in files for i in range(1, len(file.stem)) if file.with_name(file.stem[:i]) in stems
    )
    if likeliest := _likeliest({s: count for s, count in suffixes.items() if not s[0].isalnum()}, len(files)):
        return Naming(likeliest)
    lossless = Counter(file.suffix for file in files if file.suffix.lower() in LOSSLESS)
    pairs = len(files) - len(stems)
    if same := [suffix for suffix, count in lossless.items() if pairs and count == pairs]:
        return Naming(same[0])
    return _two_suffixes(files) or _two_words(files)


def _replaced_part(stems: Sequence[str], names: Sequence[str]) -> Naming | None:
    """Recognize image_001.jpg and mask_001.png, 001.jpg and mask_001.png, or a_camera_1.jpg and a_label_1.png."""
    ending = Counter(Path(name).suffix for name in names).most_common(1)
    found: Counter[tuple[str, str]] = Counter()
    mask_stems = {Path(name).stem for name in names}
    compared = max(1, min(_MAX_COMPARED, _MAX_COMPARISONS // max(1, len(stems))))
    for mask in sorted(mask_stems)[:: max(1, len(mask_stems) // compared)]:
        parts = {_difference(stem, mask) for stem in stems}
        found.update(part for part in parts if re.sub(r"[-_. ]", "", part[1] or part[0]).isalpha())
    best, most = None, len(mask_stems) // 2  # more than half must match, and a single one proves nothing
    for (image_part, mask_part), _ in found.most_common(_MAX_COMPARED):
        naming = Naming(ending[0][0], "", image_part, mask_part)
        paired = len({Path(naming.mask_of(Path(f"{stem}.x"))).stem for stem in stems} & mask_stems)
        better = paired, bool(mask_part)
        if paired == 1 and not naming.names_masks:
            continue
        if paired > most or (best and paired == most and better > (most, bool(best.mask_part))):
            best, most = naming, paired
    return best


def _difference(stem: str, mask: str) -> tuple[str, str]:
    """Return the text in the image's stem and that in the mask's that differ, without what they have in common."""
    start = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(stem, mask, strict=False)))
    end = 0
    while end < min(len(stem), len(mask)) - start and stem[-1 - end] == mask[-1 - end]:
        end += 1
    return stem[start : len(stem) - end], mask[start : len(mask) - end]


def _two_words(files: Sequence[Path]) -> Naming | None:
    """Recognize image_001.png and mask_001.png in one folder, by the word for masks in the names."""
    masks = [file for file in files if file.suffix.lower() in LOSSLESS and names_masks(file.stem)]
    images = {composed(file.stem) for file in files} - {composed(file.stem) for file in masks}
    naming = _replaced_part(sorted(images), [composed(file.name) for file in masks]) if masks and images else None
    return naming if naming and names_masks(naming.mask_part) else None


def _likeliest(suffixes: Mapping[str, int], files: int) -> str | None:
    """Return the likeliest mask suffix of those that a third of the files have: mask words first, then by frequency."""
    frequent = [suffix for suffix, count in suffixes.items() if 3 * count >= files]
    return max(frequent, key=lambda suffix: (names_masks(suffix), suffixes[suffix], suffix), default=None)


def names_masks(suffix: str) -> bool:
    """Return whether a part of file names says that the files are masks, such as "_label.png"."""
    return any(word in suffix.lower() for word in _MASK_WORDS)


def _two_suffixes(files: Sequence[Path]) -> Naming | None:
    """Recognize a_sat.jpg and a_mask.png: two suffixes that begin with "_" or "-", after the same bases."""
    bases: dict[str, set[Path]] = {}
    for file in files:
        at = max(file.name.rfind("_"), file.name.rfind("-"))
        if at > 0:
            bases.setdefault(file.name[at:], set()).add(file.with_name(file.name[:at]))
    candidates = [suffix for suffix in bases if names_masks(suffix)]
    if len(candidates) != 1:
        return None
    (mask,) = candidates
    others = (suffix for suffix in bases if suffix != mask)
    image = max(others, key=lambda suffix: len(bases[suffix] & bases[mask]), default=None)
    if image is None or 2 * len(bases[image] & bases[mask]) <= len(bases[mask]):
        return None
    return Naming(mask, Path(image).stem)


def _common_suffix(names: Sequence[str]) -> str:
    """Return the longest common suffix that begins with neither a letter nor a digit."""
    common = takewhile(lambda letters: len(set(letters)) == 1, zip(*(name[::-1] for name in names), strict=False))
    suffix = "".join(letters[0] for letters in common)[::-1]
    return suffix[next((i for i, c in enumerate(suffix) if not c.isalnum()), len(suffix)) :]
