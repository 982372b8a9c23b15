"""PASCAL VOC 2012 segmentation (Everingham et al.), with SBD (Hariharan et al., ICCV 2011) for training.

20 objects and background; 1,464 / 1,449 / 1,456 images, and 10,582 in trainaug, with SBD.

ROOT/VOCdevkit/VOC2012/  (or ROOT itself)
    JPEGImages/*.jpg   SegmentationClass/*.png   palette PNG; the index is the class id; 255 = border, ignored
    ImageSets/Segmentation/{train,val,trainval,test}.txt
ROOT/benchmark_RELEASE/dataset/  (or ROOT/sbd/)  for trainaug only
    img/*.jpg   cls/*.mat   GTcls.Segmentation is the mask, without borders   train.txt   val.txt
"""

from pathlib import Path

import numpy as np

from danet.data.classes import IGNORE, Classes, LabelMap
from danet.data.images.matlab import read_mat
from danet.data.images.read import image_size, read_mask
from danet.data.naming import Naming
from danet.data.palette import voc_palette
from danet.data.samples import Pair, PairedFiles, listed_images, pair_files, read_list, root_remedy

COUNTS = {"train": 1464, "trainaug": 10582, "val": 1449, "trainval": 2913, "test": 1456}
DOWNLOAD = (
    "VOCtrainval_11-May-2012.tar from http://host.robots.ox.ac.uk/pascal/VOC/voc2012; for trainaug also SBD's "
    "benchmark.tgz from http://home.bharathh.info/pubs/codes/SBD/download.html"
)

_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person "
    "pottedplant sheep sofa train tvmonitor"
)
CLASSES = Classes(tuple(_NAMES.split()), ((0, 0, 0), *voc_palette(20)))

_LISTS = Path("ImageSets/Segmentation")


def load(root: Path, split: str, complete: bool = True) -> PairedFiles:
    """Load a split in the order of its list.

    "trainaug" is VOC's train with VOC's masks, plus everything in SBD that is in neither VOC's train nor its val, in
    the order of the names. "test" has no public masks: its labels are all 255.

    Args:
        root: the folder that contains `VOCdevkit`.
        split: the split.
        complete: if False, list pairs too whose image or mask is missing.

    Raises:
        InputError: the list of the split does not exist; images or masks are missing.
    """
    voc, label_map = devkit(root, "VOC2012"), LabelMap.identity(len(CLASSES))
    source = voc / _LISTS / f"{'train' if split == 'trainaug' else split}.txt"
    remedy = root_remedy("VOCdevkit", split, COUNTS)
    images = listed_images(voc / "JPEGImages", read_list(source, remedy), source, complete)
    if split == "test":
        return PairedFiles(CLASSES, [Pair(p.stem, p, p) for p in images], label_map, _unlabeled)
    pairs = pair_files(images, voc / "SegmentationClass", source, complete=complete)
    if split == "trainaug":
        pairs = sorted(pairs + _sbd_pairs(root, voc, complete), key=lambda pair: pair.name)
    return PairedFiles(CLASSES, pairs, label_map, _read_png_or_mat)


def devkit(root: Path, year: str) -> Path:
    """Return ROOT/VOCdevkit/`year`, or ROOT itself if there is no such folder."""
    folder = root / "VOCdevkit" / year
    return folder if folder.is_dir() else root


def _sbd_pairs(root: Path, voc: Path, complete: bool) -> list[Pair]:
    sbd = root / "sbd"
    sbd = sbd if sbd.is_dir() else root / "benchmark_RELEASE" / "dataset"
    stems = sorted(_train_and_val(sbd) - _train_and_val(voc / _LISTS))
    return pair_files(listed_images(sbd / "img", stems, sbd, complete), sbd / "cls", sbd, Naming(".mat"), complete)


def _train_and_val(lists: Path) -> set[str]:
    return {stem for split in ("train", "val") for stem in read_list(lists / f"{split}.txt", DOWNLOAD)}


def _read_png_or_mat(mask: Path) -> np.ndarray:
    return read_mat(mask, "GTcls.Segmentation") if mask.suffix == ".mat" else read_mask(mask)


def _unlabeled(image: Path) -> np.ndarray:
    return np.full(image_size(image), IGNORE, np.uint8)
