"""PASCAL Context (Mottaghi et al., CVPR 2014): VOC 2010 with every pixel labeled, 4,998 / 5,105 images.

59 classes and background.

ROOT/VOCdevkit/VOC2010/JPEGImages/*.jpg  (or ROOT/JPEGImages/)
ROOT/trainval/*.mat    LabelMap is the mask: one of 459 ids per pixel
and the splits, in one of
    VOCdevkit/VOC2010/ImageSets/SegmentationContext/{train,val}.txt  (or ROOT/ImageSets/...)
    trainval_merged.json of the PASCAL in Detail challenge, in ROOT or in VOCdevkit/VOC2010

`load` follows the paper's protocol: the 59 most frequent classes, and all 400 others as background, which makes 60
classes. In `load59` the others are ignored.
"""

import json
from functools import partial
from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.datasets.pascal_voc import devkit
from danet.data.images.matlab import read_mat
from danet.data.naming import Naming
from danet.data.palette import voc_palette
from danet.data.samples import PairedFiles, listed_images, pair_files, read_list
from danet.errors import InputError
from danet.files import read_limited

COUNTS = {"train": 4998, "val": 5105}
DOWNLOAD = (
    "VOCtrainval_03-May-2010.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2010, trainval.tar.gz from "
    "https://www.cs.stanford.edu/~roozbeh/pascal-context, and trainval_merged.json, the splits, from "
    "https://codalabuser.blob.core.windows.net/public/trainval_merged.json"
)

_TABLE = """
    0 background  2 aeroplane  9 bag  18 bed  19 bedclothes  22 bench  23 bicycle  25 bird  31 boat  33 book  34 bottle
    44 building  45 bus  46 cabinet  59 car  65 cat  68 ceiling  72 chair  80 cloth  85 computer  98 cow  104 cup
    105 curtain  113 dog  115 door  144 fence  158 floor  159 flower  162 food  187 grass  189 ground  207 horse
    220 keyboard  232 light  258 motorbike  259 mountain  260 mouse  284 person  295 plate  296 platform
    308 pottedplant  324 road  326 rock  347 sheep  349 shelves  354 sidewalk  355 sign  360 sky  366 snow  368 sofa
    397 table  415 track  416 train  420 tree  424 truck  427 tvmonitor  440 wall  445 water  454 window  458 wood
"""  # id among the 459, and name; the rank is the train id
_IDS, _NAMES = tuple(map(int, _TABLE.split()[::2])), tuple(_TABLE.split()[1::2])
_LAST_ID = 459
_JSON_BYTES = 1 << 30

CLASSES = Classes(_NAMES, ((0, 0, 0), *voc_palette(59)))
CLASSES_59 = Classes(_NAMES[1:], voc_palette(59))


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """Load a split, "train" or "val", in 60 classes; 0 is background.

    Args:
        root: the folder that contains `VOCdevkit` and `trainval`.
        split: the split.
        complete: if False, list pairs too whose image or mask is missing.

    Raises:
        InputError: the list of the split does not exist; images or masks are missing.
    """
    return _samples(root, split, CLASSES, _IDS, 0, complete)


def load59(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """Load a split in 59 classes; background is ignored. Arguments and errors as in `load`."""
    return _samples(root, split, CLASSES_59, _IDS[1:], IGNORE, complete)


def _samples(
    root: Path, split: str, classes: Classes, ids: tuple[int, ...], others: int, complete: bool
) -> PairedFiles:
    """Load a split whose train ids are the ranks of `ids`; all other ids become `others`."""
    voc = devkit(root, "VOC2010")
    source, stems = _listed(root, voc, split)
    images = listed_images(voc / "JPEGImages", stems, source, complete)
    pairs = pair_files(images, root / "trainval", source, Naming(".mat"), complete)
    mapping = {**dict.fromkeys(range(_LAST_ID + 1), others), **{value: i for i, value in enumerate(ids)}}
    return PairedFiles(classes, pairs, LabelMap(mapping, len(classes)), partial(read_mat, field="LabelMap"))


def _listed(root: Path, voc: Path, split: str) -> tuple[Path, list[str]]:
    """Return the file that lists the split, preferably the text list, and the stems in it."""
    text = voc / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    for merged in (root / "trainval_merged.json", voc / "trainval_merged.json"):
        if merged.is_file() and not text.is_file():
            return merged, _stems_of_phase(merged, split)
    remedy = f"add it, or put trainval_merged.json into {root}; `split` is one of {', '.join(COUNTS)}"
    return text, read_list(text, remedy)


def _stems_of_phase(merged: Path, phase: str) -> list[str]:
    try:
        images = json.loads(read_limited(merged, _JSON_BYTES))["images"]
        return [Path(image["file_name"]).stem for image in images if image["phase"] == phase]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(merged, "truncated or damaged", "download it again") from error
