"""CamVid (Brostow et al., ECCV 2008): street scenes, 480 x 360, 11 classes, 367 / 101 images. Research use only.

ROOT/images/{train,val}/*.jpg   ROOT/labels/{train,val}/*.png   one byte a pixel, the class id; 11 = void, ignored
"""

from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.images.read import list_images
from danet.data.samples import PairedFiles, pair_files
from danet.errors import InputError

COUNTS = {"train": 367, "val": 101}

CLASSES = Classes(
    names=(
        "sky",
        "building",
        "pole",
        "road",
        "pavement",
        "tree",
        "sign_symbol",
        "fence",
        "car",
        "pedestrian",
        "bicyclist",
    ),
    palette=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),
)

_VOID = 11


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """The samples of `split`, "train" or "val", by file name.

    Raises:
        InputError: no such split, folder or mask.
    """
    folder = root / "images" / split
    if not folder.is_dir():
        raise InputError(
            folder, "no such folder", "give --root the folder that holds images/train, images/val and labels/"
        )
    label_map = LabelMap({**{i: i for i in range(len(CLASSES))}, _VOID: IGNORE}, len(CLASSES))
    return PairedFiles(
        CLASSES, pair_files(list_images(folder), root / "labels" / split, folder, complete=complete), label_map
    )
