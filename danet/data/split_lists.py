"""The lists of a split's images that PASCAL VOC, PASCAL Context and COCO-Stuff come with."""

from collections.abc import Sequence
from pathlib import Path

from danet.errors import InputError


def devkit(root: Path, year: str) -> Path:
    """ROOT/VOCdevkit/`year`, or ROOT itself where there is no such folder."""
    folder = root / "VOCdevkit" / year
    return folder if folder.is_dir() else root


def read_list(file: Path, remedy: str) -> list[str]:
    """The stems of a split's images, from its list: one a line.

    Raises:
        InputError: no readable list, with this remedy.
    """
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace").split()
    except OSError as error:
        raise InputError(file, f"cannot be read ({error.strerror})", remedy) from error


def find_images(folder: Path, stems: Sequence[str], listed_in: Path, complete: bool = True) -> list[Path]:
    """`folder`/STEM.jpg for every stem, be it there or not; if it must be `complete`, only where all are there.

    Raises:
        InputError: no stem, or images missing (up to ten named).
    """
    if not stems:
        raise InputError(listed_in, "lists no image", "copy it again")
    images = [folder / f"{stem}.jpg" for stem in stems]
    missing = [image.name for image in images if not image.is_file()]
    if missing and complete:
        shown = ", ".join(missing[:10]) + (" ..." if len(missing) > 10 else "")
        what = f"{len(missing)} of {len(images)} images are missing: {shown}"
        raise InputError(folder, what, f"add them, or remove them from {listed_in}")
    return images
