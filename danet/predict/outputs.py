"""The names of output files, and the input files to segment, checked for conflicts before the work begins."""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from PIL import Image

from danet.data.images.channels import RGB, Bands
from danet.data.images.pillow import MAX_PIXELS
from danet.data.images.read import list_images, read_header
from danet.errors import InputError
from danet.files import check_new, ignores_case

Kind = Literal["image", "video", "large"]

OUTPUTS: dict[Kind, tuple[str, ...]] = {
    "image": ("_overlay.png", "_labels.png", ".json"),
    "video": ("_overlay.mp4", ".json"),
    "large": ("_overlay.png", "_labels.tif", ".json"),
}
"""Suffixes of the output files, which are added to the input's stem. Large images have more than MAX_PIXELS pixels."""

_VIDEOS = (".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi")
_LARGE = (".tif", ".tiff", ".png", ".jpg", ".jpeg")
_MAX_NAME = 255  # bytes, of most file systems


def output_paths(folder: Path, stem: str, kind: Kind = "image") -> list[Path]:
    """Return the paths of the output files of an input with this stem."""
    return [folder / f"{stem}{suffix}" for suffix in OUTPUTS[kind]]


def kind_of(file: Path) -> Kind:
    """Return what a file is: a video by its suffix, a large image by its header, otherwise an image."""
    if (suffix := file.suffix.lower()) in _VIDEOS:
        return "video"
    try:
        header = read_header(file) if suffix in _LARGE else None
    except InputError as error:
        return "large" if isinstance(error.__cause__, Image.DecompressionBombError) else "image"
    return "large" if header is not None and header.height * header.width > MAX_PIXELS else "image"


def find_images(inputs: Iterable[Path], out: Path, overwrite: bool = False, bands: Bands = RGB) -> list[Path]:
    """Return the files to segment: the given ones, and the images in given folders (not in their subfolders).

    Args:
        inputs: files and folders.
        out: folder of the outputs.
        overwrite: allow outputs that exist.
        bands: the bands that the network takes.

    Raises:
        InputError: a folder without images; two files with the same output names; an output exists, or its name is too
            long.
    """
    files: list[Path] = []
    for path in inputs:
        files += list_images(path, bands) if path.is_dir() else [path]
    by_stem: dict[str, Path] = {}
    one_case = ignores_case(out)
    for file in files:
        stem = file.stem.casefold() if one_case else file.stem
        if stem in by_stem:
            other = by_stem[stem]
            if file.resolve() == other.resolve():
                raise InputError(file, "given twice", "list it once")
            remedy = "rename one of them, or segment them into different `out` folders"
            raise InputError(file, f"would overwrite the results of {other}", remedy)
        by_stem[stem] = file
        paths = output_paths(out, file.stem, kind_of(file))
        if (length := max(len(path.name.encode(errors="surrogateescape")) for path in paths)) > _MAX_NAME:
            what = f"the names of its outputs would have {length} bytes, more than {_MAX_NAME}"
            raise InputError(file, what, "rename the file")
        check_new(*paths, overwrite=overwrite)
    return files
