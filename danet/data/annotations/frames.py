"""The pixels of an annotated image that its shapes refer to: as displayed, or as stored before the EXIF orientation.

Most tools display the image with its EXIF orientation, some as stored. The size in the export tells which; if both
have the same size, the image as displayed is assumed.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from danet.data.annotations.rasterize import Drawing, draw_shapes
from danet.data.annotations.shapes import AnnotatedImage, Line, Polygon, Region, Shape
from danet.data.images.pillow import MAX_PIXELS, SWAPPING
from danet.data.images.read import decode_image, read_header
from danet.errors import InputError

Exif = Literal["apply", "ignore"]


@dataclass(frozen=True)
class Frame:
    """An image, and how its shapes are drawn.

    Args:
        image: the image.
        size: height and width of the pixels that the shapes refer to.
        orientation: the EXIF orientation that is applied to the drawn labels; 1: none.
        exif: whether the image has an EXIF orientation, and if so whether the shapes refer to the image as "displayed"
            or as "stored"; "assumed": as displayed, which the export does not tell.
    """

    image: AnnotatedImage
    size: tuple[int, int]
    orientation: int
    exif: Literal["none", "displayed", "stored", "assumed"]


def find_frame(image: AnnotatedImage, exif: Exif | None = None) -> Frame:
    """Return the frame of an image from its header and the size in the export.

    Args:
        image: the image, which was found or is embedded in the export.
        exif: whether the shapes refer to the image with its EXIF orientation; None: as the sizes tell.

    Raises:
        InputError: the image is damaged or too large, or has another size than the export says.
    """
    if image.file is None:
        assert image.embedded is not None
        height, width = decode_image(image.embedded(), image.place).shape[:2]
        stored, orientation = (height, width), 1
    else:
        header = read_header(image.file)
        stored, orientation = (header.height, header.width), header.orientation
    if stored[0] * stored[1] > MAX_PIXELS:
        what = f"{stored[1]} x {stored[0]}: more pixels than the limit of {MAX_PIXELS:,}"
        raise InputError(image.file or image.place, what, "cut it into tiles before the annotation")
    displayed = (stored[1], stored[0]) if orientation in SWAPPING else stored
    sizes = {"apply": displayed, "ignore": stored}
    fitting = [way for way in (exif,) if way] or [way for way, size in sizes.items() if image.size in (None, size)]
    if not fitting or image.size not in (None, sizes[fitting[0]]):
        assert image.size is not None
        what = f"is {displayed[1]} x {displayed[0]}, but its annotations are for {image.size[1]} x {image.size[0]}"
        raise InputError(image.file or image.place, f"{what} ({image.place})", "use the images that were annotated")
    if fitting[0] == "ignore":
        return Frame(image, stored, orientation, "none" if orientation == 1 else "stored")
    unclear = exif is None and len(fitting) == 2
    return Frame(image, displayed, 1, "none" if orientation == 1 else "assumed" if unclear else "displayed")


def draw_frame(frame: Frame, ids: Mapping[str, int], line_width: float | None, largest_first: bool) -> Drawing:
    """Draw the shapes of an image, upright; see `draw_shapes`."""
    shapes = _scaled(frame) if frame.image.relative else frame.image.shapes
    labels, findings = draw_shapes(shapes, frame.size, ids, line_width, largest_first)
    return Drawing(turn_upright(labels, frame.orientation), findings)


def turn_upright(labels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation, from 1 to 8, to H,W labels."""
    turned = labels
    if orientation in (2, 3, 7, 8):
        turned = turned[:, ::-1]
    if orientation in (3, 4, 6, 7):
        turned = turned[::-1]
    return turned.T if orientation in SWAPPING else turned


def _scaled(frame: Frame) -> Iterator[Shape]:
    """Yield shapes in pixels, from fractions of width and height."""
    scale = frame.size[::-1]

    def scaled(region: Region) -> Region:
        match region:
            case Polygon(rings):
                return Polygon(tuple(ring * scale for ring in rings))
            case Line(points):
                return Line(points * scale)
        return region

    for shape in frame.image.shapes:
        yield replace(shape, regions=tuple(scaled(region) for region in shape.regions))
