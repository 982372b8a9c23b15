"""Cityscapes (Cordts et al., CVPR 2016), fine annotations: street scenes, 2048 x 1024, 19 classes.

2,975 / 500 / 1,525 images. Research use only.

ROOT/leftImg8bit/{train,val,test}/CITY/CITY_SEQ_FRAME_leftImg8bit.png
ROOT/gtFine/{train,val,test}/CITY/CITY_SEQ_FRAME_gtFine_labelIds.png    one byte per pixel, the label id, 0..33

Label ids are mapped to train ids on reading; no conversion script is needed. License plates (label id -1) were never
drawn into labelIds: their pixels have the vehicle's id. The masks of `test` contain ignored ids only.
"""

from collections.abc import Container
from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.samples import Pair, PairedFiles, root_remedy
from danet.errors import InputError

COUNTS = {"train": 2975, "val": 500, "test": 1525}
DOWNLOAD = (
    "leftImg8bit_trainvaltest.zip and gtFine_trainvaltest.zip from https://www.cityscapes-dataset.com (registration)"
)

_TABLE = (  # train id = row: name, label id, color
    ("road", 7, (128, 64, 128)),
    ("sidewalk", 8, (244, 35, 232)),
    ("building", 11, (70, 70, 70)),
    ("wall", 12, (102, 102, 156)),
    ("fence", 13, (190, 153, 153)),
    ("pole", 17, (153, 153, 153)),
    ("traffic light", 19, (250, 170, 30)),
    ("traffic sign", 20, (220, 220, 0)),
    ("vegetation", 21, (107, 142, 35)),
    ("terrain", 22, (152, 251, 152)),
    ("sky", 23, (70, 130, 180)),
    ("person", 24, (220, 20, 60)),
    ("rider", 25, (255, 0, 0)),
    ("car", 26, (0, 0, 142)),
    ("truck", 27, (0, 0, 70)),
    ("bus", 28, (0, 60, 100)),
    ("train", 31, (0, 80, 100)),
    ("motorcycle", 32, (0, 0, 230)),
    ("bicycle", 33, (119, 11, 32)),
)

CLASSES = Classes(tuple(name for name, _, _ in _TABLE), tuple(color for _, _, color in _TABLE))

TRAIN_TO_LABEL_ID = tuple(label_id for _, label_id, _ in _TABLE)
"""The label id of each train id. Submissions to the benchmark's server use label ids."""

_LAST_LABEL_ID = 33
_MASK = "_gtFine_labelIds.png"


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """Load a split, "train", "val" or "test", in the order of the names CITY_SEQ_FRAME.

    Args:
        root: the folder that contains `leftImg8bit` and `gtFine`.
        split: the split.
        complete: if False, list pairs too whose image or mask is missing.

    Raises:
        InputError: the split does not exist or has no images; masks are missing.
    """
    folder, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    pairs = [_pair(image, masks) for image in sorted(folder.glob("*/[!.]*_leftImg8bit.png"))]
    if not pairs:
        remedy = root_remedy("leftImg8bit and gtFine", split, COUNTS)
        raise InputError(folder, "contains no CITY/*_leftImg8bit.png", remedy)
    missing = [pair.mask.name for pair in pairs if not pair.mask.is_file()]
    if missing and complete:
        what = f"{len(missing)} of {len(pairs)} masks are missing, the first {missing[0]}"
        raise InputError(masks, what, f"unpack gtFine_trainvaltest.zip into {root}")
    if not complete:
        pairs += _unpaired_masks(folder, masks, {pair.mask for pair in pairs})
    to_train_id = {label_id: train_id for train_id, label_id in enumerate(TRAIN_TO_LABEL_ID)}
    ignored = dict.fromkeys((*range(_LAST_LABEL_ID + 1), IGNORE), IGNORE)  # IGNORE is also -1 in one byte
    return PairedFiles(CLASSES, pairs, LabelMap({**ignored, **to_train_id}, len(CLASSES)))


def _unpaired_masks(images: Path, masks: Path, paired: Container[Path]) -> list[Pair]:
    """Pair each mask that has no image with the path where its image should be."""
    unpaired = [mask for mask in sorted(masks.glob(f"*/[!.]*{_MASK}")) if mask not in paired]
    names = [mask.parent / f"{mask.name.removesuffix(_MASK)}_leftImg8bit.png" for mask in unpaired]
    return [_pair(images / name.relative_to(masks), masks) for name in names]


def _pair(image: Path, masks: Path) -> Pair:
    name = image.name.removesuffix("_leftImg8bit.png")
    return Pair(name, image, masks / image.parent.name / f"{name}{_MASK}")
