"""Cityscapes' further scores: IoU of 7 categories, and instance-weighted IoU (Cordts et al., CVPR 2016, section 4.2).

As in cityscapesscripts/evaluation/evalPixelLevelSemanticLabeling.py; tests/evaluate/test_submission.py compares both.

    iIoU = iTP / (iTP + FP + iFN)

FP is that of IoU. iTP and iFN count pixels weighted by (average area of the class) / (area of their instance), so that
iTP + iFN = (average area) * (number of instances) and iTP = (average area) * (sum of the recalls of the instances).
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64, Integer

from danet.data.classes import IGNORE
from danet.data.datasets.cityscapes import CLASSES, TRAIN_TO_LABEL_ID
from danet.data.images.read import read_mask
from danet.data.samples import PairedFiles, Samples
from danet.errors import InputError
from danet.evaluate.confusion import Confusion, nan_mean, to_json

CATEGORIES = {
    "flat": ("road", "sidewalk"),
    "construction": ("building", "wall", "fence"),
    "object": ("pole", "traffic light", "traffic sign"),
    "nature": ("vegetation", "terrain"),
    "sky": ("sky",),
    "human": ("person", "rider"),
    "vehicle": ("car", "truck", "bus", "train", "motorcycle", "bicycle"),
}
AVERAGE_AREA = {  # pixels per instance in the training set, from the official script
    "person": 3462.4756337644,
    "rider": 3930.4788056518,
    "car": 12794.0202738185,
    "truck": 27855.1264367816,
    "bus": 35732.1511111111,
    "train": 67583.7075812274,
    "motorcycle": 6298.7200839748,
    "bicycle": 4672.3249222261,
}

_MEMBERS = np.array([[name in names for name in CLASSES.names] for names in CATEGORIES.values()], np.int64)  # 7,19
_CATEGORY = _MEMBERS.argmax(0)
_AREA = np.array([AVERAGE_AREA.get(name, 0.0) for name in CLASSES.names])
_WITH_INSTANCES = range(24, 34)  # label ids; 29 and 30, caravan and trailer, are not evaluated
_LABEL_IDS = "_labelIds.png"
_TRAIN_ID = np.array([TRAIN_TO_LABEL_ID.index(i) if i in TRAIN_TO_LABEL_ID else IGNORE for i in range(34)])


@dataclass
class Instances:
    """Sums over the instances of images, for each train id.

    Args:
        count: number of instances.
        recall: sum over the instances of the share of their pixels predicted as their class.
        category_recall: the same for any class of their category.
    """

    count: Int64[np.ndarray, "19"] = field(default_factory=lambda: np.zeros(len(CLASSES), np.int64))
    recall: Float64[np.ndarray, "19"] = field(default_factory=lambda: np.zeros(len(CLASSES)))
    category_recall: Float64[np.ndarray, "19"] = field(default_factory=lambda: np.zeros(len(CLASSES)))

    def update(self, instance_ids: Integer[np.ndarray, "H W"], prediction: Integer[np.ndarray, "H W"]) -> None:
        """Add an image: instance ids as returned by `read_instances`, predicted train ids."""
        single = _TRAIN_ID[instance_ids // 1000] != IGNORE  # neither stuff nor groups nor unevaluated classes
        ids, index, area = np.unique(instance_ids[single], return_inverse=True, return_counts=True)
        truth, predicted = _TRAIN_ID[ids // 1000], prediction[single]
        as_class = np.bincount(index, predicted == truth[index], len(ids))
        as_category = np.bincount(index, _CATEGORY[predicted] == _CATEGORY[truth][index], len(ids))
        self.count += np.bincount(truth, minlength=len(CLASSES))
        self.recall += np.bincount(truth, as_class / area, len(CLASSES))
        self.category_recall += np.bincount(truth, as_category / area, len(CLASSES))

    def merge(self, other: "Instances") -> None:
        """Add the sums of other images."""
        self.count += other.count
        self.recall += other.recall
        self.category_recall += other.category_recall


@dataclass(frozen=True)
class CityscapesScores:
    """Fractions in [0, 1] by name; nan for names in neither labels nor prediction.

    Args:
        category_iou: of the 7 categories.
        iiou: of the 8 classes with instances; empty without instance files.
        category_iiou: of "human" and "vehicle"; empty without instance files.
    """

    category_iou: dict[str, float]
    iiou: dict[str, float]
    category_iiou: dict[str, float]

    def means(self) -> dict[str, float]:
        """Return the mean of each score; nan without values."""
        return {name: nan_mean(each.values()) for name, each in vars(self).items()}

    def as_dict(self) -> dict[str, Any]:
        """Return each score and its mean as JSON values; nan becomes None."""
        return to_json({name: {"mean": nan_mean(each.values()), "each": each} for name, each in vars(self).items()})


def scores(confusion: Confusion, instances: Instances | None) -> CityscapesScores:
    """Compute the scores from the counts of the 19 classes, and of the instances if they are known."""
    categories = Confusion(len(CATEGORIES))
    categories.matrix = _MEMBERS @ confusion.matrix @ _MEMBERS.T
    category_iou = dict(zip(CATEGORIES, categories.scores().iou.tolist(), strict=True))
    if instances is None:
        return CityscapesScores(category_iou, {}, {})
    total = _AREA * instances.count
    iiou = _ratio(_AREA * instances.recall, total + _false_positives(confusion))
    category_iiou = _ratio(
        _MEMBERS @ (_AREA * instances.category_recall), _MEMBERS @ total + _false_positives(categories)
    )
    return CityscapesScores(
        category_iou,
        {name: iiou[CLASSES.names.index(name)] for name in AVERAGE_AREA},
        {name: category_iiou[list(CATEGORIES).index(name)] for name in ("human", "vehicle")},
    )


def instance_files(samples: Samples) -> dict[str, Path]:
    """Return the *_gtFine_instanceIds.png of each sample by name.

    Empty if the dataset has none: it is not Cityscapes, or only the labelIds were copied.

    Raises:
        InputError: only some of the files exist.
    """
    if not isinstance(samples, PairedFiles) or samples.classes.names != CLASSES.names:
        return {}
    masks = {p.name: p.mask for p in samples.pairs if p.mask.name.endswith(_LABEL_IDS)}
    files = {name: m.with_name(f"{m.name.removesuffix(_LABEL_IDS)}_instanceIds.png") for name, m in masks.items()}
    missing = [file for file in files.values() if not file.is_file()]
    if len(missing) == len(files) or len(files) < len(samples):
        return {}
    if missing:
        what = f"{len(missing)} of {len(files)} instance files are missing, but iIoU needs all of them"
        raise InputError(missing[0], what, "unpack gtFine_trainvaltest.zip again, or remove all instance files")
    return files


def read_instances(file: Path, size: tuple[int, ...]) -> np.ndarray:
    """Read an *_instanceIds.png as int64: label id * 1000 + instance number, or below 1000 for all other pixels.

    Args:
        file: the PNG.
        size: expected height and width.

    Raises:
        InputError: an unreadable file, a wrong size, or instances of classes that have none.
    """
    ids = read_mask(file).astype(np.int64)  # a file without instances may have 8 bits; 1000 would overflow
    if ids.shape != size:
        what = f"has {ids.shape[1]} x {ids.shape[0]} pixels, but the image has {size[1]} x {size[0]}"
        raise InputError(file, what, "copy it again from gtFine_trainvaltest.zip")
    for value in np.unique(ids[ids >= 1000]):
        if value // 1000 not in _WITH_INSTANCES:
            what = f"value {value} is not an instance of a Cityscapes class"
            raise InputError(file, what, "copy the original *_instanceIds.png")
    return ids


def _false_positives(confusion: Confusion) -> Int64[np.ndarray, " K"]:
    return confusion.matrix.sum(0) - confusion.matrix.diagonal()


def _ratio(true: np.ndarray, total: np.ndarray) -> list[float]:
    with np.errstate(invalid="ignore"):
        return (true / total).tolist()
