"""Stacks and animations: files with several images. Each is refused as an image, unless a page is asked for."""

import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from danet.data.images.formats import NOT_PAGES, Stream
from danet.errors import InputError

_MAX_PAGES = 100_000


def check_pages(count: int, path: Path | str, page: int | None) -> None:
    """Check that a file has a page.

    Args:
        count: the number of its pages.
        path: its path, for messages.
        page: the position of the page; None: the file must have only one.

    Raises:
        InputError: it has no such page, or several.
    """
    if page is None and count > 1:
        raise InputError(path, f"a stack or animation of {count} pages", "save the pages as images of their own")
    if page is not None and page >= count:
        raise InputError(path, f"has {count} pages, so page {page + 1} does not exist", "use a smaller number")


def find_pages(file: Stream, image: Image.Image | None = None) -> Sequence[int]:
    """Return the positions of the pages of an open file; the position in the file does not change.

    Overviews, transparency masks, previews and layers are no pages.

    Args:
        file: the open file.
        image: the image that Pillow opened from it; None: a file that Pillow does not read completely.
    """
    if image is None or image.format == "TIFF":
        return _tiff_pages(file) or [0]
    return range(1 if image.format in NOT_PAGES else getattr(image, "n_frames", 1))


def _tiff_pages(file: Stream) -> list[int]:
    """Return the positions of the pages in a TIFF; none for other files, or before a place that is damaged."""
    place, pages = file.tell(), []
    try:
        for position, tags in enumerate(tiff_directories(file)):
            if not tags.get(254, 0) & 5:  # 1: reduced resolution, 4: transparency mask
                pages.append(position)
    except Exception:  # decoding reports it
        return pages
    finally:
        file.seek(place)
    return pages


def tiff_directories(file: Stream) -> Iterator[ImageFileDirectory_v2]:
    """Yield the tags of each image in an open TIFF or BigTIFF; the same object for all of them.

    Raises:
        Exception: of a dozen types, if the file is no TIFF, or a damaged one.
    """
    file.seek(0)
    head = file.read(8)
    tags = ImageFileDirectory_v2(head + file.read(8) if head[2] == 43 else head)  # 43: BigTIFF
    seen: set[int] = set()
    while tags.next and tags.next not in seen and len(seen) < _MAX_PAGES:
        seen.add(tags.next)
        file.seek(tags.next)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about damaged tags
            tags.load(file)
        yield tags
