"""PASCAL Context (Mottaghi et al., CVPR 2014): VOC 2010's images labeled all over, 59 classes and background,
4,998 / 5,105 images.

ROOT/VOCdevkit/VOC2010/JPEGImages/*.jpg  (or ROOT/JPEGImages/)
ROOT/trainval/*.mat    LabelMap is the mask, one of 459 ids a pixel
and the splits, from one of
    VOCdevkit/VOC2010/ImageSets/SegmentationContext/{train,val}.txt  (or ROOT/ImageSets/...)
    trainval_merged.json of the PASCAL in Detail challenge, in ROOT or in VOCdevkit/VOC2010

The paper's protocol is `load`: the 59 most frequent classes, and all 400 others as background, 60 classes in all. In
`load59` those others are ignored.
"""

import json
from functools import partial
from pathlib import Path

from danet.data.classes import IGNORE, Classes, LabelMap, distinct_palette
from danet.data.images.matlab import read_mat
from danet.data.naming import Naming
from danet.data.samples import PairedFiles, pair_files
from danet.data.split_lists import devkit, find_images, read_list
from danet.errors import InputError

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
"""  # each class with its id among the 459; its place is the train id
_IDS, _NAMES = tuple(map(int, _TABLE.split()[::2])), tuple(_TABLE.split()[1::2])
_LAST_ID = 459

CLASSES = Classes(_NAMES, ((0, 0, 0), *distinct_palette(59)))
CLASSES_59 = Classes(_NAMES[1:], distinct_palette(59))


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """The samples of `split`, "train" or "val", in 60 classes: 0 is background.

    Raises:
        InputError: no list of the split; images or masks missing.
    """
    return _samples(root, split, CLASSES, {**dict.fromkeys(range(_LAST_ID + 1), 0), **_train_ids(_IDS)}, complete)


def load59(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """The same in 59 classes: background is ignored."""
    return _samples(
        root, split, CLASSES_59, {**dict.fromkeys(range(_LAST_ID + 1), IGNORE), **_train_ids(_IDS[1:])}, complete
    )


def _train_ids(ids: tuple[int, ...]) -> dict[int, int]:
    return {value: train_id for train_id, value in enumerate(ids)}


def _samples(root: Path, split: str, classes: Classes, mapping: dict[int, int], complete: bool) -> PairedFiles:
    voc = devkit(root, "VOC2010")
    listed_in, stems = _listed(root, voc, split)
    pairs = pair_files(
        find_images(voc / "JPEGImages", stems, listed_in, complete),
        root / "trainval",
        listed_in,
        Naming(".mat"),
        complete,
    )
    return PairedFiles(classes, pairs, LabelMap(mapping, len(classes)), partial(read_mat, field="LabelMap"))


def _listed(root: Path, voc: Path, split: str) -> tuple[Path, list[str]]:
    """The file that lists the split, and the stems in it; of several the text list."""
    text = voc / "ImageSets" / "SegmentationContext" / f"{split}.txt"
    for merged in (root / "trainval_merged.json", voc / "trainval_merged.json"):
        if merged.is_file() and not text.is_file():
            return merged, _stems_of_phase(merged, split)
    remedy = f"add it, or put trainval_merged.json into {root}; splits are {', '.join(COUNTS)}"
    return text, read_list(text, remedy)


def _stems_of_phase(merged: Path, phase: str) -> list[str]:
    try:
        images = json.loads(merged.read_bytes())["images"]
        return [Path(image["file_name"]).stem for image in images if image["phase"] == phase]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(merged, f"truncated or damaged ({error})", "download it again") from error
